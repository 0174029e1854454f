"""The real-data benchmark: its table from lines of JSON, going on where it stopped, its README."""

import json

import numpy as np
import pytest

from experiments.benchmarks.real import job, run, table
from tests.conftest import composed


def record(seed, shift=0.0, panel="m6"):
    """Figures of two models over 200 days; the second is `shift` better every day."""
    rng = np.random.default_rng(seed)
    by_day = rng.normal(0.02, 0.1, 200)
    models = {
        job.PEER: {"by_day": {"ic": by_day.tolist(), "rank_ic": by_day.tolist()}},
        "pipeline": {
            "by_day": {k: (by_day + shift).tolist() for k in ("ic", "rank_ic")},
            "odds": {name: [0.5, 0.4, 0.6] for name in job.FIGURES},
        },
        "base rate": {"odds": {name: [0.5, 0.4, None] for name in job.FIGURES}},
    }
    models["base rate"]["odds"]["mcc"] = [None, None, None]
    return {
        "panel": panel,
        "seed": seed,
        "words": list(job.Job(panel, seed, job.PRESETS["full"], "DATA").shared),
        "rows": 1000,
        "span": ["2003-01-02", "2006-12-27"],
        "models": models,
        "valid": {name: {"ic": 0.05, "rank_ic": None} for name in ("pipeline", job.PEER)},
        "trees": 100 + seed,
        "seconds": 1.0,
    }


def cells(text, model):
    line = next(line for line in text.splitlines() if line.startswith(f"| {model} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_a_difference_that_is_the_same_every_day_has_no_width():
    text = table.markdown([record(1, 0.01), record(2, 0.01)], resamples=100)
    assert text.startswith("**m6**: test 2003-01-02 to 2006-12-27, 1,000 rows, 2 seeds;")
    assert cells(text, "pipeline")[6:] == ["+0.0100 [+0.0100, +0.0100]"] * 2
    assert cells(text, job.PEER)[6:] == ["", ""]
    ic = cells(text, "pipeline")[0]
    low, high = (float(x) for x in ic[ic.index("[") + 1 : -1].split(","))
    mean = np.mean([record(s, 0.01)["models"]["pipeline"]["by_day"]["ic"] for s in (1, 2)])
    assert low < mean < high
    assert high - low > 0.01


def test_what_a_model_lacks_is_left_blank():
    text = table.markdown([record(1)], resamples=100)
    assert cells(text, "base rate") == ["", "", "0.5000 [0.4000, nan]"] + [
        *("0.500 [0.400, nan]", "", "0.500 [0.400, nan]"),
        *("", ""),
    ]
    assert cells(text, job.PEER)[2:] == [""] * 6


def test_retrained_models_are_compared_with_each_other():
    said = record(1, 0.01)
    for name, like in zip(table.AGAIN, ("pipeline", job.PEER), strict=True):
        said["models"][name] = {"by_day": said["models"][like]["by_day"]}
    last = table.markdown([said], resamples=100).splitlines()[-1]
    assert last.startswith(" less ".join(table.AGAIN))
    assert last.count("+0.0100 [+0.0100, +0.0100]") == 2


def test_a_panel_has_a_table_of_its_own():
    text = table.markdown([record(1), record(1, panel="us_stocks")], resamples=100)
    assert text.count("| pipeline |") == 2
    assert "**us_stocks**" in text


def test_only_finished_jobs_of_the_same_words_are_taken_up(tmp_path):
    path = tmp_path / "full.jsonl"
    other = record(3) | {"words": ["+experiment=next_day"]}
    lines = [json.dumps(r) for r in (record(1), record(1) | {"rows": 7}, other)]
    path.write_text("\n".join(lines) + '\n{"panel": "m6", "se')
    jobs = [job.Job("m6", seed, job.PRESETS["full"], "DATA") for seed in (1, 2, 3)]
    found = run.finished(path, jobs)
    assert list(found) == [("m6", 1)]
    assert found["m6", 1]["rows"] == 7


def test_words_that_mean_nothing_are_refused():
    assert run.parsed(["preset=small", "seeds=3"]) == {"preset": "small", "seeds": "3"}
    for words in (["speed=9"], ["seeds="], ["preset"]):
        with pytest.raises(SystemExit):
            run.parsed(words)


@pytest.mark.parametrize("panel", job.PANELS)
def test_every_panel_composes(panel):
    words = job.Job(panel, 1, job.PRESETS["full"], "DATA").shared
    cfg = composed("train", *words)
    assert (cfg.horizon, cfg.delay, cfg.refiner) == (1, 1, None)


@pytest.mark.slow
def test_the_readme_shows_what_the_small_preset_prints(tmp_path, capsys):
    run.main(["preset=small", f"out={tmp_path}"])
    printed = capsys.readouterr().out.strip()
    first, last = run.marks("small")
    page = run.README.read_text(encoding="utf-8")
    assert printed == page.partition(first)[2].partition(last)[0]
