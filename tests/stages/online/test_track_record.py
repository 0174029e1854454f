"""What was said is kept until its outcome is known, judged once, and bit-equal in parts."""

import json

import numpy as np
import pandas as pd
import pytest

from stages.base import State
from stages.ensemble.conformal import Coverage
from stages.ensemble.skill import SkillTest
from stages.online.track_record import TrackRecord

SPAN = 2


@pytest.fixture(scope="module")
def spoken():
    """Bars of three assets, words that know a little of them, and labels two bars later."""
    rng = np.random.default_rng(0)
    times = pd.date_range("2020-01-01 21:00", periods=160, tz="UTC").as_unit("us")
    names = pd.Index(["A", "B", "C"], dtype="str")
    index = pd.MultiIndex.from_product([names, times], names=["asset", "time"])
    shock = 0.01 * rng.normal(size=len(index))
    close = np.exp(pd.Series(shock, index).groupby(level="asset").cumsum())
    bars = pd.DataFrame({"close": close})
    ahead = close.groupby(level="asset").shift(-SPAN) / close - 1
    lean = np.clip(0.2 * np.sign(ahead.fillna(0)) + 0.2 * rng.normal(size=len(index)), -0.9, 0.9)
    said = pd.DataFrame({"p_sell": (1 - lean) / 3, "p_hold": 1 / 3, "p_buy": (1 + lean) / 3})
    said["sigma"] = 0.01
    known = ahead.notna().to_numpy()
    end = pd.Series(index.get_level_values("time"), index).groupby(level="asset").shift(-SPAN)
    side = np.where(ahead.abs() < 0.005, 0, np.sign(ahead)).astype("float64")
    y = pd.DataFrame({"side": side, "end": end, "weight": 1.0}, index)[known]
    return bars, said, y.astype({"side": "int8"})


def fresh() -> TrackRecord:
    return TrackRecord(SkillTest(), Coverage(horizon=SPAN, delay=0, start=20))


def upto(table, time):
    return table[table.index.get_level_values("time") <= time]


def after(table, time):
    return table[table.index.get_level_values("time") > time]


def known(y, since, until):
    return y[((y["end"] > since) & (y["end"] <= until)).to_numpy()]


def test_in_parts_is_bit_equal_to_at_once_and_survives_being_stored(spoken):
    bars, said, y = spoken
    times = bars.index.unique("time")
    start, last = times[80], times[-1]
    first = upto(said, times[80 - SPAN])
    at_once = fresh().fit(first, known(y, times[0], start), upto(bars, start), SPAN)
    parts = fresh().fit(first, known(y, times[0], start), upto(bars, start), SPAN)
    at_once.update(after(said, start), known(y, start, last), bars)
    was = start
    for now in times[[81, 82, 90, 120, 121, 159]]:
        recent = after(upto(bars, now), was - pd.Timedelta("9D"))
        parts.update(after(upto(said, now), was), known(y, was, now), recent)
        state = parts.state()
        values = json.loads(json.dumps(state.values, allow_nan=False))
        parts, was = fresh().restore(State(values, state.parts)), now
    assert parts.state() == at_once.state()
    assert parts.skill_.proven_
    assert parts.coverage_.history_["interval_rows"].sum() > 300


def test_only_bars_whose_labels_may_be_open_are_kept(spoken):
    bars, said, y = spoken
    rows = fresh().fit(said, y, bars, SPAN).rows_
    assert len(rows) == 3 * (2 * SPAN + 1)
    assert rows["side"].isna().sum() == 3 * SPAN
    assert rows["end"].notna().equals(rows["side"].notna())


def test_a_label_handed_over_twice_counts_once(spoken):
    bars, said, y = spoken
    once, twice = (fresh().fit(said, y, bars, SPAN) for _ in range(2))
    twice.update(said[:0], y, bars)
    assert twice.state() == once.state()


def test_each_row_is_told_what_was_known_at_its_time(spoken):
    bars, said, y = spoken
    record = fresh().fit(said, y, bars, SPAN)
    told = record.predict(said)
    assert told.index.equals(said.index)
    early = told.loc["A"].iloc[0]
    assert (early["skill.bars"], early["skill.proven"]) == (0, 0)
    assert np.isnan(early["interval_low"])
    late = told.loc["A"].iloc[-1]
    assert late["skill.e_value"] == record.skill_.path_["e_value"].iloc[-1]
    assert late["interval_low"] < 0 < late["interval_high"]
    half = bars.index.unique("time")[80]
    then = fresh().fit(upto(said, half), known(y, half - pd.Timedelta("99D"), half), bars, SPAN)
    pd.testing.assert_frame_equal(
        then.predict(upto(said, half)), upto(told, half), check_exact=True
    )


def test_rows_without_odds_are_not_kept_and_without_coverage_nothing_is_promised(spoken):
    bars, said, y = spoken
    silent = said.copy()
    silent.loc[said.index.get_level_values("asset") == "B"] = np.nan
    record = TrackRecord(SkillTest()).fit(silent.drop(columns="sigma"), y, bars, SPAN)
    assert set(record.rows_.index.unique("asset")) == {"A", "C"}
    assert record.coverage_ is None
    assert not [name for name in record.predict(said) if not name.startswith("skill.")]
    again = TrackRecord(SkillTest()).restore(record.state())
    assert again.state() == record.state()
