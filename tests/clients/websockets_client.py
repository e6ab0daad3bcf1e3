"""PyPI websockets at a `/ws` URL, coming back by itself from where it was: websockets_client.py URL

A line of standard input, {"ref", "publish"}, is published.
"""

import json
import os
import re
import sys
import threading
import time
from urllib.parse import quote

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect


def say(line):
    print(json.dumps(line), flush=True)


class Listener:
    def __init__(self, url):
        self.url, self.last, self.socket = url, None, None

    def run(self):
        while True:
            retry = 100
            try:
                url = self.url if self.last is None else f"{self.url}&last_event_id={quote(self.last)}"
                with connect(url, subprotocols=["tidings.v1"], proxy=None, max_size=None) as socket:
                    self.socket = socket
                    while True:
                        self.heard(json.loads(socket.recv()))
            except ConnectionClosed as closed:
                code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
                say({"id": str(code), "event": "close", "data": reason})
                asked = re.fullmatch(r"retry=(\d+)", reason)
                retry = int(asked[1]) if asked else retry
            except (OSError, EOFError, TimeoutError, InvalidHandshake):
                pass  # it is down, or going down
            say({"lost": True})
            time.sleep(retry / 1000)

    def heard(self, message):
        if "subscribed" in message:
            self.last = message["subscribed"]["cursor"]
            say({"open": True})
        if "gap" in message:
            say({"id": self.last or "", "event": "tidings.gap", "data": json.dumps(message["gap"])})
        for event in message.get("events", []):
            self.last = event["id"]
            say({"id": event["id"], "event": event["event"] or "message", "data": event["data"]})
        if "published" in message:
            say({"id": message["published"]["id"], "event": "published", "data": message["ref"]})
        if "error" in message:
            say({"id": "", "event": "refused", "data": json.dumps(message)})

    def publish(self):
        for line in sys.stdin:
            asked = json.loads(line)
            self.socket.send(json.dumps({"ref": asked["ref"], "publish": asked["publish"]}))
        os._exit(0)


listener = Listener(sys.argv[1])
threading.Thread(target=listener.publish, daemon=True).start()
listener.run()
