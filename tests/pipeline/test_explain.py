"""What is said of single signals beyond the signals themselves, from objects and commands."""

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.inquiry import Ask
from pipeline.report.shap_values import to_shap
from stages.base import ConfigError, DataError
from tests.conftest import PLANTED, command

ROW = ("A2", pd.Timestamp("2000-12-28T21:00Z").as_unit("us"))
MIDNIGHT = pd.Timestamp("2000-12-28", tz="UTC")


def words(trained, *more):
    return "explain", *PLANTED, f"root={trained[0]}", "asset=A2", "time=2000-12-28", *more


@pytest.fixture(scope="module")
def found(tiny, tiny_market):
    [one] = tiny.inquire(tiny_market.panel, "A2", MIDNIGHT, Ask(lime=True))
    return one


# objects


def test_the_signal_asked_about_is_the_one_that_was_given(tiny, tiny_market, found):
    [signal] = [
        s for s in tiny.signals(tiny_market.panel, newest=False) if (s.asset, s.time) == ROW
    ]
    assert replace(found.signal, reasons=None) == replace(signal, reasons=None)


def test_the_change_that_is_told_turns_the_decision_of_the_pipeline(tiny, tiny_market, found):
    change = found.change if found.change.moves else found.lean
    assert change.moves
    window = tiny.panel(tiny_market.panel)
    before = tiny.judged(tiny.stack_.predict(window)).loc[ROW]
    after = tiny.judged(tiny.stack_.predict(change.applied(window))).loc[ROW]
    if change is found.change:
        assert before["side"] == found.signal.side != after["side"] == change.becomes
    else:
        assert np.sign(before["margin"]) == -np.sign(after["margin"])


def test_checks_name_each_thing_that_stood_in_the_way_with_its_figures(found):
    keys = [w.key for w in found.signal.why_not]
    assert [c.key for c in found.change.checks] == keys
    for check, said in zip(found.change.checks, found.signal.why_not, strict=True):
        if said.value is not None:
            assert check.distance == pytest.approx(abs(said.value - said.limit))


def test_where_nothing_turns_a_decision_it_says_what_turns_the_lean(tiny, tiny_market):
    strict = replace_decide(tiny, certainty=1.0)
    [one] = strict.inquire(tiny_market.panel, "A2", MIDNIGHT, Ask(episodes=0))
    assert one.signal.side == 0
    assert not one.change.moves
    assert "No change of" in one.change.text
    assert one.lean.target == "lean"
    assert "lead over" in one.lean.text


def replace_decide(pipeline, **settings):
    """The same fitted pipeline with another decision; the fixture stays as it was."""
    other = object.__new__(type(pipeline))
    other.__dict__.update(pipeline.__dict__)
    other.decide = replace(pipeline.decide, **settings)
    return other


def test_episodes_were_over_when_the_row_was_known(found):
    assert len(found.episodes.episodes) == 20
    distances = [e.distance for e in found.episodes.episodes]
    assert distances == sorted(distances)
    assert all(pd.Timestamp(e.ended) <= ROW[1] for e in found.episodes.episodes)


def test_the_sentence_names_inputs_that_push_the_way_it_says(found):
    pushes = found.signal.reasons.contributions
    assert found.sentence.supports
    assert all(pushes[name] > 0 for name in found.sentence.supports)
    assert all(pushes[name] < 0 for name in found.sentence.opposes)


def test_a_second_opinion_is_on_full_reasons_whatever_is_shown(tiny, tiny_market, found):
    ask = Ask(why_not=False, episodes=0, lime=True, effort="fast")
    [one] = tiny.inquire(tiny_market.panel, "A2", MIDNIGHT, ask)
    assert (one.change, one.lean, one.episodes) == (None, None, None)
    assert one.lime == found.lime


def test_an_abstention_says_what_it_lacks_and_nothing_else(tiny, tiny_market):
    [one] = tiny.inquire(tiny_market.panel, "A2", pd.Timestamp("2000-01-04", tz="UTC"))
    assert one.sentence.text.startswith("No view: history")
    assert (one.change, one.lean, one.episodes, one.lime) == (None, None, None, None)


def test_an_exact_midnight_is_not_a_whole_day(tiny, tiny_market):
    with pytest.raises(DataError, match="no bar of A2"):
        tiny.inquire(tiny_market.panel, "A2", MIDNIGHT, exact=True)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="episodes >= 0"):
        Ask(episodes=-1)
    with pytest.raises(ValueError, match="effort full or fast"):
        Ask(effort="some")


# shap


def test_shap_values_add_up_and_draw(found, tiny, tiny_market):
    shap = pytest.importorskip("shap")
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    panel = tiny.panel(tiny_market.panel)
    one = to_shap(found.signal, panel)
    why = found.signal.reasons
    assert one.base_values + one.values.sum() == pytest.approx(why.margin, abs=1e-5)
    at = one.feature_names.index("x0")
    assert one.data[at] == panel.loc[ROW, "feature.x0"]
    assert one.values[at] == why.contributions["x0"]
    shap.plots.waterfall(one, show=False)
    signals = tiny.signals(tiny_market.panel)
    many = to_shap(signals, panel)
    margins = [s.reasons.side * s.reasons.margin for s in signals]
    assert {s.reasons.side for s in signals} == {-1, 1}
    np.testing.assert_allclose(many.base_values + many.values.sum(axis=1), margins, atol=1e-5)
    shap.plots.beeswarm(many, show=False)
    shap.plots.scatter(many[:, "x0"], show=False)
    plt.close("all")


def test_without_shap_it_says_what_to_install(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(ConfigError, match="shap is not installed") as refused:
        to_shap(found.signal)
    assert "pip install" in refused.value.cure


def test_signals_without_reasons_have_no_shap_values(found):
    pytest.importorskip("shap")
    with pytest.raises(DataError, match="no signal carries reasons"):
        to_shap([replace(found.signal, reasons=None)])


# the command


def test_the_command_prints_every_part(trained):
    ended = command(*words(trained, "lime=true"))
    assert ended.code == 0, ended.err
    heads = (
        "A2 2000-12-28 21:00 UTC",
        "in one sentence",
        "what would have had to be different",
        "when it last looked like this",
        "a second opinion",
    )
    places = [ended.out.index(head) for head in heads]
    assert places == sorted(places)
    assert "most similar rows of the past" in ended.out
    assert "LIME" in ended.out
    bare = command(*words(trained, "why_not=false", "episodes=0"))
    assert heads[1] in bare.out
    assert not any(head in bare.out for head in heads[2:])


def test_json_carries_it_as_plain_values_and_an_id_leads_back(trained):
    ended = command(*words(trained, "json=true", "lime=true"))
    [record] = json.loads(ended.out, parse_constant=pytest.fail)
    inquiry = record["inquiry"]
    assert inquiry["sentence"]["text"]
    assert len(inquiry["episodes"]["episodes"]) == 20
    assert inquiry["change"]["asset"] == inquiry["lime"]["asset"] == "A2"
    name = f"signal={record['asset']}|{record['time']}|{record['model']}"
    again = command("explain", *PLANTED, f"root={trained[0]}", "json=true", "lime=true", name)
    assert again.code == 0, again.err
    assert json.loads(again.out) == [record]


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["effort=some"], 2, "effort=some is neither fast nor full"),
        (["why_not=perhaps"], 2, "why_not=perhaps is neither true nor false"),
        (["episodes=-1"], 2, "episodes=-1 is no whole number of at least 0"),
        (["signal=A2|2000-12-28"], 2, "is no id"),
        ([f"signal=A2|2000-12-28T21:00:00Z|{'0' * 64}"], 2, "does not stand alone"),
    ],
)
def test_a_wrong_request_is_refused(trained, more, code, said):
    ended = command(*words(trained, *more))
    assert ended.code == code, ended.out
    assert said in " ".join(ended.err.split())
