"""How the figures of a cluster are measured: nodes on one core, the broker and the load on the other; and the broker by
its client library alone, on the nodes' core."""

import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from brokers import Broker
from servers import READY_S, Failed, Server, cores

# The journal keeps all that a run publishes.
BYTES_MAX = "1GiB"

# What was measured of brokers alone beside nodes, until it is asked for.
beside = {}


def measure(case, name, quick, run):
    """One run on a journal, or with its client library alone: its figures, and what was wrong with it."""
    if name == "centrifugo-redis":
        with Broker("redis-everysec") as broker, Server(name, broker=broker.url) as server:
            return run(case.words(quick) + on_load() + server.load)
    bare = name.endswith("-bare")
    if bare and case.paired:
        return beside.pop((case.key, name), ({}, "not measured"))
    with Broker(name.removesuffix("-bare")) as broker:
        if case.filled:
            with Node(broker) as node:
                found, wrong = run(case.filled_words(quick) + node.load + on_load())
                if wrong:
                    return found, wrong
        alone = case.bare_words(quick) + ["--url", broker.url, "--bytes-max", BYTES_MAX, "--cpu", str(cores()[0])]
        if bare:
            return run(alone)
        if case.filled:
            return start(broker, case.sizes["events"][1 if quick else 0]), ""
        with ExitStack() as stack:
            nodes = [stack.enter_context(Node(broker)) for _ in range(case.nodes)]
            words = case.words(quick) + on_load() + nodes[0].load
            if len(nodes) > 1:
                words += ["--publish-url", f"{nodes[0].url}/topics/{{topic}}"]
                words += ["--subscribe-url", f"{nodes[-1].url}/topics/{{topic}}"]
            if not case.paired:
                return run(words)
            with ThreadPoolExecutor(2) as pool:
                both = [pool.submit(run, words), pool.submit(run, alone)]
                found, beside[case.key, f"{name}-bare"] = [one.result() for one in both]
            return found


def on_load():
    return ["--cpu", str(cores()[1])]


def start(broker, events):
    """A node that has nothing yet, until it has all that the journal has."""
    begun = time.monotonic()
    with Node(broker):
        seconds = time.monotonic() - begun
    return {"seconds": seconds, "events_per_s": events / seconds}


class Node(Server):
    """A node that is ready."""

    def __init__(self, broker):
        env = {"TIDINGS_CLUSTER__JOURNAL": broker.url, "TIDINGS_CLUSTER__JOURNAL_BYTES_MAX": BYTES_MAX}
        super().__init__("tidings", env=env)

    def __enter__(self):
        super().__enter__()
        until = time.monotonic() + READY_S
        while time.monotonic() < until and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5):
                    return self
            except (urllib.error.HTTPError, OSError):
                time.sleep(0.005)
        told = self.errors()
        self.stop()
        raise Failed(f"a node was not ready: {told}")
