"""What each figure has to reach."""

from dataclasses import dataclass

from brokers import JOURNALS
from cases import KIB


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


def per(case, field, server="tidings", other=None, other_field=None, other_server="tidings"):
    """One figure divided by another."""
    return lambda of: of(case, server, field) / of(other or case, other_server, other_field or field)


def kib(case):
    return lambda of: of(case, "tidings", "bytes_per_stream") / KIB


def figure(case, field):
    return lambda of: of(case, "tidings", field)


KIB_EACH = "{:.2f} KiB"

TARGETS = [
    Target(
        "idle-5000",
        "memory per idle stream, 5,000 on one topic",
        "at most 1.5 KiB",
        kib("idle-5000"),
        1.5,
        False,
        KIB_EACH,
    ),
    Target(
        "idle-15000",
        "memory per idle stream, 15,000 on one topic",
        "at most 1.5 KiB",
        kib("idle-15000"),
        1.5,
        False,
        KIB_EACH,
    ),
    Target(
        "idle-own-topics",
        "memory per idle stream, a topic of its own each",
        "at most 3 KiB",
        kib("idle-own-topics"),
        3,
        False,
        KIB_EACH,
    ),
    Target(
        "idle-own-filters",
        "memory per idle stream, a filter of 50 topics of its own each",
        "at most 8 KiB",
        kib("idle-own-filters"),
        8,
        False,
        KIB_EACH,
    ),
    Target(
        "idle-cpu",
        "CPU of 15,000 idle streams with a 15 s keepalive",
        "under 3 % of a core",
        figure("idle-15000", "server_cpu_percent"),
        3,
        False,
        "{:.2f} %",
    ),
    *(
        Target(
            f"fan-{n}",
            f"saturated deliveries/s, {n:,} readers",
            f"at least {x} x Nchan",
            per(f"fan-{n}", "deliveries_per_s", other_server="nchan"),
            x,
            True,
            "{:.1f} x",
        )
        for n, x in ((100, 4), (1000, 20), (5000, 50))
    ),
    Target(
        "fan-ndjson",
        "saturated deliveries/s by NDJSON, 1,000 readers",
        "0.7 of Server-Sent Events'",
        per("fan-1000-ndjson", "deliveries_per_s", other="fan-1000"),
        0.7,
        True,
    ),
    Target(
        "fan-ws",
        "saturated deliveries/s by WebSocket, 1,000 readers",
        "0.7 of Server-Sent Events' where the library serves them",
        per("fan-1000-ws", "deliveries_per_s", other="fan-1000-library"),
        0.7,
        True,
    ),
    Target(
        "idle-longpoll",
        "memory of 5,000 waiting long polls",
        "at most 1.5 x that of 5,000 streams",
        per("idle-5000-longpoll", "bytes_per_stream", other="idle-5000"),
        1.5,
        False,
    ),
    Target(
        "rate-200",
        "p99 latency at 200,000 deliveries/s (200 events/s to 1,000 readers)",
        "not above Nchan's, or the ceiling's x 1.5",
        lambda of: of("rate-200", "tidings", "latency_p99_ms")
        / max(of("rate-200", "nchan", "latency_p99_ms"), 1.5 * of("rate-200", "ceiling", "latency_p99_ms")),
        1,
        False,
    ),
    Target(
        "rate-1000-reached",
        "1,000,000 deliveries/s (1,000 events/s to 1,000 readers)",
        "reached",
        lambda of: of("rate-1000", "tidings", "deliveries_per_s") / 1e6,
        0.99,
        True,
    ),
    Target(
        "rate-1000",
        "p99 latency at 1,000,000 deliveries/s",
        "under 20 ms",
        figure("rate-1000", "latency_p99_ms"),
        20,
        False,
        "{:.1f} ms",
    ),
    Target(
        "rate-20",
        "CPU per delivery, paced 20 events/s to 1,000 readers",
        "at most 1.15 x the ceiling",
        per("rate-20", "cpu_us_per_delivery", other_server="ceiling"),
        1.15,
        False,
    ),
    Target(
        "one-reader-memory",
        "p99 latency of an event on an idle feed, memory engine",
        "within 1.2 x of plain axum",
        per("one-reader", "latency_p99_ms", "memory", other_server="plain"),
        1.2,
        False,
    ),
    Target(
        "one-reader-sqlite",
        "p99 latency of an event on an idle feed, sqlite",
        "within 1.2 x of plain axum and one fsync",
        lambda of: of("one-reader", "tidings", "latency_p99_ms")
        / (1.2 * of("one-reader", "plain", "latency_p99_ms") + of("disk", "tidings", "fsync_p99_ms")),
        1,
        False,
    ),
    Target(
        "stalled-rate",
        "1 % of 1,000 readers stalled: the others' rate, saturated",
        "within 1.2 x of none stalled",
        per("fan-1000", "deliveries_per_s", other="fan-1000-stalled"),
        1.2,
        False,
    ),
    Target(
        "stalled-p99",
        "1 % of 1,000 readers stalled: the others' p99 latency, 1,000 events/s",
        "within 1.2 x of none stalled",
        per("rate-1000-stalled", "latency_p99_ms", other="rate-1000"),
        1.2,
        False,
    ),
    Target(
        "own-topics",
        "notifications: 5,000 readers with a topic of its own each, events/s",
        "half of Nchan's rate in memory",
        per("own-topics", "deliveries_per_s", other_server="nchan"),
        0.5,
        True,
    ),
    Target(
        "own-filters",
        "dashboards: 5,000 filters of 10 topics, one shared: CPU per delivery",
        "within 1.5 x of one feed",
        per("own-filters", "cpu_us_per_delivery", other="one-filter"),
        1.5,
        False,
    ),
    Target(
        "threads",
        "two runtime threads on two cores, load included: deliveries/s",
        "not lower than one thread's",
        per("threads-2", "deliveries_per_s", other="threads-1"),
        1,
        True,
    ),
    Target(
        "publish",
        "durable publishes/s, one POST each, 64 connections",
        "half of Nchan's in memory",
        per("publish", "publishes_per_s", other_server="nchan"),
        0.5,
        True,
    ),
    Target(
        "publish-mercure",
        "durable publishes/s, one POST each, 64 connections",
        "20 x Mercure with Bolt",
        per("publish", "publishes_per_s", other_server="mercure"),
        20,
        True,
        "{:.1f} x",
    ),
    Target(
        "publish-lines",
        "durable publishes/s through one NDJSON request",
        "half of SQLite alone",
        per("publish-lines", "publishes_per_s", other="disk", other_field="sqlite_events_per_s"),
        0.5,
        True,
    ),
    Target(
        "publish-arrays",
        "durable publishes/s in arrays of 1,000",
        "half of SQLite alone",
        per("publish-arrays", "publishes_per_s", other="disk", other_field="sqlite_events_per_s"),
        0.5,
        True,
    ),
    Target(
        "publish-paced",
        "p99 of a single paced durable publish (100/s)",
        "one fsync's p99 + 0.5 ms",
        lambda of: of("publish-paced", "tidings", "answer_p99_ms") - of("disk", "tidings", "fsync_p99_ms"),
        0.5,
        False,
        "{:+.2f} ms",
    ),
    Target(
        "replay",
        "replay of 100,000 events to one socket",
        "at least 1,000,000 events/s",
        lambda of: of("replay", "tidings", "events_per_s") / 1e6,
        1,
        True,
        "{:.2f} M/s",
    ),
    Target(
        "storm",
        "storm: 2,000 readers reconnect at once, 100 events each",
        "5 x Nchan's reconnects/s",
        per("storm", "reconnects_per_s", other_server="nchan"),
        5,
        True,
        "{:.1f} x",
    ),
    Target(
        "storm-memory",
        "storm: memory grows a connection",
        "by less than 16 KiB",
        lambda of: of("storm", "tidings", "growth_bytes_per_reader_peak") / KIB,
        16,
        False,
        KIB_EACH,
    ),
    Target(
        "topics",
        "100,000 topics and 5,000 feeds, publish to one",
        "within 1.2 x of one topic",
        lambda of: of("topics", "tidings", "times_slower"),
        1.2,
        False,
    ),
    Target(
        "topics-memory",
        "memory per idle topic",
        "under 300 bytes",
        lambda of: of("topics", "tidings", "bytes_per_topic"),
        300,
        False,
        "{:.0f} bytes",
    ),
    Target(
        "patterns",
        "10,000 pattern filters, publish to one topic",
        "within 1.5 x of 10 filters",
        lambda of: of("patterns", "tidings", "times_slower"),
        1.5,
        False,
    ),
    Target(
        "retention",
        "retention removing while publishing flat out",
        "within 0.7 x of no retention",
        per("publish-retention", "publishes_per_s", other="publish-lines"),
        0.7,
        True,
    ),
]


def bounded(case, field, journal, *others):
    """A node's figure divided by the smallest of what bounds it: the client library's, and others."""

    def ratio(of):
        bounds = [of(case, f"{journal}-bare", field), *(of(*other) for other in others)]
        return of(case, journal, field) / min(bounds)

    return ratio


def across(journal):
    def ratio(of):
        own = of("cluster-across", f"{journal}-bare", "latency_p99_ms")
        return of("cluster-across", journal, "latency_p99_ms") / max(3 * own, own + 2)

    return ratio


SQLITE = ("cluster-disk", "tidings", "sqlite_events_per_s")

# Of a cluster: the same on each journal.
CLUSTER_TARGETS = [
    target
    for journal, name in JOURNALS.items()
    for target in (
        Target(
            f"{journal}-publish",
            f"{name}: acknowledged events/s through one node, 64 publishers",
            "half of the smaller of the client library and the node alone",
            bounded("cluster-publish", "publishes_per_s", journal, ("cluster-publish", "tidings", "publishes_per_s")),
            0.5,
            True,
        ),
        Target(
            f"{journal}-lines",
            f"{name}: the same through one NDJSON request",
            "half of the smaller of the client library, packed alike, and SQLite alone",
            bounded("cluster-lines", "publishes_per_s", journal, SQLITE),
            0.5,
            True,
        ),
        Target(
            f"{journal}-across",
            f"{name}: p99 from a publish on one node to its delivery on another, 100/s",
            "at most 3 x the broker's own from append to tail, or that and 2 ms",
            across(journal),
            1,
            False,
        ),
        Target(
            f"{journal}-start",
            f"{name}: a node that begins with nothing reads 1,000,000 events",
            "half of the smaller of the client library's tail and SQLite alone",
            bounded("cluster-start", "events_per_s", journal, SQLITE),
            0.5,
            True,
        ),
        Target(
            f"{journal}-fan",
            f"{name}: deliveries/s to 1,000 readers, saturated",
            "0.95 of the node alone",
            lambda of, journal=journal: of("cluster-fan", journal, "deliveries_per_s")
            / of("cluster-fan", "tidings", "deliveries_per_s"),
            0.95,
            True,
        ),
    )
]
