"""What is measured, and on which servers."""

from dataclasses import dataclass, field

from brokers import JOURNALS

ALL = ["tidings", "nchan", "plain", "ceiling", "mercure", "centrifugo"]
TWO = ["tidings", "nchan"]
OWN = ["tidings"]
NODES = list(JOURNALS)
BARE = [f"{name}-bare" for name in JOURNALS]

KIB = 1024


@dataclass
class Case:
    """One run of `tidings bench`, on each of some servers in turn."""

    key: str
    servers: list
    # After `tidings bench`; {name} is the full or the quick value of `sizes`.
    command: str
    fields: list
    sizes: dict = field(default_factory=dict)
    pinned: bool = True
    env: dict = field(default_factory=dict)
    config: str = ""
    # Measured without a server.
    alone: bool = False

    # A cluster's: how many nodes; the broker by its client library alone; and what is published to its journal first.
    nodes: int = 1
    bare: str = ""
    # The two at the same time, on the same broker: what its disk does meanwhile meets both.
    paired: bool = False
    filled: str = ""

    def words(self, quick):
        return self.fill(self.command, quick)

    def bare_words(self, quick):
        return self.fill(self.bare, quick)

    def filled_words(self, quick):
        return self.fill(self.filled, quick)

    def fill(self, command, quick):
        sizes = {name: both[1 if quick else 0] for name, both in self.sizes.items()}
        return command.format(**sizes).split()

    def commands(self, quick):
        """What is run, by its name."""
        named = {"": self.command, ", before": self.filled, ", client library": self.bare}
        return {self.key + name: " ".join(self.fill(words, quick)) for name, words in named.items() if words}


def fan(key, servers, rest, fields, seconds=(3, 1), **more):
    command = "fan --seconds {seconds}s --warmup {warmup}ms --patience 20s " + rest
    return Case(key, servers, command, fields, {"seconds": seconds, "warmup": (700, 200)}, **more)


SATURATED = [
    "deliveries_per_s",
    "publishes_per_s",
    "cpu_us_per_delivery",
    "latency_p50_ms",
    "latency_p99_ms",
    "load_cpu_percent",
]
PACED = ["deliveries_per_s", "publishes_per_s", "cpu_us_per_delivery", "latency_p50_ms", "latency_p99_ms"]
IDLE = ["bytes_per_stream", "bytes_per_stream_used", "server_cpu_percent"]
PUBLISH = ["publishes_per_s", "cpu_us_per_publish", "answer_p50_ms", "answer_p99_ms"]

# What serves WebSockets, and streams that are to be compared with them.
LIBRARY = {"TIDINGS_SERVER__HTTP1": "library"}

CASES = [
    # Many readers of one topic, 64 connections that publish as fast as they are answered.
    *(fan(f"fan-{n}", ALL, f"--readers {n} --connections 64", SATURATED) for n in (100, 1000, 5000)),
    fan("fan-1000-stalled", OWN, "--readers 1000 --connections 64 --stalled 1", SATURATED),
    # At a given rate.
    fan("rate-200", ALL, "--readers 1000 --rate 200", PACED, (4, 1)),
    fan("rate-1000", OWN, "--readers 1000 --rate 1000", PACED, (4, 1)),
    fan("rate-1000-stalled", OWN, "--readers 1000 --rate 1000 --stalled 1", PACED, (4, 1)),
    fan("rate-20", ALL, "--readers 1000 --rate 20", PACED, (4, 1)),
    fan(
        "one-reader",
        ["tidings", "memory", "nchan", "plain", "ceiling"],
        "--readers 1 --rate 100 --connections 1",
        PACED,
        (5, 1),
    ),
    # By other transports.
    *(
        fan(f"fan-1000-{way}", OWN, f"--readers 1000 --connections 64 --transport {way}", SATURATED)
        for way in ("ndjson", "longpoll", "ws", "socketio")
    ),
    fan("fan-1000-library", OWN, "--readers 1000 --connections 64", SATURATED, env=LIBRARY),
    # Other shapes.
    fan("own-topics", TWO, "--readers 5000 --own-topics --connections 16", SATURATED),
    fan("own-filters", OWN, "--readers 5000 --own-filter 10 --rate 200", PACED),
    fan("one-filter", OWN, "--readers 5000 --rate 200", PACED),
    # Server and load on both cores, with one thread and with two.
    fan(
        "threads-1", OWN, "--readers 1000 --connections 64", SATURATED, pinned=False, env={"TOKIO_WORKER_THREADS": "1"}
    ),
    fan(
        "threads-2", OWN, "--readers 1000 --connections 64", SATURATED, pinned=False, env={"TOKIO_WORKER_THREADS": "2"}
    ),
    # Streams on which nothing happens.
    Case(
        "idle-5000",
        ["tidings", "nchan", "plain", "ceiling", "mercure", "centrifugo"],
        "idle --readers 5000 --seconds 1s",
        IDLE,
    ),
    *(
        Case(f"idle-5000-{way}", OWN, f"idle --readers 5000 --seconds 1s --transport {way}", IDLE)
        for way in ("ndjson", "longpoll", "ws", "socketio")
    ),
    Case("idle-5000-library", OWN, "idle --readers 5000 --seconds 1s", IDLE, env=LIBRARY),
    Case("idle-15000", OWN, "idle --readers 15000 --seconds {seconds}s", IDLE, {"seconds": (30, 1)}),
    Case("idle-own-topics", TWO, "idle --readers 5000 --own-topics --seconds 1s", IDLE),
    Case("idle-own-filters", OWN, "idle --readers 5000 --own-filter 50 --seconds 1s", IDLE),
    # Publishing.
    Case(
        "disk",
        OWN,
        "disk --seconds {seconds}s",
        ["fsync_p50_ms", "fsync_p99_ms", "fsyncs_per_s", "sqlite_events_per_s"],
        {"seconds": (3, 1)},
        alone=True,
    ),
    Case(
        "publish",
        ["tidings", "memory", "nchan", "plain", "mercure", "centrifugo"],
        "publish --connections 64 --seconds {seconds}s",
        PUBLISH,
        {"seconds": (3, 1)},
    ),
    Case("publish-lines", OWN, "publish --lines --seconds {seconds}s", PUBLISH, {"seconds": (3, 1)}),
    Case(
        "publish-arrays", OWN, "publish --array 1000 --connections 8 --seconds {seconds}s", PUBLISH, {"seconds": (3, 1)}
    ),
    Case("publish-paced", TWO, "publish --connections 1 --rate 100 --seconds {seconds}s", PUBLISH, {"seconds": (5, 1)}),
    Case(
        "publish-retention",
        OWN,
        "publish --lines --seconds {seconds}s",
        PUBLISH,
        {"seconds": (3, 1)},
        config='[[log.retention]]\ntopics = "**"\nevents_max = 1000\n',
    ),
    # A cluster, beside the node alone and the broker by its client library alone. Events of 200 bytes take 223 in an
    # entry; the hub packs 1,175 of them into one.
    Case(
        "cluster-disk",
        OWN,
        "disk --size 200 --seconds {seconds}s",
        ["fsync_p50_ms", "fsync_p99_ms", "fsyncs_per_s", "sqlite_events_per_s"],
        {"seconds": (3, 1)},
        alone=True,
    ),
    Case(
        "cluster-publish",
        OWN + NODES + BARE + ["centrifugo-redis"],
        "publish --connections 64 --size 200 --seconds {seconds}s",
        PUBLISH,
        {"seconds": (3, 1)},
        bare="journal append --outstanding 64 --size 223 --seconds {seconds}s",
    ),
    Case(
        "cluster-lines",
        OWN + NODES + BARE,
        "publish --lines --size 200 --seconds {seconds}s",
        PUBLISH[:2],
        {"seconds": (3, 1)},
        bare="journal append --outstanding 4 --records 1175 --size 223 --seconds {seconds}s",
    ),
    fan(
        "cluster-across",
        OWN + NODES + BARE,
        "--readers 1 --rate 100 --connections 1 --size 200",
        ["latency_p50_ms", "latency_p99_ms"],
        # Of fewer events the p99 is a handful of them, and says how often the disk was slow.
        (20, 1),
        nodes=2,
        bare="journal latency --rate 100 --size 223 --name bare --seconds {seconds}s",
        paired=True,
    ),
    Case(
        "cluster-start",
        NODES + BARE,
        "",
        ["events_per_s", "seconds"],
        {"events": (1_000_000, 100_000)},
        filled="publish --lines --size 200 --events {events}",
        bare="journal tail --name tidings --events {events}",
    ),
    fan(
        "cluster-fan",
        OWN + NODES + ["centrifugo-redis"],
        "--readers 1000 --connections 64",
        SATURATED,
    ),
    # Coming back.
    # Not Nchan, which looks through all messages of a second for each next one: the more there are, the slower.
    Case(
        "replay",
        OWN,
        "replay --events 100000 --times {times}",
        ["events_per_s", "cpu_us_per_delivery"],
        {"times": (5, 1)},
    ),
    Case(
        "storm",
        ["tidings", "nchan", "mercure"],
        "storm --readers 2000 --events 100",
        [
            "reconnects_per_s",
            "complete_p50_ms",
            "complete_p99_ms",
            "growth_bytes_per_reader_peak",
            "cpu_us_per_reconnect",
        ],
    ),
    # Many topics and patterns.
    Case(
        "topics",
        OWN,
        "topics --topics {topics} --feeds 5000 --seconds {seconds}s",
        ["publishes_per_s", "publishes_per_s_before", "times_slower", "bytes_per_topic"],
        {"topics": (100000, 30000), "seconds": (3, 1)},
    ),
    Case(
        "patterns",
        OWN,
        "topics --patterns 10000 --seconds {seconds}s",
        ["publishes_per_s", "publishes_per_s_before", "times_slower"],
        {"seconds": (3, 1)},
    ),
]
