"""PyPI python-socketio on one hub, coming back by itself: socketio.py URL TRANSPORT TOPIC...

Listens by `auth`, publishes each line of its input on the first topic, and says what it sees, as socketio_driver.mjs does.
"""

import json
import sys
import threading

# The directory of this script would otherwise hide the package of the same name.
sys.path.pop(0)

import socketio  # noqa: E402


saying = threading.Lock()


def say(**line):
    with saying:
        print(json.dumps({"client": "", **line}), flush=True)


def main(url, transport, *topics):
    last = {}
    client = socketio.Client(reconnection_delay=0.05, reconnection_delay_max=0.2)
    client.on("connect", lambda: say(connected=client.transport()))
    client.on("disconnect", lambda reason: say(lost=reason))
    client.on("gap", lambda gap, sub: say(gap=gap, sub=sub))
    client.on("closed", lambda closed, sub: say(closed=closed, sub=sub))

    @client.on("subscribed")
    def subscribed(told, sub):
        last["last_event_id"] = told["cursor"]
        say(subscribed=told, sub=sub)

    @client.on("event")
    def event(event, sub):
        last["last_event_id"] = event["id"]
        say(event=event, sub=sub)

    say(ready=True)
    client.connect(url, auth=lambda: {"topics": topics, **last}, transports=[transport])
    for line in sys.stdin:
        answer = client.call("publish", {"topic": topics[0], "data": line.rstrip("\n")})
        say(call=line.rstrip("\n"), answer=answer)
    client.disconnect()


main(*sys.argv[1:])
