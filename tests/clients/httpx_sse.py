"""PyPI httpx-sse on one stream, which does not come back by itself: httpx_sse.py URL [LAST_EVENT_ID]"""

import json
import sys

# The directory of this script would otherwise hide the package of the same name.
sys.path.pop(0)

import httpx  # noqa: E402
from httpx_sse import connect_sse  # noqa: E402


def say(line):
    print(json.dumps(line), flush=True)


def main(url, last_id=None):
    headers = {"Last-Event-ID": last_id} if last_id else {}
    try:
        with httpx.Client(timeout=None, trust_env=False) as client:
            with connect_sse(client, "GET", url, headers=headers) as source:
                source.response.raise_for_status()
                say({"open": True})
                for sse in source.iter_sse():
                    say({"id": sse.id, "event": sse.event, "data": sse.data})
    except (httpx.ReadError, httpx.RemoteProtocolError):
        pass
    say({"lost": True})


main(*sys.argv[1:])
