"""Pictures of reasons, and the page of one signal: what is drawn is what the signal says."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.inquiry import Ask
from pipeline.report.reasons import (
    POINTS,
    beeswarm,
    digits,
    lag_map,
    pushes_of,
    stage_flow,
    waterfall,
)
from pipeline.report.signal_page import opinions, page_name, past, write_signal_page
from stages.signal import SIDE_TEXT, Lag, WhyNot
from tests.pipeline.report.test_page import LIMIT, Elements

MIDNIGHT = pd.Timestamp("2000-12-28", tz="UTC")


@pytest.fixture(scope="module")
def found(tiny, tiny_market):
    [one] = tiny.inquire(tiny_market.panel, "A2", MIDNIGHT, Ask(lime=True))
    return one


@pytest.fixture(scope="module")
def signal(found):
    return found.signal


# figures


@pytest.mark.parametrize("by", ["contributions", "by_family", "by_stage"])
def test_every_waterfall_runs_from_the_baseline_to_the_margin(signal, by):
    bars = waterfall(signal, by).data[0]
    assert (bars.y[0], bars.y[-1]) == ("baseline", "margin")
    assert bars.x[0] == signal.reasons.baseline
    assert bars.x[-1] == signal.reasons.margin
    assert sum(bars.x[:-1]) == pytest.approx(bars.x[-1], abs=1e-3)
    sizes = np.abs(bars.x[1:-1])
    assert (np.diff(sizes) <= 0).all()


def test_small_pushes_keep_their_digits():
    assert digits([0.5, -0.0003]) == 3
    assert f"{0.000452:+.{digits([0.000452])}f}" == "+0.000452"
    assert digits([]) == digits([0.0]) == 3
    assert digits([123.0]) == 3


def test_the_map_of_bars_holds_each_part_where_and_as_large_as_it_is(signal):
    parts = (Lag("x0", 0, 0.4), Lag("x4", 5, -0.1), Lag("x4", 1, 0.05), Lag("x0", 3, 0.025))
    drawn = lag_map(replace(signal, reasons=replace(signal.reasons, lags=parts))).data[0]
    assert drawn.x == tuple(range(-5, 1))
    assert drawn.y == ("x0", "x4")
    told = {
        (drawn.y[r], -drawn.x[c]): drawn.customdata[r][c]
        for r, c in zip(*np.nonzero(np.isfinite(drawn.customdata)), strict=True)
    }
    assert told == {(part.feature, part.lag): part.push for part in parts}
    assert drawn.z[0][5] == 1  # the largest has full colour
    assert drawn.z[1][0] == pytest.approx(-0.5)
    with pytest.raises(ValueError, match="tell no single bars"):
        lag_map(replace(signal, reasons=replace(signal.reasons, lags=())))


def test_the_flow_goes_through_all_stages_to_the_odds(signal):
    line, odds = stage_flow(signal).data
    lean = signal.reasons.side
    views = [lean * signal.stages[name] for name in ("filter", "refiner", "ensemble")]
    np.testing.assert_allclose(line.y, 1 / (1 + np.exp(-np.array(views))))
    assert dict(zip(odds.x, odds.y, strict=True)) == {
        SIDE_TEXT[side]: p for side, p in signal.probabilities.items()
    }
    [full] = [x for x, seen in zip(odds.x, odds.marker.opacity, strict=True) if seen == 1]
    assert full == SIDE_TEXT[signal.side]


def test_a_stage_that_was_left_out_is_not_on_the_way(signal):
    stopped = replace(signal, stages={**signal.stages, "refiner": None, "gate": False})
    line, _ = stage_flow(stopped).data
    assert len(line.x) == 2
    assert not any("refiner" in x for x in line.x)


def test_a_swarm_shows_every_row_at_its_push_and_keeps_points_apart(tiny, tiny_market):
    panel = tiny.panel(tiny_market.panel)
    rows = panel.index[panel["ready"]][-60:]
    why = tiny.explain(tiny_market.panel, rows)
    figure = beeswarm(why.contributions, panel)
    order = why.contributions.abs().mean().sort_values(ascending=False).index
    assert figure.layout.yaxis.ticktext == tuple(order[: len(figure.data)])
    first = figure.data[0]
    np.testing.assert_array_equal(first.x, why.contributions[order[0]])
    assert np.abs(np.asarray(first.y)).max() <= 0.4 + 1e-9
    assert len({(round(x, 9), round(y, 9)) for x, y in zip(first.x, first.y, strict=True)}) == 60
    place = panel.loc[rows, f"feature.{order[0]}"].rank()
    assert np.corrcoef(first.marker.color, place)[0, 1] == pytest.approx(1)


def test_a_swarm_of_very_many_rows_is_thinned(tiny_market):
    many = tiny_market.contributions.rename(columns=lambda name: name.removeprefix("feature."))
    figure = beeswarm(many)
    assert len(many) > POINTS
    assert {len(row.x) for row in figure.data} == {POINTS}


def test_pushes_of_signals_are_those_of_buy_against_sell(tiny, tiny_market):
    signals = tiny.signals(tiny_market.panel)
    table = pushes_of(signals)
    rows = pd.MultiIndex.from_tuples([(s.asset, s.time) for s in signals])
    why = tiny.explain(tiny_market.panel, rows)
    np.testing.assert_allclose(table[list(why.contributions)], why.contributions, atol=1e-12)
    with pytest.raises(ValueError, match="no signal carries reasons"):
        pushes_of([replace(s, reasons=None) for s in signals])


def test_the_past_is_drawn_as_it_ended(found):
    figure = past(found.episodes)
    drawn = {(x, y) for side in figure.data for x, y in zip(side.x, side.y, strict=True)}
    assert drawn == {(e.distance, e.ret) for e in found.episodes.episodes}
    counts = {side.name: len(side.x) for side in figure.data}
    ended = [SIDE_TEXT[e.side] for e in found.episodes.episodes]
    assert counts == {f"ended as {name}": ended.count(name) for name in SIDE_TEXT.values()}


def test_both_opinions_are_drawn_for_the_side_that_leads(found):
    reasons = found.signal.reasons
    push, lime = opinions(reasons, found.lime).data
    assert list(push.x) == [reasons.contributions[name] for name in push.y]
    assert list(lime.x) == [reasons.side * found.lime.effects[name] for name in push.y]


@pytest.mark.parametrize("draw", [waterfall, lag_map])
def test_a_signal_without_reasons_has_no_picture_of_them(signal, draw):
    with pytest.raises(ValueError, match="carries no reasons"):
        draw(replace(signal, reasons=None))


# the page of one signal


@pytest.fixture(scope="module")
def page(found, tmp_path_factory):
    path = tmp_path_factory.mktemp("signal") / "below" / "signal.html"
    write_signal_page(path, found, "Not advice & nothing <else>.")
    return path


@pytest.fixture(scope="module")
def elements(page):
    return Elements(page.read_text(encoding="utf-8"))


def test_the_page_of_a_signal_is_whole_small_and_asks_nothing_of_the_network(page, elements):
    assert page.stat().st_size < LIMIT
    assert elements.open == []
    for tag, attributes in elements.tags:
        assert tag not in ("link", "iframe", "img", "object", "form")
        assert not {"src", "href", "action", "data"} & set(attributes), (tag, attributes)
    [policy] = [a["content"] for t, a in elements.tags if a.get("http-equiv")]
    assert "default-src 'none'" in policy


def test_a_page_is_named_by_asset_and_time_and_stays_in_its_folder(signal):
    assert page_name(signal) == "A2_20001228T2100.html"
    assert page_name(replace(signal, asset="../BTC/USD")) == "..-BTC-USD_20001228T2100.html"


def test_the_page_says_all_that_was_found(found, elements):
    signal, text = found.signal, elements.text
    told = [signal.asset, signal.status, signal.model[:16], signal.reasons.references]
    told += [f"{signal.confidence:.1%}", f"{signal.certainty:.3f}", found.sentence.text]
    told += [found.change.text, found.episodes.text, found.lime.text]
    told += [check.text for check in found.change.checks]
    told += [move.name for move in found.change.moves]
    told += [e.time[:10] for e in found.episodes.episodes[:10]]
    for words in told:
        assert " ".join(words.split()) in text, words
    heads = ("From stage to stage", "Inputs", "When", "Kinds of input", "Members")
    places = [text.index(head) for head in heads]
    assert places == sorted(places)
    assert "Not advice & nothing <else>." in text


def test_the_page_draws_each_view_once(page):
    text = page.read_text(encoding="utf-8")
    assert text.count('"type":"waterfall"') == 3
    assert text.count("Plotly.newPlot(") >= 7


def test_what_was_not_asked_is_left_out(tiny, tiny_market, tmp_path):
    ask = Ask(why_not=False, episodes=0, effort="fast")
    [bare] = tiny.inquire(tiny_market.panel, "A2", MIDNIGHT, ask)
    write_signal_page(tmp_path / "bare.html", bare, "")
    text = Elements((tmp_path / "bare.html").read_text()).text
    assert "From stage to stage" in text
    for head in ("had to be different", "last looked like this", "second opinion"):
        assert head not in text
    fidelity = bare.signal.reasons.fidelity
    assert f"correlation of {fidelity['correlation']:.4f} with full ones" in text


def test_an_abstention_says_why_and_draws_nothing(tiny, tiny_market, tmp_path):
    [none] = tiny.inquire(tiny_market.panel, "A2", pd.Timestamp("2000-01-04", tz="UTC"))
    write_signal_page(tmp_path / "none.html", none, "")
    html = (tmp_path / "none.html").read_text()
    text = Elements(html).text
    assert "abstain" in text
    assert "history" in text
    assert 'class="plotly-graph-div"' not in html
    assert "nan" not in text
    assert "Confidence is" not in text
    with pytest.raises(ValueError, match="abstains"):
        stage_flow(none.signal)


def test_a_hold_says_to_which_side_it_leans(found, tmp_path):
    hold = replace(
        found.signal,
        side=0,
        status="hold",
        confidence=found.signal.probabilities[0],
        strength=None,
        why_not=(WhyNot("certainty", "certainty 0.50 < 0.80", 0.5, 0.8),),
    )
    write_signal_page(tmp_path / "hold.html", replace(found, signal=hold), "")
    text = Elements((tmp_path / "hold.html").read_text()).text
    assert f"HOLD leans {SIDE_TEXT[hold.reasons.side]}" in text


def test_hostile_names_stay_text(found, tmp_path):
    name = "</script><script>alert(1)</script>"
    reasons = replace(
        found.signal.reasons,
        contributions={name: sum(found.signal.reasons.contributions.values())},
        by_stage={name: 0.1},
        by_family={name: 0.1},
        lags=(Lag(name, 3, 0.1),),
        text=(name,),
    )
    hostile = replace(found.signal, asset=name, reasons=reasons)
    lime = replace(found.lime, effects={name: 0.1}, text=name)
    past_of = replace(
        found.episodes, episodes=tuple(replace(e, asset=name) for e in found.episodes.episodes)
    )
    inquiry = replace(
        found,
        signal=hostile,
        sentence=replace(found.sentence, text=name),
        lime=lime,
        episodes=past_of,
    )
    write_signal_page(tmp_path / "page.html", inquiry, name)
    assert "<script>alert" not in (tmp_path / "page.html").read_text()
