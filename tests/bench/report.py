"""docs/benchmarks.md: what has to be reached, a table and a chart per subject, the machine, versions and commands."""

import json
import os
import platform
import statistics
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import brokers
import chart
import servers
from tables import CLUSTER_TABLES, TABLES
from targets import CLUSTER_TARGETS, TARGETS

HERE = Path(__file__).resolve().parent
# Worse by more than this is told in bold: less is noise.
WORSE = 0.10


def committed():
    """The figures that were committed last: case -> server -> field -> one per round."""
    show = ["git", "show", "HEAD:docs/benchmarks/figures.json"]
    run = subprocess.run(show, cwd=servers.ROOT, capture_output=True, text=True, check=False)
    return json.loads(run.stdout)["figures"] if run.returncode == 0 else {}


def values(figures, case, server, field):
    """One figure per round; none where it was not measured."""
    return [one for one in figures.get(case, {}).get(server, {}).get(field, []) if one is not None]


def median(figures, case, server, field):
    found = values(figures, case, server, field)
    return statistics.median(found) if found else None


def ratios(figures, target):
    """The target's ratio in each round: figures of different rounds are never compared."""
    rounds = max((len(v) for by in figures.values() for f in by.values() for v in f.values()), default=0)
    out = []
    for number in range(rounds):

        def of(case, server, field, number=number):
            return figures[case][server][field][number]

        try:
            out.append(target.ratio(of))
        except (KeyError, IndexError, TypeError, ZeroDivisionError):
            continue
    return out


def write(figures, notes, commands, rounds, quick, out):
    """Writes the page, the charts, and the figures to compare with next time."""
    before = committed()
    charts = out / "benchmarks"
    charts.mkdir(parents=True, exist_ok=True)
    parts = [opening(rounds, quick), "## What has to be reached", targets(TARGETS, figures, before)]
    for table in TABLES:
        parts += drawn(table, figures, before, charts)
    parts += ["## A cluster", CLUSTER, targets(CLUSTER_TARGETS, figures, before)]
    for table in CLUSTER_TABLES:
        parts += drawn(table, figures, before, charts)
    if notes:
        parts.append("## What went wrong\n\n" + "\n".join(f"- {note}" for note in notes))
    parts.append(how(commands))
    (out / "benchmarks.md").write_text("\n\n".join(parts) + "\n")
    kept = {"machine": machine(), "commit": commit(), "rounds": rounds, "figures": figures}
    (charts / "figures.json").write_text(json.dumps(kept, indent=1) + "\n")


CLUSTER = """Nodes on one core, the broker and the load on the other, events of 200 bytes. "Always" and "everysec" are Redis'
`appendfsync`, "always" is NATS' `sync_interval`; without it NATS writes to the disk every two minutes, and RabbitMQ leaves
that to the system. "Bare" is `tidings bench journal`: the broker by its client library alone, on the nodes' core, with as
many records on their way; on Redis with the script that each entry needs. From one node to another both are measured at
once, each at 100/s: a p99 that waits for a disk is the disk's, and that differs tenfold from minute to minute. A figure's
bound is the smaller of two, so that neither a slow broker nor a fast one makes it look better than it is."""


def drawn(table, figures, before, charts):
    """A table and its chart, if anything of it was measured."""
    picture = draw(table, figures, before)
    if not picture:
        return []
    (charts / f"{table.key}.svg").write_text(picture)
    return [show(table, figures, before)]


def opening(rounds, quick):
    when = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    command = "make bench-quick" if quick else "make bench"
    fewer = "\nShorter than `make bench`, and beside 30,000 topics where it says 100,000.\n" if quick else ""
    several = f"{rounds} rounds, interleaved" if rounds > 1 else "one round"
    return f"""# Benchmarks

Made by `{command}` on {when}: {several}, each server on one core and the load on another, one server after the other,
each started afresh. Figures are medians, with the least and the most in parentheses. **Only ratios within one run mean
anything**: another machine has other figures. Each reader checks every event: a gap, a duplicate or disorder fails the
run. Tidings is durable here (`sqlite`, an fsync before the answer) unless it says "in memory". *Before* is what was
committed before this run, bold where it is now worse by more than {WORSE:.0%}.
{fewer}
Machine: {machine()}. Commit: {commit()}."""


def targets(all_of_them, figures, before):
    reasons = json.loads((HERE / "reasons.json").read_text())
    lines = ["| figure | aim | measured | before | |", "|---|---|---|---|---|"]
    short = []
    for target in all_of_them:
        now, earlier = ratios(figures, target), ratios(before, target)
        old = target.form.format(statistics.median(earlier)) if earlier else ""
        if not now:
            lines.append(f"| {target.figure} | {target.aim} | not measured here | {old} | |")
            continue
        ratio = statistics.median(now)
        told = target.form.format(ratio)
        if len(now) > 1:
            told += f" ({target.form.format(min(now))} to {target.form.format(max(now))})"
        passed = ratio >= target.limit if target.at_least else ratio <= target.limit
        lines.append(f"| {target.figure} | {target.aim} | {told} | {old} | {'pass' if passed else '**short**'} |")
        if not passed:
            reason = reasons.get(target.key, "no reason is known yet.")
            short.append(f"- **{target.figure}** ({target.form.format(ratio)}; {target.aim}): {reason}")
    if short:
        lines += ["", "What falls short, and why:", ""] + short
    return "\n".join(lines)


def show(table, figures, before):
    measured = [name for name in table.columns if any(values(figures, row.case, name, row.field) for row in table.rows)]
    heads = []
    for name in measured:
        heads += [named(name)] + (["before"] if name in table.own and before else [])
    lines = [
        f"## {table.title}",
        "",
        table.text,
        "",
        "| | " + " | ".join(heads) + " |",
        "|---" * (len(heads) + 1) + "|",
    ]
    for row in table.rows:
        cells = []
        for name in measured:
            found = values(figures, row.case, name, row.field)
            cells.append(cell(row, found))
            if name in table.own and before:
                cells.append(earlier(row, found, values(before, row.case, name, row.field)))
        lines.append(f"| {row.label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + f"\n\n![{table.title}](benchmarks/{table.key}.svg)"


BROKERS = {"redis": "Redis", "nats": "NATS", "rabbitmq": "RabbitMQ"}


def named(name):
    """What people call a column."""
    journal = name.removesuffix("-bare")
    if journal in brokers.JOURNALS:
        return brokers.JOURNALS[journal] + (", bare" if name != journal else "")
    return servers.NAMES[name]


def cell(row, found):
    if not found:
        return ""
    told = number(statistics.median(found) / row.unit)
    if len(found) > 1:
        told += f" ({number(min(found) / row.unit)} to {number(max(found) / row.unit)})"
    return told


def earlier(row, now, old):
    if not now or not old:
        return ""
    now, old = statistics.median(now), statistics.median(old)
    told = number(old / row.unit)
    change = (now - old) / old if old else 0
    worse = -change if row.higher else change
    told += f", now {change:+.0%}"
    return f"**{told}**" if worse > WORSE else told


def draw(table, figures, before):
    panels = {}
    for row in table.rows:
        for name in ["tidings"] if row.panel else table.columns:
            found = [value / row.unit for value in values(figures, row.case, name, row.field)]
            if not found:
                continue
            old = median(before, row.case, name, row.field)
            middle = statistics.median(found)
            bar = chart.Bar(
                row.bar or named(name),
                # What is measured without a hub is there to compare with.
                "ceiling" if row.case in ("disk", "cluster-disk") else name,
                middle,
                min(found),
                max(found),
                number(middle),
                old / row.unit if old is not None else None,
            )
            panels.setdefault((row.panel or row.label, row.higher), []).append(bar)
    return chart.draw(table.title, panels) if panels else None


def number(value):
    """Three digits or so."""
    size = abs(value)
    if size >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:.3f}"


def machine():
    cpu = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, loopback"


def commit():
    def git(*words):
        run = subprocess.run(["git", *words], cwd=servers.ROOT, capture_output=True, text=True, check=False)
        return run.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "src", "Cargo.lock")
    return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")


def how(commands):
    lines = ["## How it was measured", "", "| server | version |", "|---|---|"]
    for name, version in servers.versions().items():
        lines.append(f"| {servers.NAMES[name]} | {version} |")
    for name, version in brokers.versions().items():
        lines.append(f"| {BROKERS[name]} | {version} |")
    server, load = servers.cores()
    lines += [
        "",
        f"Servers run under `taskset -c {server}` with the configurations in `tests/bench`; the load has `--cpu {load}`. The",
        "ceiling is `tidings bench ceiling`: one loop that writes each event to each reader with one call. Plain axum is",
        "`examples/plain.rs`. A latency counts from the time that an event was to be sent, late or not. Memory is",
        "`RssAnon` and `RssShmem`, CPU is user and system time, of all of a server's processes.",
        "",
        "| measured | command, after `tidings bench` |",
        "|---|---|",
    ]
    lines += [f"| {key} | `{command}` |" for key, command in commands.items()]
    return "\n".join(lines)
