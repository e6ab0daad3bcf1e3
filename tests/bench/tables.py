"""The tables of docs/benchmarks.md, each with a chart of its own."""

from dataclasses import dataclass

from brokers import JOURNALS
from cases import ALL, KIB, OWN, TWO


@dataclass
class Row:
    """A line of a table: one field of one case."""

    label: str
    case: str
    field: str
    # Divides the figure.
    unit: float
    # Whether more is better.
    higher: bool
    # In the chart: the panel that it shares with others of Tidings, and its name there.
    panel: str = ""
    bar: str = ""


@dataclass
class Table:
    """A table of docs/benchmarks.md, with a chart of its own."""

    key: str
    title: str
    text: str
    rows: list
    columns: list
    # Those of the columns that are the hub's: they stand beside what was committed before.
    own: tuple = ("tidings",)


# By name: how its cases end.
WAYS = {
    "SSE": "",
    "NDJSON": "-ndjson",
    "long polls": "-longpoll",
    "SSE, library": "-library",
    "WebSocket": "-ws",
    "Socket.IO": "-socketio",
}

TABLES = [
    Table(
        "saturated",
        "Deliveries a second, saturated",
        "One topic, 64 connections that publish as fast as they are answered. Tidings stores every event with an fsync\n"
        "before it is delivered; of the others only Mercure stores any.",
        [
            Row("100 readers: thousand deliveries/s", "fan-100", "deliveries_per_s", 1e3, True),
            Row("1,000 readers: thousand deliveries/s", "fan-1000", "deliveries_per_s", 1e3, True),
            Row("5,000 readers: thousand deliveries/s", "fan-5000", "deliveries_per_s", 1e3, True),
            Row("1,000 readers: CPU per delivery, µs", "fan-1000", "cpu_us_per_delivery", 1, False),
            Row("1,000 readers: p50 latency, ms", "fan-1000", "latency_p50_ms", 1, False),
            Row("5,000 readers: CPU per delivery, µs", "fan-5000", "cpu_us_per_delivery", 1, False),
        ],
        ALL,
    ),
    Table(
        "paced",
        "Latency and cost at a given rate",
        "1,000 readers of one topic. Latency is from the time that an event was to be sent until a reader has it.",
        [
            Row("200 events/s: p50 latency, ms", "rate-200", "latency_p50_ms", 1, False),
            Row("200 events/s: p99 latency, ms", "rate-200", "latency_p99_ms", 1, False),
            Row("1,000 events/s: thousand deliveries/s", "rate-1000", "deliveries_per_s", 1e3, True),
            Row("1,000 events/s: p99 latency, ms", "rate-1000", "latency_p99_ms", 1, False),
            Row("20 events/s: CPU per delivery, µs", "rate-20", "cpu_us_per_delivery", 1, False),
            Row("20 events/s: p99 latency, ms", "rate-20", "latency_p99_ms", 1, False),
        ],
        ALL,
    ),
    Table(
        "one-reader",
        "An event on an idle feed",
        "One reader, one publishing connection, 100 events a second: what an event takes when nothing else happens.",
        [
            Row("p50 latency, ms", "one-reader", "latency_p50_ms", 1, False),
            Row("p99 latency, ms", "one-reader", "latency_p99_ms", 1, False),
        ],
        ["tidings", "memory", "nchan", "plain", "ceiling"],
    ),
    Table(
        "shapes",
        "Other shapes of load",
        "Readers that never read; users that each have a topic of their own, over 16 publishing connections; dashboards\n"
        "that each have a filter of their own; and a second thread, on two cores that the load shares.",
        [
            Row("a topic for each of 5,000 readers: events/s", "own-topics", "deliveries_per_s", 1, True),
            Row(
                "1,000 readers, none stalled: thousand deliveries/s",
                "fan-1000",
                "deliveries_per_s",
                1e3,
                True,
                "1,000 readers: thousand deliveries/s",
                "none stalled",
            ),
            Row(
                "1,000 readers, 10 stalled: thousand deliveries/s",
                "fan-1000-stalled",
                "deliveries_per_s",
                1e3,
                True,
                "1,000 readers: thousand deliveries/s",
                "10 stalled",
            ),
            Row(
                "1,000 events/s to 1,000 readers, none stalled: p99 latency, ms",
                "rate-1000",
                "latency_p99_ms",
                1,
                False,
                "1,000 events/s to 1,000 readers: p99, ms",
                "none stalled",
            ),
            Row(
                "1,000 events/s to 1,000 readers, 10 stalled: p99 latency, ms",
                "rate-1000-stalled",
                "latency_p99_ms",
                1,
                False,
                "1,000 events/s to 1,000 readers: p99, ms",
                "10 stalled",
            ),
            Row(
                "200 events/s to 5,000 readers of one feed: CPU per delivery, µs",
                "one-filter",
                "cpu_us_per_delivery",
                1,
                False,
                "200 events/s to 5,000 readers: CPU, µs",
                "one feed",
            ),
            Row(
                "200 events/s to 5,000 filters of 10 topics, one shared: CPU per delivery, µs",
                "own-filters",
                "cpu_us_per_delivery",
                1,
                False,
                "200 events/s to 5,000 readers: CPU, µs",
                "filters of 10",
            ),
            Row(
                "two cores shared with the load, one thread: thousand deliveries/s",
                "threads-1",
                "deliveries_per_s",
                1e3,
                True,
                "Load on the same cores: thousand deliveries/s",
                "one thread",
            ),
            Row(
                "two cores shared with the load, two threads: thousand deliveries/s",
                "threads-2",
                "deliveries_per_s",
                1e3,
                True,
                "Load on the same cores: thousand deliveries/s",
                "two threads",
            ),
        ],
        TWO,
    ),
    Table(
        "idle",
        "Idle streams",
        "Anonymous and shared memory of the server's processes, per open stream on which nothing happens. The kernel's\n"
        "own memory is not in it.",
        [
            Row("5,000 streams of one topic: KiB each", "idle-5000", "bytes_per_stream", KIB, False),
            Row("5,000 streams after an event to all: KiB each", "idle-5000", "bytes_per_stream_used", KIB, False),
            Row("5,000 streams with a topic each: KiB each", "idle-own-topics", "bytes_per_stream", KIB, False),
            Row(
                "15,000 streams of one topic: KiB each",
                "idle-15000",
                "bytes_per_stream",
                KIB,
                False,
                "Tidings: KiB each",
                "15,000, one topic",
            ),
            Row(
                "5,000 streams with 50 topics each: KiB each",
                "idle-own-filters",
                "bytes_per_stream",
                KIB,
                False,
                "Tidings: KiB each",
                "50 topics each",
            ),
            Row("15,000 streams, a 15 s keepalive: CPU, % of a core", "idle-15000", "server_cpu_percent", 1, False),
        ],
        ALL,
    ),
    Table(
        "ways",
        "Ways to listen",
        "1,000 readers of one topic by each transport, 64 connections that publish as fast as they are answered; and 5,000\n"
        "on which nothing happens. WebSockets are served by the HTTP library, so beside them stands what Server-Sent Events\n"
        "do there. Long polls are a loop: each waits, and the next begins at its cursor. (Centrifugo publishes 10.9 KiB for\n"
        "an idle WebSocket, tuned, and 27 otherwise.)",
        [
            Row(
                f"1,000 by {name}: {figure}",
                f"fan-1000{end}",
                field,
                unit,
                higher,
                f"1,000 readers: {figure}",
                name,
            )
            for figure, field, unit, higher in (
                ("thousand deliveries/s", "deliveries_per_s", 1e3, True),
                ("CPU per delivery, µs", "cpu_us_per_delivery", 1, False),
            )
            for name, end in WAYS.items()
        ]
        + [
            Row(
                f"5,000 idle, by {name}: KiB each",
                f"idle-5000{end}",
                "bytes_per_stream",
                KIB,
                False,
                "5,000 idle: KiB each",
                name,
            )
            for name, end in WAYS.items()
        ],
        OWN,
    ),
    Table(
        "publish",
        "Publishing",
        "No readers. Tidings answers when the event is on disk; Nchan and plain axum have none. SQLite alone is a loop\n"
        "around the hub's tables, in groups of 1,024; arrays are of 1,000 events, over 8 connections.",
        [
            Row("64 connections, an event each: thousand events/s", "publish", "publishes_per_s", 1e3, True),
            Row("64 connections, an event each: p99 of the answer, ms", "publish", "answer_p99_ms", 1, False),
            Row(
                "one NDJSON request: thousand events/s",
                "publish-lines",
                "publishes_per_s",
                1e3,
                True,
                "Many at once: thousand events/s",
                "NDJSON",
            ),
            Row(
                "NDJSON while retention removes as much: thousand events/s",
                "publish-retention",
                "publishes_per_s",
                1e3,
                True,
                "Many at once: thousand events/s",
                "with retention",
            ),
            Row(
                "arrays of 1,000: thousand events/s",
                "publish-arrays",
                "publishes_per_s",
                1e3,
                True,
                "Many at once: thousand events/s",
                "arrays",
            ),
            Row(
                "SQLite alone: thousand events/s",
                "disk",
                "sqlite_events_per_s",
                1e3,
                True,
                "Many at once: thousand events/s",
                "SQLite alone",
            ),
            Row(
                "100 events/s, one connection: p99 of the answer, ms",
                "publish-paced",
                "answer_p99_ms",
                1,
                False,
                "100 events/s, one connection: p99, ms",
                "an answer",
            ),
            Row(
                "one fsync on this disk: p99, ms",
                "disk",
                "fsync_p99_ms",
                1,
                False,
                "100 events/s, one connection: p99, ms",
                "one fsync",
            ),
        ],
        ["tidings", "memory", "nchan", "plain", "mercure", "centrifugo"],
    ),
    Table(
        "coming-back",
        "Coming back",
        "2,000 readers lose their connections, miss 100 events each, and all reconnect at once; and one reader reads\n"
        "100,000 events from the oldest on.",
        [
            Row("reconnects/s, each with its 100 events", "storm", "reconnects_per_s", 1, True),
            Row("a reader is complete after, ms (p99)", "storm", "complete_p99_ms", 1, False),
            Row("memory grows at most by, KiB a connection", "storm", "growth_bytes_per_reader_peak", KIB, False),
            Row("replay of 100,000 events: thousand events/s", "replay", "events_per_s", 1e3, True),
        ],
        ["tidings", "nchan", "mercure"],
    ),
    Table(
        "topics",
        "Many topics and patterns",
        "64 connections publish to one topic: alone, and beside 100,000 topics of which 5,000 have a reader; beside 10\n"
        "readers with a pattern each that does not match, and beside 10,000.",
        [
            Row(
                "one topic alone: thousand events/s",
                "topics",
                "publishes_per_s_before",
                1e3,
                True,
                "Beside 100,000 topics: thousand events/s",
                "alone",
            ),
            Row(
                "beside 100,000 topics and 5,000 feeds: thousand events/s",
                "topics",
                "publishes_per_s",
                1e3,
                True,
                "Beside 100,000 topics: thousand events/s",
                "beside",
            ),
            Row(
                "beside 10 pattern filters: thousand events/s",
                "patterns",
                "publishes_per_s_before",
                1e3,
                True,
                "Beside pattern filters: thousand events/s",
                "beside 10",
            ),
            Row(
                "beside 10,000 pattern filters: thousand events/s",
                "patterns",
                "publishes_per_s",
                1e3,
                True,
                "Beside pattern filters: thousand events/s",
                "beside 10,000",
            ),
            Row("memory per idle topic, bytes", "topics", "bytes_per_topic", 1, False),
        ],
        OWN,
    ),
]

CLUSTER_ROWS = [
    Row("64 connections, an event each: thousand events/s", "cluster-publish", "publishes_per_s", 1e3, True),
    Row("64 connections, an event each: p99 of the answer, ms", "cluster-publish", "answer_p99_ms", 1, False),
    Row("one NDJSON request: thousand events/s", "cluster-lines", "publishes_per_s", 1e3, True),
    Row("100 events/s from one node to another: p50, ms", "cluster-across", "latency_p50_ms", 1, False),
    Row("100 events/s from one node to another: p99, ms", "cluster-across", "latency_p99_ms", 1, False),
    Row("a node that begins with nothing: thousand events/s", "cluster-start", "events_per_s", 1e3, True),
    Row("1,000 readers, saturated: thousand deliveries/s", "cluster-fan", "deliveries_per_s", 1e3, True),
    Row("SQLite alone: thousand events/s", "cluster-disk", "sqlite_events_per_s", 1e3, True, "SQLite alone", "SQLite"),
]


def on(broker, name, more=()):
    """A cluster's table on one broker."""
    nodes = [journal for journal in JOURNALS if journal.split("-")[0] == broker]
    both = [column for journal in nodes for column in (journal, f"{journal}-bare")]
    return Table(
        f"cluster-{broker}",
        f"A cluster on {name}",
        "Nodes beside what bounds them: the broker by its client library alone, and the same program without a cluster.",
        CLUSTER_ROWS,
        [*both, "tidings", *more],
        tuple(nodes),
    )


CLUSTER_TABLES = [
    on("redis", "Redis", ["centrifugo-redis"]),
    on("nats", "NATS"),
    on("rabbitmq", "RabbitMQ"),
]
