"""All markets of known truth, in one table: ``python -m experiments.benchmarks.truth.run``.

Words: ``preset=small`` (or full, noise), ``jobs=2`` (processes), ``seeds=5``, ``rows=mixed,gated``,
``out=FOLDER`` (a line of JSON a finished job; the same command goes on where it was stopped),
``readme=true`` (puts the tables into the README).
"""

import os
import sys

from pipeline.cli import THREADS

for name in THREADS:  # before numpy, numba and torch are imported and count the cores
    os.environ.setdefault(name, "1")

import json  # noqa: E402
import logging  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402

from joblib import Parallel, delayed  # noqa: E402

from experiments.benchmarks.truth.job import PRESETS, ROWS, Job, measure  # noqa: E402
from experiments.benchmarks.truth.table import markdown  # noqa: E402
from pipeline.tracking import git_commit  # noqa: E402

README = Path(__file__).with_name("README.md")
WORDS = {"preset": "full", "jobs": "1", "seeds": "", "rows": "", "out": "sieve_runs/truth"} | {
    "readme": "false"
}


def main(words: list[str]) -> None:
    """Run what is not done yet, and print the tables."""
    given = WORDS | _parsed(words)
    preset = PRESETS[given["preset"]]
    preset = replace(preset, seeds=int(given["seeds"] or preset.seeds))
    rows = given["rows"].split(",") if given["rows"] else list(preset.rows)
    jobs = [Job(row, seed, preset) for seed in range(1, preset.seeds + 1) for row in rows]
    path = Path(given["out"]) / f"{given['preset']}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = finished(path, jobs)
    todo = [job for job in jobs if (job.row, job.seed) not in done]
    try:
        for record in _carried_out(todo, int(given["jobs"]), path):
            done[record["row"], record["seed"]] = record
    except KeyboardInterrupt:
        sys.exit(f"{len(done)} of {len(jobs)} jobs are done; the same command goes on")
    tables = markdown(done.values())
    print(tables)
    if given["readme"] == "true":
        README.write_text(_within(README.read_text(), given["preset"], tables))
    failed = len(jobs) - len(done)
    if failed:
        sys.exit(f"{failed} of {len(jobs)} jobs failed; see {path}")


def marks(preset: str) -> tuple[str, str]:
    """What stands before and after the tables of a preset in the README."""
    return f"<!-- {preset} begins -->\n", f"\n<!-- {preset} ends -->"


def finished(path: Path, jobs: list[Job]) -> dict[tuple[str, int], dict]:
    """Finished jobs of an earlier run with the same words; the last one of each."""
    wanted = {(job.row, job.seed): job.words for job in jobs}
    text = path.read_text() if path.is_file() else ""
    if not text.endswith("\n"):  # cut short while it was written
        text = text[: text.rfind("\n") + 1]
        path.write_text(text)
    found = {}
    for record in map(json.loads, text.splitlines()):
        key = record["row"], record["seed"]
        if wanted.get(key) == record["words"] and "error" not in record:
            found[key] = record
    return found


def _carried_out(jobs: list[Job], processes: int, path: Path) -> Iterator[dict]:
    """Each finished job, written down before the next is waited for."""
    commit, began = git_commit(), time.time()
    run = Parallel(n_jobs=processes, return_as="generator_unordered")
    for count, record in enumerate(run(delayed(_tried)(job) for job in jobs), 1):
        record["commit"] = commit
        with path.open("a") as lines:
            lines.write(json.dumps(record) + "\n")
        failed = record.get("error", "")
        left = (time.time() - began) / count * (len(jobs) - count) / 60
        print(
            f"{count}/{len(jobs)} {record['row']}, seed {record['seed']}: "
            f"{failed or '{seconds} s'.format(**record)}; about {left:.0f} min left",
            file=sys.stderr,
        )
        if not failed:
            yield record


def _tried(job: Job) -> dict:
    """The figures, or what went wrong: one job must not cost the others."""
    logging.disable(logging.WARNING)
    try:
        return measure(job)
    except Exception as error:  # noqa: BLE001  it is written down, counted and shown
        said = f"{type(error).__name__}: {error}"
        return {"row": job.row, "seed": job.seed, "words": job.words, "error": said}
    finally:
        logging.disable(logging.NOTSET)


def _within(page: str, preset: str, tables: str) -> str:
    """The page with the tables of a preset in their place, or at its end."""
    first, last = marks(preset)
    if first not in page:
        page = f"{page.rstrip()}\n\n## Preset {preset}\n\n{first}{last}\n"
    before, _, rest = page.partition(first)
    _, _, after = rest.partition(last)
    return f"{before}{first}{tables}{last}{after}"


def _parsed(words: list[str]) -> dict[str, str]:
    given = dict(word.partition("=")[::2] for word in words)
    for key in given:
        if key not in WORDS:
            sys.exit(f"no such word as {key}; there are {', '.join(WORDS)}")
    if given.get("preset", "full") not in PRESETS:
        sys.exit(f"preset is one of {', '.join(PRESETS)}")
    strange = set(filter(None, given.get("rows", "").split(","))) - set(ROWS)
    if strange:
        sys.exit(f"no such row as {', '.join(sorted(strange))}; there are {', '.join(ROWS)}")
    return given


if __name__ == "__main__":
    main(sys.argv[1:])
