from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from stages.online.drift import ACTIONS, ASKED, DriftWatch, foreseen, settled_bars
from stages.signal import ODDS

DAY = pd.Timedelta(days=1)
START = pd.Timestamp("2015-01-01", tz="UTC")
WATCH = DriftWatch()
LOOK = DriftWatch(run_length=1000, draws=1999)  # quicker, and as sure as it has to be here


def stream(seed, bars=700, assets=20, lean=1.0, turned=None, open_bars=0, span=1):
    """What a model that knows the odds said, and what came; from bar `turned` on, the opposite."""
    rng = np.random.default_rng(seed)
    x_AT = lean * rng.standard_normal((assets, bars))
    logits = np.stack([-x_AT / 2, np.full_like(x_AT, 0.2), x_AT / 2], axis=-1)
    p_AT3 = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    true = p_AT3.copy()
    if turned is not None:
        true[:, turned:] = true[:, turned:, ::-1]
    drawn = (rng.random((assets, bars, 1)) > true.cumsum(axis=-1)).sum(axis=-1) - 1.0
    times = START + DAY * np.arange(bars)
    index = pd.MultiIndex.from_product(
        [[f"A{a:02d}" for a in range(assets)], pd.DatetimeIndex(times)], names=["asset", "time"]
    )
    rows = pd.DataFrame(p_AT3.reshape(-1, 3), index, ODDS).assign(side=drawn.ravel())
    rows["end"] = index.get_level_values("time") + span * DAY
    still = index.get_level_values("time") >= times[bars - 1] - DAY * (open_bars - 1)
    rows.loc[still, ["side"]] = np.nan
    rows.loc[still, "end"] = pd.NaT
    return rows


def kinds(report):
    return {alarm.kind for alarm in report.alarms}


def test_a_model_that_knows_the_odds_raises_no_alarm():
    for seed in range(3):
        assert WATCH.watch(stream(seed), 1).count == 0, seed


def test_a_market_that_turns_is_a_concept_drift_that_both_see_and_stops_the_firing():
    report = WATCH.watch(stream(0, turned=400), 1)
    assert {"concept", "confirmed", "worthless"} <= kinds(report)
    assert report.action == "stop firing"
    first = min(a.time for a in report.alarms if a.kind == "concept")
    assert START + 400 * DAY <= first <= START + 500 * DAY


def test_every_alarm_comes_after_its_cause_and_old_ones_do_not_count():
    report = DriftWatch(recent=20).watch(stream(1, bars=900, turned=400), 1)
    assert report.alarms
    assert min(alarm.time for alarm in report.alarms) >= START + 400 * DAY
    assert all(alarm.time >= START + 880 * DAY for alarm in report.active)


def test_what_an_alarm_asks_for_is_a_setting():
    rows = stream(0, turned=400)
    calm = DriftWatch(actions=dict.fromkeys(ASKED, "recalibrate")).watch(rows, 1)
    assert calm.action == "recalibrate"
    with pytest.raises(ValueError, match="panic"):
        DriftWatch(actions={"concept": "panic"})
    with pytest.raises(ValueError, match="alarms are"):
        DriftWatch(actions={"mood": "retrain"})
    assert ACTIONS[-1] == "stop firing"


def test_alarms_that_are_kept_are_bounded():
    rows = stream(2, bars=2400, assets=4, lean=3.0)
    storm = (np.arange(len(rows)) % 2400) // 300 % 2 == 1  # turns every 300 bars
    rows["side"] = np.where(storm, -rows["side"], rows["side"])
    report = DriftWatch(kept=3).watch(rows, 1)
    assert report.count > 3
    assert len(report.alarms) == 3
    assert len(report.active) <= 3


def test_more_confidence_than_accuracy_is_a_calibration_drift():
    rows = stream(3, bars=900, lean=0.7)
    bold = rows.index.get_level_values("time") >= START + 500 * DAY
    p = rows.loc[bold, ODDS].to_numpy() ** 4
    rows.loc[bold, ODDS] = p / p.sum(axis=1, keepdims=True)
    assert "calibration" in kinds(WATCH.watch(rows, 1))


def inputs(seed, bars, moved=0.0, begin=START):
    rng = np.random.default_rng(seed)
    times = pd.DatetimeIndex(begin + DAY * np.arange(bars))
    index = pd.MultiIndex.from_product([["A", "B", "C"], times], names=["asset", "time"])
    table = pd.DataFrame(rng.standard_normal((3 * bars, 2)), index, ["feature.a", "feature.b"])
    table["feature.b"] += moved
    return table


def test_inputs_that_move_ask_for_calibration_and_not_for_training():
    later = START + 600 * DAY
    rows, names = stream(4, bars=60, assets=4), ["feature.a", "feature.b"]
    still = (inputs(0, 600), inputs(1, 300, 0.0, later))
    moved = (inputs(0, 600), inputs(1, 300, 1.0, later))
    assert LOOK.watch(rows, 1, still, names).action == "nothing"
    report = LOOK.watch(rows, 1, moved, names)
    assert (kinds(report), report.action) == ({"covariate"}, "recalibrate")
    assert "feature.b" in report.alarms[0].text
    assert LOOK.watch(rows, 1, moved, ["feature.a"]).action == "nothing"


ROWS = stream(4, bars=30, assets=4)


def test_a_look_is_due_only_every_so_many_bars():
    later = START + 600 * DAY
    before, after = inputs(0, 600), inputs(1, 259, 1.0, later)
    one = LOOK.watch(ROWS, 1, (before, after), ["feature.b"])
    cut = after[after.index.get_level_values("time") < later + 240 * DAY]
    other = LOOK.watch(ROWS, 1, (before, cut), ["feature.b"])
    pd.testing.assert_frame_equal(one.shift.table, other.shift.table)
    assert LOOK.watch(ROWS, 1, (before, cut.iloc[:5]), ["feature.b"]).shift is None


def test_a_change_of_reasons_is_passed_on():
    told = SimpleNamespace(drifted=True, text="x pushes more")
    assert kinds(WATCH.watch(stream(0, bars=200), 1, reasons=told)) == {"reasons"}


def test_too_few_arrangements_for_the_promise_are_refused():
    with pytest.raises(ValueError, match="raise draws"):
        DriftWatch(draws=999)


def test_bars_count_up_to_the_first_open_one():
    rows = stream(5, bars=100, open_bars=3, span=3)
    assert len(settled_bars(rows, 3)) == 97
    rows.loc[("A00", START + 50 * DAY), "side"] = np.nan  # long overdue: there is none
    assert len(settled_bars(rows, 3)) == 97
    rows.loc[("A00", START + 95 * DAY), "side"] = np.nan
    assert len(settled_bars(rows, 3)) == 95


def test_the_figures_of_a_bar_are_those_of_its_rows():
    rows = stream(6, bars=80)
    bar = settled_bars(rows, 1).loc[START + 70 * DAY]
    own = rows[rows.index.get_level_values("time") == START + 70 * DAY]
    p, side = own[ODDS].to_numpy(), own["side"].to_numpy().astype(int) + 1
    excess = -np.log(p[np.arange(20), side]) + (p * np.log(p)).sum(axis=1)
    assert bar["concept"] == pytest.approx(excess.mean())
    assert bar["calibration"] == pytest.approx((p.argmax(1) == side).mean() - p.max(1).mean())
    assert bar["labels"] == pytest.approx((side != 1).mean())


def test_accuracy_is_foreseen_before_the_labels_come():
    held, widths = [], []
    for seed in range(20):
        whole = stream(seed, bars=200, assets=10)
        still = whole.index.get_level_values("time") >= START + 170 * DAY
        rows = whole.assign(side=whole["side"].where(~still))
        told = foreseen(rows, settled_bars(rows, 1), 250)
        right = whole[still][ODDS].to_numpy().argmax(axis=1) - 1 == whole.loc[still, "side"]
        held.append(told["low"] <= right.mean() <= told["high"])
        widths.append(told["high"] - told["low"])
    assert np.mean(held) >= 0.85
    assert np.mean(widths) < 0.3


def test_without_open_rows_or_settled_bars_nothing_is_foreseen():
    assert np.isnan(foreseen(stream(0, bars=60), settled_bars(stream(0, bars=60), 1), 50)["low"])
    empty = stream(0, bars=10).iloc[:0]
    report = WATCH.watch(empty, 1)
    assert (report.count, report.action) == (0, "nothing")
