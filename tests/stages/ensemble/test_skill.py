"""The skill test: seldom passed without skill, soon with it, deaf to drift and to the future."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from stages.base import DataError, State
from stages.ensemble.skill import FADE, SkillTest

START = pd.Timestamp("2000-01-03 21:00", tz="UTC")


def world(seed, bars=300, assets=20, span=1, ic=0.0, persist=0.0, drift=0.1, common=0.3, size=0.04):
    """Leans (T, A) of autocorrelated forecasts, and sides that overlap, of assets that co-move."""
    rng = np.random.default_rng(seed)
    lean = rng.normal(size=(bars, assets))
    for t in range(1, bars):
        lean[t] = persist * lean[t - 1] + np.sqrt(1 - persist**2) * lean[t]
    shocks = np.sqrt(common) * rng.normal(size=(bars + span, 1))
    shocks = drift + shocks + np.sqrt(1 - common) * rng.normal(size=(bars + span, assets))
    summed = np.vstack([np.zeros(assets), shocks.cumsum(axis=0)])
    paid = (summed[span + 1 :] - summed[1:-span]) / np.sqrt(span) + ic * lean
    side = np.where(np.abs(paid) < 0.43, 0, np.sign(paid)).astype("int8")
    return size * lean, side


def tables(lean, side, span):
    """Words and labels in the shape of a panel; a NaN lean is a row that is not there."""
    T, A = lean.shape
    times = pd.date_range(START, periods=T + span, tz="UTC").as_unit("us")
    names = pd.Index([f"A{a:02d}" for a in range(A)], dtype="str")
    codes = [np.repeat(np.arange(A), T), np.tile(np.arange(T), A)]
    index = pd.MultiIndex([names, times], codes, names=["asset", "time"])
    f = lean.T.ravel()
    said = pd.DataFrame({"p_sell": (1 - f) / 3, "p_buy": (1 + f) / 3}, index)
    y = pd.DataFrame({"side": side.T.ravel(), "end": np.tile(times[span:], A)}, index)
    return said[~np.isnan(f)], y


def ran(lean, side, span, **settings):
    return SkillTest(**settings).fit(*tables(lean, side, span), span)


@pytest.fixture(scope="module")
def unskilled():
    """Paths of 400 models without any skill, by label span."""
    few = {"assets": 8}
    settings = {1: {"bars": 200, **few}, 5: {"bars": 300, "persist": 0.8, **few}}
    return {
        span: [
            ran(*world(seed, span=span, **how), span).path_[["settled", "e_value"]].to_numpy()
            for seed in range(400)
        ]
        for span, how in settings.items()
    }


@pytest.mark.parametrize("span", [1, 5])
def test_without_skill_at_most_one_in_twenty_ever_passes(unskilled, span):
    passed = [path[:, 1].max() >= 20 for path in unskilled[span]]
    assert np.mean(passed) <= 0.05


@pytest.mark.parametrize("span", [1, 5])
@pytest.mark.parametrize("greed", [1.5, 3.0, 10.0])
def test_no_rule_when_to_stop_makes_a_gain_of_luck(unskilled, span, greed):
    """Stopped as soon as the settled bets look rich: what counts is worth 1 at most in the mean."""
    ends = []
    for path in unskilled[span]:
        rich = path[:, 0] >= greed
        ends.append(path[rich.argmax() if rich.any() else -1, 1])
    assert np.mean(ends) <= 1 + 3 * np.std(ends) / np.sqrt(len(ends))


def test_multiplying_the_odds_of_all_assets_would_pass_by_luck():
    """The naive product takes assets that move together for as many witnesses of one guess."""
    naive, bets = 0, 0
    for seed in range(40):
        lean, side = world(seed, bars=300, drift=0.0)
        guess = 0.9 * lean[:, :1] + 0.1 * lean  # of the market, nearly the same for all assets
        odds = np.where(side == 0, 1.0, 1 + guess * side)
        naive += (np.log(odds).sum(axis=1).cumsum() >= np.log(20)).any()
        bets += ran(guess, side, 1).proven_
    assert naive > 10
    assert bets <= 2


@pytest.mark.parametrize(
    ("span", "ic", "bars", "seeds"), [(1, 0.05, 289, 12), (1, 0.10, 116, 12), (5, 0.10, 565, 8)]
)
def test_skill_is_seen_within_the_bars_that_a_fixed_scale_took(span, ic, bars, seeds):
    """`bars` are the medians of bets scaled by 0.1 once for all, by simulation."""
    proven = []
    for seed in range(seeds):
        how = {"bars": 2 * bars, "persist": 0.8 * (span > 1), "size": 0.8 * ic}
        path = ran(*world(seed, span=span, ic=ic, **how), span).path_["proven"].to_numpy()
        proven.append(path.argmax() if path.any() else np.inf)
    assert np.median(proven) < bars


def test_a_model_that_hardly_leans_is_tested_as_well_as_a_bold_one():
    lean, side = world(3, ic=0.1)
    bold, shy = ran(10 * lean, side, 1).path_, ran(lean / 100, side, 1).path_
    np.testing.assert_allclose(bold["e_value"], shy["e_value"], rtol=1e-6)
    assert bold["proven"].iloc[-1] == 1


# against a few lines of plain arithmetic


def by_hand(lean, side, span):
    """Settled and worst capital after each bar whose bet was settled, all labels known."""
    T = len(lean)
    usual, total, weight = np.zeros(T), 0.0, 0.0
    for t in range(T):
        usual[t] = total / weight if weight else 0.0
        total = FADE * total + np.abs(lean[t] - lean[t].mean()).mean()
        weight = FADE * weight + 1
    x, stake = np.zeros(T), np.zeros(T)
    wealth, lines = np.ones(span), []
    for t in range(T + span):
        if t >= span:  # the bar of span bars ago is known
            b = t - span
            moved = side[b] != 0
            if moved.sum() > 1:
                own = lean[b][moved] - lean[b][moved].mean()
                x[b] = (own * side[b][moved]).mean() / max(usual[b], np.abs(own).mean())
            wealth[b % span] *= 1 + stake[b] * x[b]
            still = range(b + 1, min(t, T))
            worst = wealth.copy()
            for k in still:
                worst[k % span] *= 1 - stake[k]
            lines.append([wealth.mean(), worst.mean()])
        if t < T:
            done = x[: max(t - span + 1, 0)]
            stake[t] = np.clip(done.sum() / (1 + (done**2).sum()), 0, 0.5)
    return np.array(lines)


@pytest.mark.parametrize("span", [1, 2, 5])
def test_the_path_is_what_plain_arithmetic_gives(span):
    lean, side = world(1, bars=120, assets=6, span=span, ic=0.1, persist=0.5)
    path = ran(lean, side, span, needed=1e6).path_
    np.testing.assert_allclose(path[["settled", "e_value"]], by_hand(lean, side, span), rtol=1e-9)
    assert path["bars"].tolist() == list(range(1, 121))
    assert (path["e_value"] <= path["settled"]).all()


# what pays nothing


def test_a_rising_market_proves_no_skill_to_those_who_always_buy():
    lean, side = world(2, drift=0.5)
    assert ran(np.full_like(lean, 0.2), side, 1).path_["settled"].eq(1).all()
    follower = np.repeat(np.linspace(-0.2, 0.2, len(lean))[:, None], lean.shape[1], axis=1)
    assert ran(follower, side, 1).path_["settled"].eq(1).all()


@pytest.mark.parametrize("kind", ["always", "walk", "follows"])
def test_the_drift_of_a_lone_asset_proves_no_skill(kind):
    passed = 0
    for seed in range(40):
        lean, side = world(seed, bars=400, assets=1, drift=0.25)
        known = np.vstack([[0], side[:-1]]).cumsum() / np.arange(1, len(side) + 1)
        words = {"always": np.full_like(lean, 0.1), "walk": lean.cumsum(axis=0) / 10}
        passed += ran(words.get(kind, known[:, None]), side, 1).proven_
    assert passed <= 2


def test_a_lone_asset_can_prove_skill():
    lean, side = world(4, bars=600, assets=1, ic=0.4, size=0.3)
    assert ran(lean, side, 1).proven_


# time


def test_nothing_known_later_moves_what_was_known():
    lean, side = world(5, bars=200, span=3, ic=0.1)
    before = ran(lean, side, 3).path_
    side[120:] *= -1
    after = ran(lean, side, 3).path_
    cut = before.index[119]  # line by line a bar, as its label is known
    pd.testing.assert_frame_equal(before[:cut], after[:cut], check_exact=True)
    assert not before["settled"].equals(after["settled"])


def holed(seed, span):
    """Words and labels in which assets are halted, delisted and alone, and labels are missing."""
    rng = np.random.default_rng(seed)
    lean, side = world(seed, bars=90, assets=5, span=span, ic=0.2)
    lean[20:35, 0] = np.nan
    lean[50:, 1] = np.nan
    lean[60:64, 1:] = np.nan
    said, y = tables(lean, side, span)
    early = rng.random(len(y)) < 0.3  # barriers touched at the next bar
    times = y.index.get_level_values("time")
    y.loc[early, "end"] = (times + pd.Timedelta("1D"))[early]
    missing = (rng.random(len(y)) < 0.1) | ((times > times[47]) & (times < times[51]))
    return said, y[~missing & y.index.isin(said.index)]


@pytest.mark.parametrize("span", [1, 4])
@pytest.mark.parametrize("seed", range(6))
def test_bars_in_parts_are_bit_equal_to_bars_at_once(seed, span):
    said, y = holed(seed, span)
    times = said.index.unique("time").sort_values()
    rng = np.random.default_rng(seed)
    cuts = [
        *np.sort(rng.choice(len(times) - 1, rng.integers(1, 30), replace=False)),
        len(times) - 1,
    ]
    whole = SkillTest(needed=3.0, memory=20).fit(said, y, span, times[-1])
    parts = SkillTest(needed=3.0, memory=20).fit(said[:0], y[:0], span)
    seen = -1
    for cut in cuts:
        at = said.index.get_level_values("time")
        recent = said[(at >= times[max(seen - 2 * span, 0)]) & (at <= times[cut])]
        parts.update(recent, y[(y["end"] <= times[cut]).to_numpy()], times[cut])
        parts = again(parts)
        seen = cut
    assert parts.state() == whole.state()
    assert whole.path_["bars"].max() > 60


def again(test):
    """The test, written down and read back."""
    state = test.state()
    values = json.loads(json.dumps(state.values, allow_nan=False))
    return replace(test).restore(State(values, state.parts))


def test_a_bar_waits_for_its_labels_and_not_for_ever():
    lean, side = world(6, bars=12, assets=3, span=2)
    lean[4:, 0] = np.nan  # delisted
    said, y = tables(lean, side, 2)
    times = said.index.unique("time").sort_values()
    gone = y[(y.index.get_level_values("asset") != "A00") | (y["end"] <= times[3])]
    settled = SkillTest().fit(said, gone, 2).path_
    assert settled.index[1] == times[3]  # bar 1, all labels known
    assert settled.index[2] == times[6]  # bars 2 and 3 wait for A00 until 4 bars are over
    assert settled["bars"].tolist()[:3] == [1, 2, 4]


def test_a_bar_that_is_open_must_be_brought_again():
    said, y = tables(*world(7, bars=30, span=5), 5)
    test = SkillTest().fit(said, y, 5, said.index[28][1])
    with pytest.raises(DataError, match="is not among the rows") as error:
        test.update(said[said.index.get_level_values("time") > said.index[28][1]], y)
    assert error.value.code == "SV-F18"
    assert "2 span_" in error.value.cure


def test_what_was_known_is_told_for_any_time():
    lean, side = world(8, bars=150, ic=0.3)
    test = ran(lean, side, 1)
    path = test.path_
    known = test.at(pd.DatetimeIndex([START, path.index[40], path.index[40] + pd.Timedelta("1h")]))
    assert known.iloc[0].drop("left").to_dict() == {
        "needed": 20.0,
        "e_value": 1.0,
        "bars": 0.0,
        "proven": 0.0,
    }
    for row in (1, 2):
        assert known.iloc[row]["e_value"] == path["e_value"].iloc[40]
    assert known["bars"].tolist() == [0, 41, 41]
    assert test.at(path.index[-1:])["proven"].tolist() == [1]


# once proven


def test_skill_that_turns_is_noticed_and_has_to_be_proven_anew():
    lean, side = world(9, bars=900, ic=0.15)
    lean[300:600] *= -1
    test = ran(lean, side, 1, memory=200)
    proven = test.path_["proven"].to_numpy()
    first, lost = proven.argmax(), 300 + (proven[300:] == 0).argmax()
    assert first < 200
    assert 300 < lost < 500
    assert test.restarts_ == 1
    assert test.path_["bars"].iloc[lost] == 0
    assert proven[lost:550].max() == 0
    assert proven[-1] == 1
    assert ran(lean, side, 1, faded=0.0).restarts_ == 0


def test_a_streak_of_bad_luck_does_not_undo_a_proof():
    for seed in range(5):
        lean, side = world(seed, bars=1000, ic=0.1)
        assert ran(lean, side, 1).restarts_ == 0


def test_the_bars_that_are_left_are_about_right():
    found = []
    for seed in range(12):
        lean, side = world(seed, bars=500, ic=0.07)
        path = ran(lean, side, 1).path_
        first = path["proven"].to_numpy().argmax()
        at = int((path["e_value"] >= 5).to_numpy().argmax())
        found.append(path["left"].iloc[at] / max(first - at, 1))
    assert 0.4 < np.median(found) < 2.5


def test_a_capital_of_one_switches_the_test_off():
    lean, side = world(0, bars=50)
    test = ran(lean, side, 1, needed=1.0)
    assert test.proven_
    assert (test.path_["proven"] == 1).all()
    assert test.at(pd.DatetimeIndex([START]))["proven"].tolist() == [1]
    assert test.progress(1.0) == 1.0


def test_progress_is_counted_in_orders_of_magnitude():
    test = SkillTest()
    assert [test.progress(e) for e in (0.1, 1.0, 20.0, 1e9)] == [0, 0, 1, 1]
    assert test.progress(20**0.5) == pytest.approx(0.5)


def test_great_skill_does_not_overflow():
    lean, side = world(0, bars=3000, assets=30, ic=20.0)
    test = ran(lean, side, 1)
    assert np.isfinite(test.path_[["settled", "e_value"]]).all(axis=None)
    assert test.proven_


def test_the_path_is_bounded():
    lean, side = world(0, bars=100)
    whole, short = ran(lean, side, 1).path_, ran(lean, side, 1, kept=30).path_
    pd.testing.assert_frame_equal(short, whole[-30:], check_exact=True)


@pytest.mark.parametrize(
    "setting",
    [{"needed": 0.5}, {"most": 1.0}, {"most": 0.0}, {"faded": 1.0}, {"memory": 0}, {"kept": 0}],
)
def test_a_setting_out_of_range_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        SkillTest(**setting)


def test_a_span_below_one_is_refused():
    with pytest.raises(ValueError, match="span must be at least 1"):
        ran(*world(0, bars=10), 0)
