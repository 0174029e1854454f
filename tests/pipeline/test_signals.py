import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest

from pipeline.data.instruments import Instruments
from pipeline.signals import Signals, choose_rows, expiries, references_hash, skill_sentence
from pipeline.signals_io import from_record, read_records, to_record, write_signals
from stages.base import DataError

SCHEMA = json.loads((Path(__file__).parents[2] / "schemas" / "signal-v1.json").read_text())


@pytest.fixture(scope="module")
def signals(tiny, tiny_market):
    """Every kind there is: abstentions of the first rows, holds, sides."""
    return tiny.signals(tiny_market.panel.groupby(level="asset").head(60), newest=False)


def test_every_signal_follows_the_published_schema(signals, barrier, tiny_market):
    check = jsonschema.Draft202012Validator(SCHEMA)
    for signal in [*signals, *barrier.signals(tiny_market.panel)]:
        record = json.loads(json.dumps(to_record(signal, "0" * 64), allow_nan=False))
        check.validate(record)
        assert from_record(record) == from_record(to_record(signal, "0" * 64))
    assert {s.status for s in signals} == {"abstain", "hold", "unproven"}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_written_twice_is_written_once(signals, tmp_path, suffix):
    path = tmp_path / f"signals.{suffix}"
    assert write_signals(path, signals[:100], "0" * 64) == 100
    written = path.read_bytes()
    assert write_signals(path, signals[:100], "0" * 64) == 0
    assert path.read_bytes() == written
    assert write_signals(path, signals[50:150], "0" * 64) == 50
    assert len(read_records(path)) == 150


def test_a_signal_explains_its_side_against_the_opposite(signals, tiny, tiny_market):
    out = tiny.predict(tiny_market.panel)
    for signal in [s for s in signals if s.reasons]:
        margin = out.loc[(signal.asset, signal.time), "margin"]
        assert signal.reasons.margin == pytest.approx(abs(margin))
        assert signal.reasons.side == np.sign(margin)
        if signal.side:
            assert signal.reasons.side == signal.side
        assert abs(signal.reasons.gap) < 1e-5
        assert signal.reasons.references == references_hash(tiny.references_)


def test_the_top_reasons_are_the_largest_pushes_in_words(signals):
    signal = next(s for s in signals if s.status == "unproven")
    ranked = sorted(signal.reasons.contributions.items(), key=lambda item: -abs(item[1]))
    assert [text.split()[0] for text in signal.reasons.text] == [
        name.removeprefix("context.") for name, _ in ranked[:5]
    ]
    name, push = ranked[0]
    verb = "favours" if push > 0 else "opposes"
    side = {1: "BUY", -1: "SELL"}[signal.side]
    assert f"{verb} {side} ({push:+.3f})" in signal.reasons.text[0]


def test_reasons_tell_kinds_of_input_single_bars_and_how_close_they_are(signals, tiny, tiny_market):
    why = tiny.explain(tiny_market.panel, pd.MultiIndex.from_tuples(_rows(signals)))
    for signal in [s for s in signals if s.reasons]:
        reasons, row = signal.reasons, (signal.asset, signal.time)
        total = sum(reasons.contributions.values())
        assert sum(reasons.by_family.values()) == pytest.approx(total, abs=1e-9)
        assert set(reasons.by_family) == {"given", "context"}
        told = why.lags.loc[[row]]
        assert [(p.feature, p.lag) for p in reasons.lags] == [
            *zip(told["feature"], told["lag"], strict=True)
        ]
        pushes = reasons.side * told["contribution"].to_numpy()
        np.testing.assert_allclose([p.push for p in reasons.lags], pushes, rtol=1e-12)
        assert reasons.effort == tiny.explainer.reasons == "fast"
        assert reasons.fidelity == tiny.fidelity_


def test_full_reasons_are_there_on_request(copy, tiny_market):
    copy.explainer = replace(copy.explainer, fast_references=1)
    rows = tiny_market.panel.index[[-1]]
    fast, full = (copy.explain(tiny_market.panel, rows, effort) for effort in ("fast", "full"))
    assert (fast.effort, full.effort) == ("fast", "full")
    assert fast.output.equals(full.output)
    assert not np.allclose(fast.baseline, full.baseline)


def _rows(signals):
    return [(s.asset, s.time) for s in signals if s.reasons]


def test_the_trail_tells_how_the_view_moved(signals, tiny, tiny_market):
    out = tiny.predict(tiny_market.panel)
    for signal in signals[20:60]:
        row = out.loc[(signal.asset, signal.time)]
        if signal.status == "abstain":
            assert signal.stages == {}
            continue
        assert list(signal.stages) == ["filter", "refiner", "ensemble", "gate"]
        assert signal.stages["gate"] is bool(row["filter.gate"] == 1.0)
        assert (signal.stages["refiner"] is None) == (row["filter.gate"] == 0.0)
        trees = ["lightgbm", "xgboost", "forest"]
        mean = np.mean([row[f"filter.{m}.z_buy"] - row[f"filter.{m}.z_sell"] for m in trees])
        assert signal.stages["filter"] == pytest.approx(mean)
        assert signal.stages["ensemble"] == row["margin"]


def test_the_target_stands_at_the_return_at_stake(barrier, tiny_market):
    out = barrier.predict(tiny_market.panel)
    fired = [s for s in barrier.signals(tiny_market.panel, newest=False, explain=False) if s.side]
    assert {s.side for s in fired} == {-1, 1}
    for signal in fired:
        row = out.loc[(signal.asset, signal.time)]
        assert signal.prices["close"] == row["close"]
        assert signal.prices["target"] == row["close"] * (1 + signal.side * row["scale"])
        assert "stop" not in signal.prices  # that is for the plan to say


def test_without_a_return_at_stake_there_is_only_the_close(signals):
    assert {tuple(s.prices) for s in signals} == {("close",)}


def test_without_a_close_there_is_no_price(tiny, tiny_market):
    said = tiny.signals(tiny_market.panel.drop(columns="close"))
    assert {tuple(s.prices) for s in said} == {()}


def test_a_session_is_carried_along(tiny, tiny_market):
    days = tiny_market.panel.index.get_level_values("time").tz_localize(None).normalize()
    dated = tiny_market.panel.assign(session=days)
    assert {s.session for s in tiny.signals(dated)} == {"2001-02-23"}
    assert {s.session for s in tiny.signals(tiny_market.panel)} == {None}


# what was promised


def test_a_signal_carries_its_doubts_its_promises_and_how_far_skill_is_shown(
    signals, tiny, tiny_market
):
    out = tiny.predict(tiny_market.panel)
    last = tiny.record_.skill_.path_.iloc[-1]
    for signal in signals.newest():
        row = out.loc[(signal.asset, signal.time)]
        assert (signal.novelty, signal.disagreement) == (row["novelty"], row["disagreement"])
        assert (signal.skill["e_value"], signal.skill["bars"]) == (1.0, 0)  # long before any bet
    for signal in tiny.signals(tiny_market.panel, explain=False):
        row = out.loc[(signal.asset, signal.time)]
        assert signal.interval == {
            "low": row["interval_low"],
            "high": row["interval_high"],
            "level": 0.95,
        }
        held = [
            side for side, name in ((-1, "sell"), (0, "hold"), (1, "buy")) if row[f"set_{name}"]
        ]
        assert signal.sides == tuple(held)
        assert signal.skill["e_value"] == last["e_value"]
        assert signal.skill["bars"] == last["bars"]
        come = np.clip(np.log(last["e_value"]) / np.log(20), 0, 1)
        assert signal.skill["progress"] == pytest.approx(come)


def test_without_coverage_nothing_is_promised(copy, tiny_market):
    copy.record_.coverage_ = copy.coverage = None
    assert {(s.sides, len(s.interval)) for s in copy.signals(tiny_market.panel)} == {((), 0)}


@pytest.mark.parametrize(
    ("skill", "words"),
    [
        ({}, ""),
        ({"needed": 1.0}, ""),
        (
            {"e_value": 3.142, "needed": 20.0, "bars": 1812, "left": 713.0, "proven": False},
            "skill test: e = 3.14 of 20 after 1,812 bars; about 710 more at this pace",
        ),
        (
            {"e_value": 0.2, "needed": 20.0, "bars": 12, "left": None, "proven": False},
            "skill test: e = 0.2 of 20 after 12 bars; no skill so far",
        ),
        (
            {"e_value": 2345.6, "needed": 20.0, "bars": 12, "left": 0.0, "proven": True},
            "skill test: passed; e = 2.35e+03 of 20 after 12 bars",
        ),
    ],
)
def test_the_skill_test_is_told_in_a_sentence(skill, words):
    assert skill_sentence(skill) == words


# expiry


def daily(times, session=True):
    times = pd.DatetimeIndex(times, tz="UTC").as_unit("us")
    index = pd.MultiIndex.from_product([["A"], times], names=["asset", "time"])
    days = times.tz_localize(None).normalize() if session else pd.NaT
    return pd.DataFrame({"session": days}, index)


def test_daily_signals_expire_by_the_calendar_of_their_asset():
    friday = daily(["2024-03-28 20:00"])  # Good Friday follows, then a weekend
    step = pd.Timedelta(days=1)
    [us] = expiries(friday, Instruments(), 1, step)
    assert us == pd.Timestamp("2024-04-01 20:00", tz="UTC")
    [always] = expiries(friday, Instruments({"A": {"calendar": "24/7"}}), 1, step)
    assert always == pd.Timestamp("2024-03-30 00:00", tz="UTC")


def test_bars_of_minutes_expire_in_steps():
    minutes = daily(["2024-03-28 15:00", "2024-03-28 15:01"])
    step = pd.Timedelta(minutes=1)
    assert (
        list(expiries(minutes, Instruments(), 6, step) - minutes.index.unique("time"))
        == [6 * step] * 2
    )
    undated = daily(["2024-03-28 20:00"], session=False)
    [end] = expiries(undated, Instruments(), 2, pd.Timedelta(days=1))
    assert end == pd.Timestamp("2024-03-30 20:00", tz="UTC")


def test_an_expiry_does_not_move_when_more_bars_arrive():
    few = daily(["2024-03-27 20:00", "2024-03-28 20:00"])
    many = daily(["2024-03-27 20:00", "2024-03-28 20:00", "2024-04-01 20:00"])
    step = pd.Timedelta(days=1)
    assert list(expiries(few, Instruments(), 1, step)) == list(
        expiries(many, Instruments(), 1, step)[:2]
    )


# choosing rows


def test_rows_are_chosen_by_asset_by_day_and_by_instant(tiny_market):
    panel = tiny_market.panel
    when = pd.Timestamp("2000-05-17 21:00", tz="UTC")
    assert len(choose_rows(panel, "A1", None)) == 300
    assert choose_rows(panel, "A1", when).index.tolist() == [("A1", when)]
    assert len(choose_rows(panel, None, when)) == 4
    assert choose_rows(panel, None, when.normalize()).equals(choose_rows(panel, None, when))


def test_a_day_is_the_exchange_date_where_there_is_one():
    late = daily(["2024-03-29 00:00"]).assign(session=pd.Timestamp("2024-03-28"))
    assert len(choose_rows(late, None, pd.Timestamp("2024-03-28", tz="UTC"))) == 1
    with pytest.raises(DataError):
        choose_rows(late, None, pd.Timestamp("2024-03-29", tz="UTC"))


def test_a_row_that_is_not_there_is_refused_with_what_is(tiny_market):
    with pytest.raises(DataError, match="asset=A7") as error:
        choose_rows(tiny_market.panel, "A7", None)
    assert "2000-01-03 to 2001-02-23" in error.value.where
    assert "A3" in error.value.where
    with pytest.raises(DataError) as error:
        choose_rows(tiny_market.panel, "A22", None)
    assert error.value.cure == "did you mean A2?"
    sunday = pd.Timestamp("2001-02-18", tz="UTC")
    with pytest.raises(DataError, match="A1 at time=2001-02-18") as error:
        choose_rows(tiny_market.panel, "A1", sunday)
    word, _, _ = error.value.cure.partition(" ")
    nearest = pd.Timestamp(word.removeprefix("time="), tz="UTC")  # the cure, taken at its word
    assert len(choose_rows(tiny_market.panel, "A1", nearest)) == 1


# showing


def test_signals_show_themselves_in_a_notebook(signals):
    page = Signals(signals[:60])._repr_html_()
    assert page.count("<tr>") == 61
    assert all(f"<th>{name}</th>" in page for name in ("asset", "side", "confidence", "why"))
    hostile = Signals([replace(signals[0], asset="<script>")])._repr_html_()
    assert "<script>" not in hostile
    assert Signals()._repr_html_().startswith("<table>")


def test_a_hold_says_first_what_stopped_it(signals):
    rows = signals.frame()
    for signal, why in zip(signals, rows["why"], strict=True):
        first = (
            signal.why_not[0] if signal.status in ("hold", "abstain") else signal.reasons.text[0]
        )
        assert why.startswith(str(first))


def test_an_abstention_shows_no_figures(signals):
    row = signals.frame().iloc[0]
    assert row["status"] == "abstain"
    assert not any(row[["side", "confidence", "certainty", "epistemic", "aleatoric"]])


def test_the_newest_are_one_an_asset(signals):
    newest = signals.newest()
    assert [s.asset for s in newest] == ["A0", "A1", "A2", "A3"]
    assert all(s.time == max(t.time for t in signals) for s in newest)
