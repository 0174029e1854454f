"""The pipeline and its peers on real panels: ``python -m experiments.benchmarks.real.run``.

Words: ``preset=small`` (or full), ``data=FOLDER`` (of the Parquet files), ``panels=us_stocks,m6``,
``seeds=5``, ``retrained=true`` (adds rows trained again before each year of test), ``out=FOLDER``
(a line of JSON a finished job; the same command goes on where it was stopped), ``readme=true``
(puts the tables into the README).
"""

import os
import sys

from pipeline.cli import THREADS

for name in THREADS:  # before numpy, numba and torch are imported and count the cores
    os.environ.setdefault(name, "1")

import json  # noqa: E402
import logging  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from experiments.benchmarks.real.job import PRESETS, Job, measure  # noqa: E402
from experiments.benchmarks.real.table import markdown  # noqa: E402

README = Path(__file__).with_name("README.md")
DATA = os.environ.get("SIEVE_DATA", "../shared/data")
WORDS = {"preset": "full", "panels": "", "seeds": "", "data": DATA} | {
    "out": "sieve_runs/real",
    "readme": "false",
    "retrained": "false",
}


def main(words: list[str]) -> None:
    """Run what is not done yet, and print a table a panel."""
    given = WORDS | parsed(words)
    preset = PRESETS[given["preset"]]
    panels = tuple(filter(None, given["panels"].split(","))) or preset.panels
    preset = replace(preset, panels=panels, seeds=int(given["seeds"] or preset.seeds))
    jobs = [
        Job(panel, seed, preset, given["data"], given["retrained"] == "true")
        for panel in preset.panels
        for seed in range(1, preset.seeds + 1)
    ]
    path = Path(given["out"]) / f"{given['preset']}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = finished(path, jobs)
    try:
        for record in carried_out([j for j in jobs if (j.panel, j.seed) not in done], path):
            done[record["panel"], record["seed"]] = record
    except KeyboardInterrupt:
        sys.exit(f"{len(done)} of {len(jobs)} jobs are done; the same command goes on")
    tables = markdown([done[j.panel, j.seed] for j in jobs], preset.resamples)
    print(tables)
    if given["readme"] == "true":
        README.write_text(within(README.read_text(), given["preset"], tables))


def parsed(words: list[str]) -> dict[str, str]:
    """Words as a mapping; one that means nothing is refused."""
    given = dict(word.partition("=")[::2] for word in words)
    unknown = sorted(set(given) - set(WORDS))
    if unknown or not all(given.values()):
        sys.exit(f"words are {', '.join(f'{name}=…' for name in WORDS)}; got {' '.join(words)}")
    return given


def finished(path: Path, jobs: list[Job]) -> dict[tuple[str, int], dict[str, Any]]:
    """Jobs that an earlier run with the same words finished; the last line of each."""
    wanted = {(job.panel, job.seed): job.words for job in jobs}
    found = {}
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
        except ValueError:  # cut short while it was written
            continue
        key = record["panel"], record["seed"]
        if wanted.get(key) == record["words"]:
            found[key] = record
    return found


def carried_out(jobs: list[Job], path: Path) -> Iterator[dict[str, Any]]:
    """Each finished job, written down before the next begins."""
    logging.disable(logging.WARNING)
    for job in jobs:
        record = measure(job)
        with path.open("a") as lines:
            lines.write(json.dumps(record) + "\n")
        print(f"{job.panel}, seed {job.seed}: {record['seconds']} s", file=sys.stderr)
        yield record


def marks(preset: str) -> tuple[str, str]:
    """What stands before and after the tables of a preset in the README."""
    return f"<!-- {preset} begins -->\n", f"\n<!-- {preset} ends -->"


def within(page: str, preset: str, tables: str) -> str:
    """The page with the tables of a preset in their place."""
    first, last = marks(preset)
    before, _, rest = page.partition(first)
    _, _, after = rest.partition(last)
    return f"{before}{first}{tables}{last}{after}"


if __name__ == "__main__":
    main(sys.argv[1:])
