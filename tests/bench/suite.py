#!/usr/bin/env python3
"""`make bench`: Tidings and its peers side by side. It measures in rounds, one server after the other in each case, so
that what a machine does meanwhile meets all of them, and writes docs/benchmarks.md.

With --quick: one round, shorter, into target/bench-quick. With --only: some cases, told but not written; with --keep
they are written beside the committed figures of the others.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import brokers
import cases
import cluster
import report
from servers import ROOT, TIDINGS, Failed, Server, cores, present

# No run takes as long.
RUN_S = 180


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="one round, shorter")
    arguments.add_argument("--rounds", type=int, help="3, or 1 with --quick")
    arguments.add_argument(
        "--only",
        nargs="+",
        metavar="CASE",
        help="only these cases, or those whose names begin so: " + " ".join(c.key for c in cases.CASES),
    )
    arguments.add_argument("--keep", action="store_true", help="write the page, with the other cases as committed")
    given = arguments.parse_args()
    rounds = given.rounds or (1 if given.quick else 3)
    wanted = [(name, f"{name}-") for name in given.only or []]
    chosen = [c for c in cases.CASES if not wanted or any(c.key == n or c.key.startswith(p) for n, p in wanted)]
    if not chosen:
        arguments.error("no case has that name")
    # Each stream is an open file of the server's and of the load's; both inherit this.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    here = present() + [name for journal in brokers.present() for name in (journal, f"{journal}-bare")]
    figures, notes, commands, failed = {}, [], {}, False
    if given.keep:
        figures = {key: kept for key, kept in report.committed().items() if key not in {c.key for c in chosen}}
    for case in cases.CASES:
        commands |= case.commands(given.quick)
    begun = time.monotonic()
    for number in range(rounds):
        for case in chosen:
            for name in case.servers:
                if name not in here:
                    continue
                found, wrong = measure(case, name, given.quick)
                kept = figures.setdefault(case.key, {}).setdefault(name, {})
                for field in case.fields:
                    kept.setdefault(field, []).append(found.get(field))
                told = ", ".join(f"{field} {found.get(field)}" for field in case.fields[:5])
                print(
                    f"{time.monotonic() - begun:5.0f} s  round {number + 1}  {case.key:18} {name:10} {told}", flush=True
                )
                if wrong:
                    note = f"{case.key}, {name}, round {number + 1}: {wrong}"
                    print(f"         {note}", flush=True)
                    notes.append(note)
                    # A peer's loss is told; one of the hub's fails the whole.
                    failed |= name in ("tidings", "memory", *brokers.JOURNALS)
    out = ROOT / ("target/bench-quick" if given.quick else "docs")
    if given.only and not given.keep:
        print(json.dumps(figures, indent=1))
    else:
        report.write(figures, notes, commands, rounds, given.quick, out)
        print(f"{time.monotonic() - begun:5.0f} s  written: {out.relative_to(ROOT)}/benchmarks.md")
    return 1 if failed else 0


def measure(case, name, quick):
    """One run: its figures, and what was wrong with it."""
    words = case.words(quick)
    try:
        if case.alone:
            work = ROOT / "target/bench"
            work.mkdir(parents=True, exist_ok=True)
            return run(words + ["--dir", str(work), "--cpu", str(cores()[0])])
        if name.removesuffix("-bare") in (*brokers.JOURNALS, "centrifugo-redis"):
            return cluster.measure(case, name, quick, run)
        with Server(name, case.pinned, case.env, case.config) as server:
            load = ["--cpu", str(cores()[1])] if case.pinned else []
            return run(words + load + server.load)
    except Failed as failure:
        return {}, str(failure)


def run(words):
    command = [str(TIDINGS), "bench", *words, "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False)
    except subprocess.TimeoutExpired:
        return {}, f"not done within {RUN_S} s"
    try:
        found = json.loads(done.stdout)
    except ValueError:
        return {}, done.stderr.strip() or f"exit code {done.returncode}"
    faults = ["gaps", "duplicates", "disorder", "strays", "refused", "lost_readers"]
    wrong = [f"{found[fault]} {fault}" for fault in faults if found.get(fault)]
    return found, ", ".join(wrong)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    sys.exit(main())
