import io
import json
import re
from dataclasses import replace

import pandas as pd
import pytest
from omegaconf import OmegaConf
from rich.console import Console

from pipeline.data.sources import synthetic
from pipeline.evaluation import counted, judge
from pipeline.report import terminal
from pipeline.signals import Signals, interval_text, skill_sentence


@pytest.fixture
def printed(monkeypatch):
    """What goes to the terminal, 120 columns wide."""
    out = io.StringIO()
    monkeypatch.setattr(terminal, "console", Console(file=out, width=120))
    monkeypatch.setattr(terminal, "side", Console(file=out, width=120))
    return out.getvalue


@pytest.fixture(scope="module")
def source(tiny_market):
    return synthetic(tiny_market)


@pytest.fixture(scope="module")
def evaluation(tiny, source):
    return judge(tiny, tiny.unseen_, source.y, source, resamples=10)


@pytest.fixture(scope="module")
def signals(tiny, tiny_market):
    return tiny.signals(tiny_market.panel.groupby(level="asset").head(40), newest=False)


def test_no_accuracy_is_printed_without_base_rate_and_mcc(printed, evaluation):
    terminal.show_evaluation(evaluation)
    said = printed()
    assert f"base rate {evaluation.short('base_rate')}" in said
    header = next(line for line in said.splitlines() if "accuracy" in line)
    assert re.search(r"accuracy +mcc", header)
    for model in evaluation.table.index:
        cells = [evaluation.short(name, model) for name in ("accuracy", "mcc")]
        assert re.search(rf"{model} +" + " +".join(map(re.escape, filter(None, cells))), said)
    assert evaluation.short("discarded") in said


def test_a_stage_that_does_not_pay_is_said_not_to(printed, evaluation):
    [member, base] = evaluation.rivals
    assert base == "base rate"
    gap = {"value": -0.01, "low": -0.02, "high": -0.005}
    none, worse = gap | {"high": 0.01}, {"value": 0.01, "low": 0.005, "high": 0.02}
    for of_member, of_base, words in (
        (gap, gap, "Stage 3 pays. The pipeline beats the base rate."),
        (none, none, f"Stage 3 does not pay: it cannot be told from {member} alone. The pipeline "),
        (worse, worse, f"Stage 3 does not pay: {member} alone is better. The pipeline is worse"),
    ):
        rivals = {member: of_member, base: of_base}
        terminal.show_evaluation(replace(evaluation, rivals=rivals))
        said = printed()
        assert words in said
        assert f"log-loss less the best member's ({member})" in said


def test_a_sharpe_ratio_stands_beside_what_luck_leaves_of_it(printed, evaluation, source, tmp_path):
    terminal.show_evaluation(evaluation)
    assert "Sharpe" not in printed()  # never without the number of trials
    said = counted(evaluation, tmp_path, "train", "aa", source, 0)
    terminal.show_evaluation(said)
    text = " ".join(printed().split())
    assert re.search(r"Sharpe [+-]\d+\.\d\d \[.*\] a year, before costs: a book", text)
    assert "for 1 distinct trial in the ledger" in text
    assert "PBO needs 2 trials with common bars" in text
    second = counted(replace(evaluation, cost=10.0), tmp_path, "train", "bb", source, 0)
    terminal.show_evaluation(second)
    text = " ".join(printed().split())
    assert "after costs of 10.0 bps a round trip" in text
    assert re.search(r"for 2 distinct trials .* PBO 0\.50 of 2 trials on \d+ common bars", text)


def test_figures_come_as_json_when_asked(evaluation, source, capsys, tmp_path):
    said = counted(evaluation, tmp_path, "train", "aa", source, 0)
    terminal.show_evaluation(said, as_json=True)
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert said["part"] == "out-of-fold"
    assert (said["luck"]["trials"], said["luck"]["overfitting"]) == (1, None)
    assert said["metrics"]["pipeline"]["sharpe"]["value"] == pytest.approx(
        said["luck"]["sharpe"], rel=1e-4
    )
    assert {"accuracy", "base_rate", "mcc"} <= said["metrics"]["pipeline"].keys()


def test_the_newest_signal_of_each_asset_is_shown(printed, signals, source):
    terminal.show_signals(signals, source)
    said = printed()
    for signal in signals.newest():
        assert f"{signal.confidence:.1%}" in said
        assert signal.reasons.text[0] in said
    assert "156 of older bars not shown" in said
    assert terminal.UNPROVEN in said.replace("\n", " ")
    assert skill_sentence(signals.newest()[0].skill) in said


def test_of_very_many_signals_the_firmest_are_shown(printed, signals, source):
    silent, hold = signals[0], next(s for s in signals if s.status == "hold")
    lukewarm = replace(next(s for s in signals if s.status == "unproven"), certainty=0.8)
    many = [replace(s, asset=f"{i:03d}") for i in range(20) for s in (silent, hold, lukewarm)]
    many = [replace(s, asset=f"{s.status[0]}{s.asset}") for s in many]
    terminal.show_signals(Signals([*many, replace(lukewarm, asset="sure", certainty=0.99)]), source)
    said = printed()
    assert all(f"u{i:03d}" in said for i in range(20))
    assert said.index("sure") < said.index("u000") < said.index("h000")
    assert "a000" not in said
    assert "(21 less firm not shown: output=signals.jsonl writes all)" in said.replace("\n", " ")


def test_sets_and_intervals_are_shown_where_they_are_promised(printed, signals, source):
    [one] = signals.newest()[:1]
    promised = {"interval": {"low": -0.031, "high": 0.042, "level": 0.95}, "sides": (0, 1)}
    terminal.show_signals(Signals([replace(one, interval={}, sides=())]), source)
    assert "holds" not in printed()
    terminal.show_signals(Signals([replace(one, **promised)]), source)
    assert "holds 95%" in printed()
    assert "HOLD BUY" in printed()
    assert interval_text(promised["interval"]) in printed()


def test_a_hold_and_an_abstention_say_first_what_stopped_them(printed, signals, source):
    silent, hold = signals[0], next(s for s in signals if s.status == "hold")
    other = replace(hold, asset="B")
    terminal.show_signals(Signals([silent, other]), source)
    said = re.sub(r"\s+", " ", printed())
    assert f"abstain: {silent.why_not[0]}" in said
    assert f"hold: {hold.why_not[0]}" in said
    assert "nan" not in said
    assert "1 abstain, 1 hold" in said


def test_survivors_are_named_as_such(printed, signals, source):
    terminal.show_signals(signals.newest(), replace(source, survivors=True))
    assert terminal.SURVIVORS in printed().replace("\n", " ").replace("  ", " ")
    assert terminal.about(source) == "Signals are estimates, not advice."


def test_the_reasons_of_one_signal_add_up_on_screen(printed, signals):
    signal = next(s for s in signals if s.reasons)
    terminal.show_reasons(signal, top=3)
    said = printed()
    rows = re.findall(r"^ *(\S+|\d+ others) +([+-]\d+\.\d{4}) *$", said, re.M)
    pushes = [float(push) for _, push in rows[:5]]
    names = [name for name, _ in rows]
    assert names[0] == "baseline"
    assert names[4] == f"{len(signal.reasons.contributions) - 3} others"
    assert names[5] == "margin"
    assert sum(pushes) == pytest.approx(signal.reasons.margin, abs=3e-4)
    assert f"why not: {signal.why_not[0]}" in said
    terminal.show_reasons(signal, top=99)
    assert "0 others" not in printed()


def test_an_abstention_has_no_reasons_to_show(printed, signals):
    terminal.show_reasons(signals[0], top=3)
    assert f"abstain ({signals[0].why_not[0]})" in printed()


def test_the_data_and_their_faults_are_named(printed, source):
    terminal.say_source(source)
    assert "synthetic: 1,200 bars of 4 assets, 2000-01-03 to 2001-02-23" in printed()


def test_an_update_says_what_it_learnt_and_what_it_made(printed, tmp_path):
    counts = {"learned": 1200, "known": 8, "incomplete": 0}
    terminal.show_update(counts, tmp_path, "ab" * 32)
    assert "1,200 new labels learnt, 8 known before\n" in printed()
    assert "made from abababababababab" in printed()
    terminal.show_update({**counts, "learned": 0, "incomplete": 3}, tmp_path, "ab" * 32)
    assert "3 with too short a history" in printed()
    assert "unchanged" in printed()


# what identifies a prediction


def cfg_with(**changes):
    data = {"path": "a.csv", "start": None, "calendar": "XNYS", "columns": {"close": "c"}}
    rest = {"as_of": None, "explain_rows": True}
    data |= {k: v for k, v in changes.items() if k in data}
    rest |= {k: v for k, v in changes.items() if k in rest}
    return OmegaConf.create({"data": data, "root": "x", **rest})


def test_where_bars_lie_does_not_change_what_a_signal_is():
    same = terminal.config_digest(cfg_with())
    assert terminal.config_digest(cfg_with(path="b.csv", start="2020-01-01")) == same
    for change in ({"calendar": "XLON"}, {"as_of": "2022-01-01"}, {"explain_rows": False}):
        assert terminal.config_digest(cfg_with(**change)) != same
    explaining = OmegaConf.create({"data": cfg_with().data})  # the command that has no such keys
    assert terminal.config_digest(explaining) == same


def test_steps_are_named_as_they_are_taken(capsys):
    with terminal.steps() as step:
        step("one thing")
        step("another")
    assert "one thing" in capsys.readouterr().err
    with terminal.steps(quiet=True) as step:
        step("unheard")
    with terminal.steps():
        pass
    assert "unheard" not in capsys.readouterr().err


def test_the_machine_is_described_for_the_record():
    facts = terminal.machine()
    assert pd.Timestamp(facts["made"]).tz is not None
    assert json.dumps(facts)


def test_a_path_is_shown_from_here_where_it_lies_below(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert terminal.relative(tmp_path / "a" / "b") == "a/b"
    assert terminal.relative(tmp_path.parent) == str(tmp_path.parent)
