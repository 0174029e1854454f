import json

import numpy as np
import pandas as pd
import pytest

from stages.evaluate.sharpe import deflated_sharpe, sharpe_interval, sharpe_ratio
from stages.evaluate.standing import common_bars, standing

TIMES = pd.bdate_range("2015-01-02 21:00", periods=520, tz="UTC", name="time")


def returns(seed: int, mean: float = 0.0, times=TIMES) -> pd.Series:
    values = np.random.default_rng(seed).normal(mean, 0.01, len(times))
    return pd.Series(values, times, name=f"trial {seed}")


def others(many: int, **changed) -> dict[str, pd.Series]:
    return {f"trial {seed}": returns(seed, **changed) for seed in range(1, many + 1)}


def test_a_lone_trial_has_nothing_to_deflate():
    said = standing(returns(0, 0.0005), {}, 1)
    assert said.deflated == said.above_zero
    assert (said.by_luck, said.trials, said.compared) == (0, 1, 1)
    assert np.isnan(said.overfitting)
    assert said.bars_per_year == 261


def test_the_figures_are_those_of_their_definitions():
    mine, rest = returns(0, 0.0008), others(6)
    said = standing(mine, rest, 7, resamples=100)
    value = sharpe_interval(mine.to_numpy(), 1, 100)
    ratios = [sharpe_ratio(r.to_numpy()) for r in (mine, *rest.values())]
    deflated = deflated_sharpe(mine.to_numpy(), 7, np.var(ratios, ddof=1), value["error"])
    assert said.deflated == pytest.approx(deflated)
    assert said.sharpe == pytest.approx(ratios[0] * np.sqrt(261))
    assert said.low < said.sharpe < said.high
    assert (said.compared, said.common) == (7, 520)
    assert 0 <= said.overfitting <= 1


def test_the_more_trials_there_were_the_less_a_ratio_is_worth():
    said = [standing(returns(0, 0.001), others(5), n, resamples=50) for n in (6, 20, 500)]
    assert said[0].deflated > said[1].deflated > said[2].deflated
    assert said[0].by_luck < said[1].by_luck < said[2].by_luck
    assert len({s.above_zero for s in said}) == 1


def test_skill_among_noise_stands():
    said = standing(returns(0, 0.0025), others(9), 10)
    assert said.deflated > 0.95
    assert said.overfitting < 0.05
    assert said.bars_needed < said.bars


def test_trials_of_another_pace_or_on_other_bars_are_not_compared():
    slow = pd.date_range("2015-01-02 21:00", periods=100, freq="W", tz="UTC")
    later = TIMES + pd.Timedelta("1000D")
    rest = {"slow": returns(1, times=slow), "later": returns(2, times=later)}
    said = standing(returns(0), rest, 3, resamples=50)
    assert (said.compared, said.trials) == (1, 3)
    alone = standing(returns(0), {"later": rest["later"]}, 3, resamples=50)
    assert said.by_luck == alone.by_luck  # only the one of the same pace says how far trials lie


def test_trials_are_compared_on_the_bars_that_all_have():
    half, little = returns(1, times=TIMES[200:]), returns(2, times=TIMES[:100])
    table = common_bars(returns(0), {"half": half, "little": little})
    assert list(table) == ["trial 0", "half"]
    assert table.index.equals(TIMES[200:])
    short = returns(0, times=TIMES[:30])
    said = standing(short, {"one": returns(1, times=TIMES[:30])}, 2, resamples=50)
    assert (said.compared, said.common) == (2, 30)
    assert np.isnan(said.overfitting)  # too few bars to cut into blocks


def test_what_is_known_of_trials_that_share_their_bars_is_not_worked_out_again():
    known: dict = {}
    everyone = others(4)
    said = [
        standing(mine, {n: r for n, r in everyone.items() if n != name}, 4, known=known)
        for name, mine in everyone.items()
    ]
    assert len(known) == 1
    assert len({s.overfitting for s in said}) == 1


def test_a_book_that_held_nothing_is_counted_and_has_no_ratio():
    empty = pd.Series(dtype="float64", index=pd.DatetimeIndex([], tz="UTC"), name="empty")
    for nothing in (empty, returns(0) * 0):
        said = standing(nothing, others(2), 3)
        assert np.isnan([said.sharpe, said.low, said.deflated, said.bars_needed]).all()
        assert said.trials == 3
        assert json.loads(json.dumps(said.values(), allow_nan=False))["sharpe"] is None
