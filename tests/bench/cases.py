"""What is measured on which servers, and what each figure has to reach."""

from dataclasses import dataclass, field

ALL = ["tidings", "nchan", "plain", "ceiling", "mercure", "centrifugo"]
TWO = ["tidings", "nchan"]
OWN = ["tidings"]

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

    def words(self, quick):
        sizes = {name: both[1 if quick else 0] for name, both in self.sizes.items()}
        return self.command.format(**sizes).split()


@dataclass
class Row:
    """A line of a table: one field of one case."""

    label: str
    case: str
    field: str
    # Divides the figure.
    unit: float
    form: str
    higher: bool


@dataclass
class Table:
    """A table of docs/benchmarks.md, with a chart of its own."""

    key: str
    title: str
    text: str
    rows: list
    columns: list


@dataclass
class Target:
    """What a figure has to reach. `ratio` computes it from one round's figures."""

    key: str
    figure: str
    aim: str
    ratio: object
    limit: float
    at_least: bool
    form: str = "{:.2f} x"


def fan(key, servers, rest, fields, seconds=(3, 1), **more):
    command = "fan --seconds {seconds}s --warmup {warmup}ms --patience 20s " + rest
    return Case(key, servers, command, fields, {"seconds": seconds, "warmup": (700, 300)}, **more)


SATURATED = ["deliveries_per_s", "publishes_per_s", "cpu_us_per_delivery", "latency_p50_ms", "latency_p99_ms", "load_cpu_percent"]
PACED = ["deliveries_per_s", "publishes_per_s", "cpu_us_per_delivery", "latency_p50_ms", "latency_p99_ms"]
IDLE = ["bytes_per_stream", "bytes_per_stream_used", "server_cpu_percent"]
PUBLISH = ["publishes_per_s", "cpu_us_per_publish", "answer_p50_ms", "answer_p99_ms"]

CASES = [
    # Many readers of one topic, 64 connections that publish as fast as they are answered.
    *(fan(f"fan-{n}", ALL, f"--readers {n} --connections 64", SATURATED) for n in (100, 1000, 5000)),
    fan("fan-1000-stalled", OWN, "--readers 1000 --connections 64 --stalled 1", SATURATED),
    # At a given rate.
    fan("rate-200", ALL, "--readers 1000 --rate 200", PACED, (4, 1)),
    fan("rate-1000", TWO, "--readers 1000 --rate 1000", PACED, (4, 1)),
    fan("rate-1000-stalled", OWN, "--readers 1000 --rate 1000 --stalled 1", PACED, (4, 1)),
    fan("rate-20", ALL, "--readers 1000 --rate 20", PACED, (4, 1)),
    fan("one-reader", ["tidings", "memory", "nchan", "plain", "ceiling"], "--readers 1 --rate 100 --connections 1", PACED, (5, 2)),
    # Other shapes.
    fan("own-topics", TWO, "--readers 5000 --own-topics --connections 16", SATURATED),
    fan("own-filters", OWN, "--readers 5000 --own-filter 10 --rate 200", PACED),
    fan("one-filter", OWN, "--readers 5000 --rate 200", PACED),
    # Server and load on both cores, with one thread and with two.
    fan("threads-1", OWN, "--readers 1000 --connections 64", SATURATED, pinned=False, env={"TOKIO_WORKER_THREADS": "1"}),
    fan("threads-2", OWN, "--readers 1000 --connections 64", SATURATED, pinned=False, env={"TOKIO_WORKER_THREADS": "2"}),
    # Streams on which nothing happens.
    Case("idle-5000", ["tidings", "nchan", "plain", "ceiling", "mercure", "centrifugo"], "idle --readers 5000 --seconds 1s", IDLE),
    Case("idle-15000", OWN, "idle --readers 15000 --seconds {seconds}s", IDLE, {"seconds": (30, 3)}),
    Case("idle-own-topics", TWO, "idle --readers 5000 --own-topics --seconds 1s", IDLE),
    Case("idle-own-filters", OWN, "idle --readers 5000 --own-filter 50 --seconds 1s", IDLE),
    # Publishing.
    Case("disk", OWN, "disk --seconds {seconds}s", ["fsync_p50_ms", "fsync_p99_ms", "fsyncs_per_s", "sqlite_events_per_s"], {"seconds": (3, 1)}, alone=True),
    Case("publish", ["tidings", "memory", "nchan", "plain", "mercure", "centrifugo"], "publish --connections 64 --seconds {seconds}s", PUBLISH, {"seconds": (3, 1)}),
    Case("publish-lines", OWN, "publish --lines --seconds {seconds}s", PUBLISH, {"seconds": (3, 1)}),
    Case("publish-arrays", OWN, "publish --array 1000 --connections 8 --seconds {seconds}s", PUBLISH, {"seconds": (3, 1)}),
    Case("publish-paced", TWO, "publish --connections 1 --rate 100 --seconds {seconds}s", PUBLISH, {"seconds": (5, 2)}),
    Case(
        "publish-retention",
        OWN,
        "publish --lines --seconds {seconds}s",
        PUBLISH,
        {"seconds": (3, 1)},
        config='[[log.retention]]\ntopics = "**"\nevents_max = 1000\n',
    ),
    # Coming back.
    Case("replay", TWO, "replay --events 100000 --times {times}", ["events_per_s", "cpu_us_per_delivery"], {"times": (5, 2)}),
    Case("storm", ["tidings", "nchan", "mercure"], "storm --readers 2000 --events 100", ["reconnects_per_s", "complete_p50_ms", "complete_p99_ms", "growth_bytes_per_reader_peak", "cpu_us_per_reconnect"]),
    # Many topics and patterns.
    Case("topics", OWN, "topics --topics 100000 --feeds 5000 --seconds {seconds}s", ["publishes_per_s", "publishes_per_s_before", "times_slower", "bytes_per_topic"], {"seconds": (3, 1)}),
    Case("patterns", OWN, "topics --patterns 10000 --seconds {seconds}s", ["publishes_per_s", "publishes_per_s_before", "times_slower"], {"seconds": (3, 1)}),
]

COUNT = "{:,.0f}"
SHORT = "{:.3g}"

TABLES = [
    Table(
        "saturated",
        "Deliveries a second, saturated",
        "One topic, 64 connections that publish as fast as they are answered. Tidings stores every event with an fsync before it is delivered; nobody else stores any, but Mercure.",
        [
            *(Row(f"{n:,} readers: thousand deliveries/s", f"fan-{n}", "deliveries_per_s", 1e3, COUNT, True) for n in (100, 1000, 5000)),
            Row("1,000 readers: CPU per delivery, µs", "fan-1000", "cpu_us_per_delivery", 1, SHORT, False),
            Row("1,000 readers: p50 latency, ms", "fan-1000", "latency_p50_ms", 1, SHORT, False),
        ],
        ALL,
    ),
    Table(
        "paced",
        "Latency and cost at a given rate",
        "1,000 readers of one topic. Latency is from the time that an event was to be sent until a reader has it.",
        [
            Row("200 events/s: p50 latency, ms", "rate-200", "latency_p50_ms", 1, SHORT, False),
            Row("200 events/s: p99 latency, ms", "rate-200", "latency_p99_ms", 1, SHORT, False),
            Row("1,000 events/s: thousand deliveries/s", "rate-1000", "deliveries_per_s", 1e3, COUNT, True),
            Row("1,000 events/s: p99 latency, ms", "rate-1000", "latency_p99_ms", 1, SHORT, False),
            Row("20 events/s: CPU per delivery, µs", "rate-20", "cpu_us_per_delivery", 1, SHORT, False),
            Row("20 events/s: p99 latency, ms", "rate-20", "latency_p99_ms", 1, SHORT, False),
        ],
        ALL,
    ),
    Table(
        "one-reader",
        "An event on an idle feed",
        "One reader, one publishing connection, 100 events a second: what one event takes when nothing else happens.",
        [
            Row("p50 latency, ms", "one-reader", "latency_p50_ms", 1, SHORT, False),
            Row("p99 latency, ms", "one-reader", "latency_p99_ms", 1, SHORT, False),
        ],
        ["tidings", "memory", "nchan", "plain", "ceiling"],
    ),
    Table(
        "shapes",
        "Other shapes of load",
        "Readers that never read, users that each have a topic of their own, dashboards that each have a filter of their own, and a second thread.",
        [
            Row("10 of 1,000 readers stalled: thousand deliveries/s", "fan-1000-stalled", "deliveries_per_s", 1e3, COUNT, True),
            Row("the same at 1,000 events/s: p99 latency, ms", "rate-1000-stalled", "latency_p99_ms", 1, SHORT, False),
            Row("5,000 readers with a topic each, 16 connections: events/s", "own-topics", "deliveries_per_s", 1, COUNT, True),
            Row("5,000 filters of 10 topics, 200 events/s on the shared one: CPU per delivery, µs", "own-filters", "cpu_us_per_delivery", 1, SHORT, False),
            Row("5,000 readers of one feed, 200 events/s: CPU per delivery, µs", "one-filter", "cpu_us_per_delivery", 1, SHORT, False),
            Row("both cores shared with the load, one thread: thousand deliveries/s", "threads-1", "deliveries_per_s", 1e3, COUNT, True),
            Row("the same, two threads: thousand deliveries/s", "threads-2", "deliveries_per_s", 1e3, COUNT, True),
        ],
        TWO,
    ),
    Table(
        "idle",
        "Idle streams",
        "Anonymous and shared memory of the server's processes, per open stream on which nothing happens; kernel memory is not in it.",
        [
            Row("5,000 streams of one topic: KiB each", "idle-5000", "bytes_per_stream", KIB, SHORT, False),
            Row("the same after an event to all: KiB each", "idle-5000", "bytes_per_stream_used", KIB, SHORT, False),
            Row("15,000 streams of one topic: KiB each", "idle-15000", "bytes_per_stream", KIB, SHORT, False),
            Row("15,000 streams: CPU, % of a core", "idle-15000", "server_cpu_percent", 1, SHORT, False),
            Row("5,000 streams with a topic each: KiB each", "idle-own-topics", "bytes_per_stream", KIB, SHORT, False),
            Row("5,000 streams with 50 topics each: KiB each", "idle-own-filters", "bytes_per_stream", KIB, SHORT, False),
        ],
        ALL,
    ),
    Table(
        "publish",
        "Publishing",
        "No readers. Tidings answers when the event is on disk; Nchan and plain axum have none.",
        [
            Row("64 connections, one POST per event: thousand events/s", "publish", "publishes_per_s", 1e3, SHORT, True),
            Row("the same: p99 of the answer, ms", "publish", "answer_p99_ms", 1, SHORT, False),
            Row("one NDJSON request: thousand events/s", "publish-lines", "publishes_per_s", 1e3, SHORT, True),
            Row("arrays of 1,000 over 8 connections: thousand events/s", "publish-arrays", "publishes_per_s", 1e3, SHORT, True),
            Row("NDJSON while retention removes as much: thousand events/s", "publish-retention", "publishes_per_s", 1e3, SHORT, True),
            Row("SQLite alone, same tables, groups of 1,024: thousand events/s", "disk", "sqlite_events_per_s", 1e3, SHORT, True),
            Row("100 events/s, one connection: p99 of the answer, ms", "publish-paced", "answer_p99_ms", 1, SHORT, False),
            Row("one fsync on this disk, p99, ms", "disk", "fsync_p99_ms", 1, SHORT, False),
        ],
        ["tidings", "memory", "nchan", "plain", "mercure", "centrifugo"],
    ),
    Table(
        "coming-back",
        "Coming back",
        "2,000 readers lose their connections, miss 100 events each, and all reconnect at once; and one reader reads 100,000 events.",
        [
            Row("reconnects/s, each with its 100 events", "storm", "reconnects_per_s", 1, COUNT, True),
            Row("the last reader is complete after, ms (p99)", "storm", "complete_p99_ms", 1, COUNT, False),
            Row("memory grows at most by, KiB a connection", "storm", "growth_bytes_per_reader_peak", KIB, SHORT, False),
            Row("replay of 100,000 events: thousand events/s", "replay", "events_per_s", 1e3, COUNT, True),
        ],
        ["tidings", "nchan", "mercure"],
    ),
    Table(
        "topics",
        "Many topics and patterns",
        "64 connections publish to one topic, alone and beside what has nothing to do with it.",
        [
            Row("one topic alone: thousand events/s", "topics", "publishes_per_s_before", 1e3, SHORT, True),
            Row("beside 100,000 topics and 5,000 feeds: thousand events/s", "topics", "publishes_per_s", 1e3, SHORT, True),
            Row("memory per idle topic, bytes", "topics", "bytes_per_topic", 1, COUNT, False),
            Row("beside 10 pattern filters: thousand events/s", "patterns", "publishes_per_s_before", 1e3, SHORT, True),
            Row("beside 10,000 pattern filters: thousand events/s", "patterns", "publishes_per_s", 1e3, SHORT, True),
        ],
        OWN,
    ),
]


def per(case, field, server="tidings", other=None, other_field=None, other_server="tidings"):
    """One figure divided by another."""
    return lambda of: of(case, server, field) / of(other or case, other_server, other_field or field)


def kib(case):
    return lambda of: of(case, "tidings", "bytes_per_stream") / KIB


def millisecond(case, field):
    return lambda of: of(case, "tidings", field)


KIB_EACH = "{:.2f} KiB"

TARGETS = [
    Target("idle-5000", "memory per idle stream, 5,000 on one topic", "at most 1.5 KiB", kib("idle-5000"), 1.5, False, KIB_EACH),
    Target("idle-15000", "memory per idle stream, 15,000 on one topic", "at most 1.5 KiB", kib("idle-15000"), 1.5, False, KIB_EACH),
    Target("idle-own-topics", "memory per idle stream, a topic of its own each", "at most 3 KiB", kib("idle-own-topics"), 3, False, KIB_EACH),
    Target("idle-own-filters", "memory per idle stream, a filter of 50 topics of its own each", "at most 8 KiB", kib("idle-own-filters"), 8, False, KIB_EACH),
    Target("idle-cpu", "CPU of 15,000 idle streams with a 15 s keepalive", "under 3 % of a core", millisecond("idle-15000", "server_cpu_percent"), 3, False, "{:.2f} %"),
    *(
        Target(f"fan-{n}", f"saturated deliveries/s, {n:,} readers", f"at least {x} x Nchan", per(f"fan-{n}", "deliveries_per_s", other_server="nchan"), x, True, "{:.1f} x")
        for n, x in ((100, 4), (1000, 20), (5000, 50))
    ),
    Target(
        "rate-200",
        "p99 latency at 200,000 deliveries/s (200 events/s to 1,000 readers)",
        "not above Nchan's, or the ceiling's x 1.5",
        lambda of: of("rate-200", "tidings", "latency_p99_ms") / max(of("rate-200", "nchan", "latency_p99_ms"), 1.5 * of("rate-200", "ceiling", "latency_p99_ms")),
        1,
        False,
    ),
    Target("rate-1000-reached", "1,000,000 deliveries/s (1,000 events/s to 1,000 readers)", "reached", lambda of: of("rate-1000", "tidings", "deliveries_per_s") / 1e6, 0.99, True),
    Target("rate-1000", "p99 latency at that rate", "under 20 ms", millisecond("rate-1000", "latency_p99_ms"), 20, False, "{:.1f} ms"),
    Target("rate-20", "CPU per delivery, paced 20 events/s to 1,000 readers", "at most 1.15 x the ceiling", per("rate-20", "cpu_us_per_delivery", other_server="ceiling"), 1.15, False),
    Target("one-reader-memory", "p99 latency of an event on an idle feed, memory engine", "within 1.2 x of plain axum", per("one-reader", "latency_p99_ms", "memory", other_server="plain"), 1.2, False),
    Target(
        "one-reader-sqlite",
        "the same with sqlite",
        "within 1.2 x of plain axum and one fsync",
        lambda of: of("one-reader", "tidings", "latency_p99_ms") / (1.2 * of("one-reader", "plain", "latency_p99_ms") + of("disk", "tidings", "fsync_p99_ms")),
        1,
        False,
    ),
    Target("stalled-rate", "1 % of 1,000 readers stalled: the others' rate, saturated", "within 1.2 x of none stalled", per("fan-1000", "deliveries_per_s", other="fan-1000-stalled"), 1.2, False),
    Target("stalled-p99", "the same: their p99 latency at 1,000 events/s", "within 1.2 x of none stalled", per("rate-1000-stalled", "latency_p99_ms", other="rate-1000"), 1.2, False),
    Target("own-topics", "notifications: 5,000 readers with a topic of its own each, events/s", "half of Nchan's rate in memory", per("own-topics", "deliveries_per_s", other_server="nchan"), 0.5, True),
    Target("own-filters", "dashboards: 5,000 filters of 10 topics, one shared: CPU per delivery", "within 1.5 x of one feed", per("own-filters", "cpu_us_per_delivery", other="one-filter"), 1.5, False),
    Target("threads", "two runtime threads on two cores, load included: deliveries/s", "not lower than one thread's", per("threads-2", "deliveries_per_s", other="threads-1"), 1, True),
    Target("publish", "durable publishes/s, one POST each, 64 connections", "half of Nchan's in memory", per("publish", "publishes_per_s", other_server="nchan"), 0.5, True),
    Target("publish-mercure", "the same", "20 x Mercure with Bolt", per("publish", "publishes_per_s", other_server="mercure"), 20, True, "{:.1f} x"),
    Target("publish-lines", "the same through one NDJSON request", "half of SQLite alone", per("publish-lines", "publishes_per_s", other="disk", other_field="sqlite_events_per_s"), 0.5, True),
    Target("publish-arrays", "the same in arrays of 1,000", "half of SQLite alone", per("publish-arrays", "publishes_per_s", other="disk", other_field="sqlite_events_per_s"), 0.5, True),
    Target(
        "publish-paced",
        "p99 of a single paced durable publish (100/s)",
        "one fsync's p99 + 0.5 ms",
        lambda of: of("publish-paced", "tidings", "answer_p99_ms") - of("disk", "tidings", "fsync_p99_ms"),
        0.5,
        False,
        "{:+.2f} ms",
    ),
    Target("replay", "replay of 100,000 events to one socket", "at least 1,000,000 events/s", lambda of: of("replay", "tidings", "events_per_s") / 1e6, 1, True, "{:.2f} M/s"),
    Target("storm", "storm: 2,000 readers reconnect at once, 100 events each", "5 x Nchan's reconnects/s", per("storm", "reconnects_per_s", other_server="nchan"), 5, True, "{:.1f} x"),
    Target("storm-memory", "the same: memory grows a connection", "by less than 16 KiB", lambda of: of("storm", "tidings", "growth_bytes_per_reader_peak") / KIB, 16, False, KIB_EACH),
    Target("topics", "100,000 topics and 5,000 feeds, publish to one", "within 1.2 x of one topic", lambda of: of("topics", "tidings", "times_slower"), 1.2, False),
    Target("topics-memory", "memory per idle topic", "under 300 bytes", lambda of: of("topics", "tidings", "bytes_per_topic"), 300, False, "{:.0f} bytes"),
    Target("patterns", "10,000 pattern filters, publish to one topic", "within 1.5 x of 10 filters", lambda of: of("patterns", "tidings", "times_slower"), 1.5, False),
    Target("retention", "retention removing while publishing flat out", "within 0.7 x of no retention", per("publish-retention", "publishes_per_s", other="publish-lines"), 0.7, True),
]
