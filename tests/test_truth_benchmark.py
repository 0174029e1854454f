"""The benchmark on markets of known truth: what the README prints is what the command prints."""

import json
import re

import numpy as np
import pytest
from scipy import stats

from experiments.benchmarks.truth.job import PRESETS, ROWS, Job
from experiments.benchmarks.truth.run import README, finished, main, marks
from experiments.benchmarks.truth.table import Runs, half, markdown
from stages.markets import MARKETS
from tests.conftest import composed

NUMBER = re.compile(r"[+-]?\d+\.\d+")
# processors differ in the last bits of a sum, and training carries them on
SLACK = {1: 4.0, 2: 0.0, 3: 0.012, 4: 0.004}  # by digits behind the point; goals have two


def near(one: str, other: str) -> bool:
    """Whether two numbers of one form agree but for the last bits of the training."""
    digits = len(one.partition(".")[2])
    same = digits == len(other.partition(".")[2])
    return same and abs(float(one) - float(other)) <= SLACK[digits]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_table_of_the_readme_is_what_the_command_prints(tmp_path, capsys):
    main(["preset=small", "rows=tabular,mixed,noise_iid,noise_garch", f"out={tmp_path}"])
    printed = capsys.readouterr().out.strip()
    first, last = marks("small")
    shown = README.read_text().partition(first)[2].partition(last)[0]
    assert NUMBER.sub("#", printed).split() == NUMBER.sub("#", shown).split()
    pairs = list(zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True))
    assert len(pairs) > 80
    assert [pair for pair in pairs if not near(*pair)] == []


def test_what_is_done_is_not_done_again(tmp_path, capsys):
    words = ["preset=small", "rows=noise_iid", "seeds=1", f"out={tmp_path}"]
    main(words)
    once = capsys.readouterr()
    line = (tmp_path / "small.jsonl").read_text()
    assert "1/1 noise_iid, seed 1" in once.err
    main(words)
    again = capsys.readouterr()
    assert (again.out, again.err) == (once.out, "")
    assert (tmp_path / "small.jsonl").read_text() == line


def test_a_torn_line_a_failed_job_and_one_of_other_words_are_not_done(tmp_path):
    jobs = [Job("gated", seed, PRESETS["small"]) for seed in (1, 2, 3)]
    lines = [{"row": job.row, "seed": job.seed, "words": job.words} for job in jobs]
    lines[1]["words"] = Job("gated", 2, PRESETS["full"]).words
    lines[2]["error"] = "DataError: no bars"
    path = tmp_path / "lines.jsonl"
    assert finished(path, jobs) == {}
    whole = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_text(whole + json.dumps(lines[0])[:30])
    assert finished(path, jobs) == {("gated", 1): lines[0]}
    assert path.read_text() == whole


def test_every_market_is_a_row_and_a_row_composes():
    assert set(MARKETS) < set(ROWS)
    for row in ("noise_iid", "drift_flip", "tabular SNR 2"):
        cfg = composed("train", *Job(row, 3, PRESETS["full"]).words)
        assert cfg.data.market._target_.rpartition(".")[2] == ROWS[row][0]
        assert (cfg.seed, cfg.data.market.times, cfg.data.market.assets) == (3, 4000, 20)
    assert list(cfg.refiner.members) == ["lstm"]  # the row with goals for it
    assert cfg.data.market.snr == 2.0


def record(seed: int, loss: float, member: float, **figures) -> dict:
    base = {"accuracy": 0.5, "bayes_accuracy": 0.55, "log_loss": loss, "brier": 0.6, "ece": 0.01}
    base |= {"ece_high": 0.02, "base_log_loss": 1.1, "bayes_log_loss": 0.9, "skill_ratio": 0.8}
    base |= {"information_ratio": 0.7} | figures
    models = {name: dict(base) for name in ("pipeline", "good", "bad", "stage 1", "stage 2")}
    models["good"]["log_loss"], models["bad"]["log_loss"] = member, member + 1
    models["stage 3"] = dict(base)
    return {
        "row": "gated",
        "seed": seed,
        "rows": 20_000,
        "members": ["bad", "good"],
        "models": models,
        "status": {"unproven": 0.25, "fired": 0.5, "hold": 0.25},
        "reasons": None,
    }


def test_half_an_interval_is_that_of_student():
    x = np.array([0.1, 0.4, 0.3, 0.2])
    low, high = stats.t.interval(0.95, 3, x.mean(), stats.sem(x))
    assert half(x) == pytest.approx((high - low) / 2)
    assert np.isnan(half(x[:1]))


def test_losses_are_compared_with_the_best_member_seed_by_seed():
    worse = [record(seed, 1.0 + 0.1 * seed, 0.9 + 0.1 * seed) for seed in (1, 2, 3)]
    worse[0]["models"]["good"]["log_loss"] -= 0.001
    assert Runs(worse).best_member("log_loss") == "good"
    assert Runs(worse).worse("log_loss")
    assert "+0.1003 ±0.0014 good **worse**" in markdown(worse)
    assert "| 1 of 1: gated | no |" in markdown(worse)
    unsure = [record(seed, 1.0, 1.0 + 0.1 * (-1) ** seed) for seed in (1, 2, 3)]
    assert "worse**" not in markdown(unsure)


def test_a_claim_that_fails_says_by_how_much():
    runs = [record(seed, 1.0, 1.1) for seed in (1, 2)]
    for run in runs:
        run["models"]["stage 2"]["accuracy"] = 0.49
    text = markdown(runs)
    assert "| 75.0 % ±0.0 |" in text
    assert "regime | ≥ 0.02 | 0.010 ±0.000 | no, by 0.010 |" in text
    where = "worst planted market (`gated`, 20,000 rows a seed)"
    assert f"debiased ECE, {where} | ≤ 0.02 | 0.010" in text
    assert "(`gated`, 20,000 rows a seed) | ≤ 0.02 | 0.020 ±0.000 | yes |" in text


def test_false_positives_are_claimed_only_where_the_exact_odds_could_drop_them():
    runs = [record(seed, 1.0, 1.1) for seed in (1, 2)]
    for run, share in zip(runs, (0.30, 0.36), strict=True):
        run["screened"] = {"Bayes": 0.42, "pipeline": share}
    assert "recall of 0.9 (Bayes 0.420) | ≥ 0.4 | 0.330" in markdown(runs)
    runs[0]["screened"]["Bayes"] = 0.3
    assert "recall of 0.9" not in markdown(runs)


def test_a_market_without_skill_has_no_share_of_it():
    runs = [record(seed, 1.1, 1.1, bayes_log_loss=1.0999) for seed in (1, 2)]
    assert "| 0.909 ±0.000 |  |  | 0.010 ≤ 0.020 |" in markdown(runs)


@pytest.mark.parametrize(
    ("word", "said"), [("presets=1", "no such word"), ("preset=huge", "small"), ("rows=x", "row")]
)
def test_a_wrong_word_is_refused(word, said):
    with pytest.raises(SystemExit, match=said):
        main([word])
