"""What is said of single signals beyond the signals themselves, from objects and commands."""

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.inquiry import Ask
from pipeline.report.shap_values import to_shap
from pipeline.signals_io import from_record
from pipeline.store.signal_store import SignalStore
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


def test_a_record_is_what_json_gives_back(found):
    record = found.record()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["sentence"]["supports"] == list(found.sentence.supports)
    assert record["lime"]["effects"] == found.lime.effects
    lost = replace(found, lime=replace(found.lime, fit=np.nan))
    with pytest.raises(ValueError, match="JSON"):
        lost.record()


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


@pytest.fixture
def stored(trained, tmp_path):
    """A store of the newest signals, as predict leaves it."""
    url = str(tmp_path / "signals.db")
    ended = command("predict", *PLANTED, f"root={trained[0]}", f"store={url}")
    assert ended.code == 0, ended.err
    return url


def explained(trained, *more):
    ended = command("explain", *PLANTED, f"root={trained[0]}", "json=true", *more)
    assert ended.code == 0, ended.err
    return json.loads(ended.out, parse_constant=pytest.fail), ended.err


def test_what_was_found_is_stored_with_its_signal_once(trained, stored):
    ask = "asset=A2", f"store={stored}"
    [record], said = explained(trained, *ask, "lime=true")
    assert "1 inquiries: 1 new in the store" in " ".join(said.split())
    again, said = explained(trained, *ask, "lime=true")
    assert again == [record]
    assert "1 inquiries: 0 new in the store" in " ".join(said.split())
    with SignalStore(stored) as store:
        [signal] = store.latest(9, asset="A2")
        assert signal.row["config"] == record["config"]
        [event] = store.events(kind="inquiry")
        asked = {"why_not": True, "episodes": 20, "lime": True, "effort": "full"}
        assert event == store.inquiry(signal.id)
        assert event.details == {"asked": asked, **record["inquiry"]}
        assert record["inquiry"]["lime"]["effects"]
    explained(trained, *ask, "why_not=false", "episodes=0", "effort=fast")
    with SignalStore(stored) as store:
        found = store.inquiry(signal.id).details
        assert found["asked"]["effort"] == "fast"
        assert (found["change"], found["episodes"], found["lime"]) == (None, None, None)
        assert len(store.events(kind="inquiry")) == 2
        assert store.verify().signals == 4


def test_of_signals_that_are_not_all_stored_none_is_told(trained, stored, tmp_path):
    with SignalStore(stored) as store, SignalStore(str(tmp_path / "part.db")) as part:
        part.append([one.signal for one in store.latest(9) if one.asset != "A3"], "c")
        bare = ("why_not=false", "episodes=0", "effort=fast")
        all_of = ("explain", *PLANTED, f"root={trained[0]}", *bare)
        ended = command(*all_of, f"store={tmp_path}/part.db")
        assert ended.code == 5
        said = " ".join(ended.err.split())
        assert "SV-X533" in said
        assert "no signal of A3 at" in said
        assert part.events(kind="inquiry") == []
        ended = command(*all_of, f"store={stored}")
        assert ended.code == 0, ended.err
        assert [e.signal for e in store.events(kind="inquiry")] == [1, 2, 3, 4]
        assert "in one sentence" in ended.out


def test_of_an_abstention_its_sentence_is_stored(trained, tmp_path):
    url, ask = str(tmp_path / "signals.db"), ("asset=A2", "time=2000-01-04")
    [record], _ = explained(trained, *ask)
    assert record["status"] == "abstain"
    with SignalStore(url) as store:
        store.append([from_record(record)], record["config"])
        explained(trained, *ask, f"store={url}")
        found = store.inquiry(1).details
    assert found["sentence"]["text"].startswith("No view: history")
    assert [found[name] for name in ("change", "lean", "episodes", "lime")] == [None] * 4


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["effort=some"], 2, "effort=some is neither fast nor full"),
        (["why_not=perhaps"], 2, "why_not=perhaps is neither true nor false"),
        (["episodes=-1"], 2, "episodes=-1 is no whole number of at least 0"),
        (["signal=A2|2000-12-28"], 2, "is no id"),
        ([f"signal=A2|2000-12-28T21:00:00Z|{'0' * 64}"], 2, "does not stand alone"),
        (["global=true", "store=signals.db"], 2, "global=true is about a model"),
        (["store=mysql://there", "model=nowhere"], 2, "a store is a SQLite file or a PostgreSQL"),
    ],
)
def test_a_wrong_request_is_refused(trained, more, code, said):
    ended = command(*words(trained, *more))
    assert ended.code == code, ended.out
    assert said in " ".join(ended.err.split())
