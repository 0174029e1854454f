from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from omegaconf import OmegaConf
from scipy.stats import norm

from stages.base import ConfigError, DataError
from stages.ensemble.decide import Decide
from stages.ensemble.edge import certainty, required_edge
from stages.signal import KEYS, Signal, WhyNot

CONF = Path(__file__).parents[3] / "conf"


def judged(**columns) -> pd.DataFrame:
    """A panel of one asset: confident buys, but for the columns given."""
    length = max(np.size(values) for values in columns.values()) if columns else 1
    rows = {"p_sell": 0.1, "p_hold": 0.2, "p_buy": 0.7, "margin": 1.9, "margin_sd": 0.5}
    rows |= {"filter.gate": 1.0, "ready": True, **columns}
    time = pd.date_range("2020-01-01", periods=length, tz="UTC").as_unit("us")
    asset = pd.Index(["A"] * length, dtype="str")
    index = pd.MultiIndex.from_arrays([asset, time], names=["asset", "time"])
    panel = pd.DataFrame({k: np.broadcast_to(v, length) for k, v in rows.items()}, index)
    return panel if "certainty_buy" in panel else panel.assign(**certainties(panel))


def certainties(panel) -> dict[str, np.ndarray]:
    """What an ensemble would have said of these margins."""
    edge = required_edge(panel) if "scale" in panel else np.zeros(len(panel))
    inputs = (panel[name].to_numpy("float64") for name in ("margin", "margin_sd", "p_hold"))
    sell, buy = certainty(*inputs, edge)
    return {"certainty_sell": sell, "certainty_buy": buy}


def texts(row) -> list[str]:
    return [why.text for why in row["why_not"]]


PROVEN = {"skill.e_value": 25.0, "skill.needed": 20.0, "skill.bars": 400.0, "skill.proven": 1.0}


def test_a_sure_buy_is_unproven_until_skill_is_shown():
    row = Decide().decide(judged()).iloc[0]
    assert (row["side"], row["status"], row["strength"]) == (1, "unproven", "strong")
    assert texts(row) == ["skill: not tested"]
    proven = Decide().decide(judged(**PROVEN)).iloc[0]
    assert (proven["side"], proven["status"], proven["why_not"]) == (1, "fired", ())


def test_an_unproven_side_says_how_far_the_skill_test_has_come():
    so_far = PROVEN | {"skill.e_value": 3.19, "skill.bars": 812.0, "skill.proven": 0.0}
    [why] = Decide().decide(judged(**so_far))["why_not"].iloc[0]
    assert why == WhyNot("skill", "skill: e-value 3.1 < 20 after 812 bars", 3.19, 20.0)


def test_skill_is_judged_by_what_was_known_at_each_row():
    said = Decide().decide(judged(**PROVEN | {"skill.proven": np.array([0.0, 1.0, 0.0])}))
    assert said["status"].tolist() == ["unproven", "fired", "unproven"]


def test_a_hold_does_not_mention_skill():
    [why] = Decide().decide(judged(**{"filter.gate": 0.0}))["why_not"].iloc[0]
    assert why.key == "gate"


def test_sell_mirrors_buy():
    mirrored = judged(p_sell=0.7, p_buy=0.1, margin=-1.9)
    buy, sell = Decide().decide(judged()).iloc[0], Decide().decide(mirrored).iloc[0]
    assert sell["side"] == -buy["side"] == -1
    assert sell["certainty"] == buy["certainty"]


def test_certainty_is_the_chance_that_the_margin_pays_its_cost():
    panel = judged(margin=0.5, margin_sd=0.4, cost=0.001, scale=0.01)
    found = Decide().decide(panel)["certainty"].iloc[0]
    e = 0.1 / 0.8  # of the moves, for a fifth of the labels holds
    assert found == pytest.approx(norm.cdf((0.5 - np.log((1 + e) / (1 - e))) / 0.4))


def test_a_dearer_trade_is_less_certain_until_it_cannot_pay():
    costs = np.array([0, 0.001, 0.005, 0.007, 0.01, 0.02])
    said = Decide().decide(judged(cost=costs, scale=0.01))
    assert (np.diff(said["certainty"]) <= 0).all()
    assert said["certainty"].iloc[-2:].tolist() == [0, 0]
    assert texts(said.iloc[-1]) == ["cost: above the return at stake"]
    assert said["status"].iloc[-1] == "hold"


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"filter.gate": 0.0}, "gate: score below threshold"),
        ({"margin": 0.14, "margin_sd": 0.5}, "certainty 0.61 < 0.80"),
        ({"margin": 0.4199, "margin_sd": 0.5}, "certainty 0.79 < 0.80"),
        ({"p_hold": 0.6, "p_buy": 0.3}, "confidence 0.30 < 0.60 of HOLD"),
        ({"novelty": 3.004}, "novelty 3.01 > 3.00"),
    ],
)
def test_a_hold_says_what_stopped_it(columns, reason):
    row = Decide().decide(judged(**columns)).iloc[0]
    assert (row["side"], row["status"]) == (0, "hold")
    assert texts(row) == [reason]
    assert row["strength"] is None
    assert 0 <= row["certainty"] <= 1


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"ready": False}, "history: incomplete"),
        ({"p_buy": np.nan}, "inputs: a stage says nothing about this row"),
        ({"cost": 0.001, "scale": np.nan}, "cost: the return at stake is unknown"),
    ],
)
def test_what_cannot_be_judged_abstains(columns, reason):
    row = Decide().decide(judged(**columns)).iloc[0]
    assert row["side"] is pd.NA
    assert row["status"] == "abstain"
    assert np.isnan(row["certainty"])
    assert texts(row) == [reason]


def test_every_reason_is_there_for_machines_too():
    odd = judged(p_hold=0.6, p_buy=0.3, margin=0.14, novelty=4.0, epistemic=0.03)
    found = Decide(max_epistemic=0.02).decide(odd)["why_not"].iloc[0]
    assert [why.key for why in found] == ["certainty", "confidence", "novelty", "uncertainty"]
    assert set(KEYS) >= {why.key for why in found}
    for why in found:
        assert why.text.startswith(why.key)
        assert (why.value < why.limit) == (" < " in why.text)
        assert (why.value > why.limit) == (" > " in why.text)
    assert found[3].text == "uncertainty 0.0300 > 0.0200"


def test_a_row_far_from_the_training_holds_unless_that_is_allowed():
    panel = judged(novelty=np.array([0.9, 2.99, 3.0, 3.01, np.nan]))
    sides = Decide().decide(panel)["side"].tolist()
    assert sides == [1, 1, 1, 0, 1]  # a model without features knows no distance
    assert Decide(max_novelty=None).decide(panel)["side"].tolist() == [1] * 5


def test_too_much_epistemic_doubt_holds_where_there_is_a_limit():
    panel = judged(epistemic=np.array([0.01, 0.05]))
    assert Decide().decide(panel)["side"].tolist() == [1, 1]
    assert Decide(max_epistemic=0.02).decide(panel)["side"].tolist() == [1, 0]


def test_floors_go_by_asset_class():
    decide = Decide(floors={"option": 0.9})
    assert decide.floor(["equity", "option"]).tolist() == [0.8, 0.9]
    other = Decide(floors={"option": 0.9, "default": 0.6})
    assert other.floor(["equity", "option", "etf"]).tolist() == [0.6, 0.9, 0.6]
    strict = Decide(profile="strict", floors={"option": 0.7})
    assert strict.floor(["equity", "option"]).tolist() == [0.65, 0.7]
    sure = {"certainty_sell": 0.1, "certainty_buy": 0.85}
    said = decide.decide(judged(**sure, floor=np.array([0.8, 0.9])))
    assert said["side"].tolist() == [1, 0]
    assert texts(said.iloc[1]) == ["certainty 0.85 < 0.90"]
    said = strict.decide(judged(p_sell=0.1, p_hold=0.22, p_buy=0.68, floor=np.array([0.65, 0.7])))
    assert said["side"].tolist() == [1, 0]
    assert texts(said.iloc[1])[0] == "confidence 0.68 < 0.70"


def test_a_repeat_is_a_hold_and_says_so():
    said = Decide(repeat="7D").decide(judged(p_buy=np.full(9, 0.7)))
    assert said["side"].tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 1]  # a new week begins on Thursdays
    assert said["status"].tolist()[2] == "hold"
    assert texts(said.iloc[2]) == ["repeat: the same side within 7D"]
    assert said["strength"].iloc[2] is None
    every = Decide(repeat=None).decide(judged(p_buy=np.full(9, 0.7)))
    assert every["side"].tolist() == [1] * 9


def test_by_default_no_day_silences_the_next():
    assert Decide().decide(judged(p_buy=np.full(9, 0.7)))["side"].tolist() == [1] * 9


def test_what_does_not_fire_is_not_repeated():
    gate = np.array([0.0, 0.0, 0.0, 1.0, 1.0])
    said = Decide(repeat="7D").decide(judged(**{"filter.gate": gate}))
    assert said["side"].tolist() == [0, 0, 0, 1, 0]


def test_an_unknown_stake_does_not_matter_where_trading_is_free():
    assert Decide().decide(judged(cost=0.0, scale=np.nan))["status"].iloc[0] == "unproven"
    assert Decide().decide(judged(cost=0.0))["status"].iloc[0] == "unproven"


def test_a_cost_without_any_stake_is_refused():
    with pytest.raises(DataError, match="at stake") as refusal:
        Decide().decide(judged(cost=0.001, certainty_sell=0.0, certainty_buy=1.0))
    assert "costs=none" in str(refusal.value)


def test_strengths_begin_where_the_settings_say():
    sd = 1 / norm.ppf([0.66, 0.75, 0.95])
    said = Decide(certainty=0.6).decide(judged(margin=1.0, margin_sd=sd))
    assert said["strength"].tolist() == ["weak", "medium", "strong"]


def test_members_that_agree_fully_are_certain():
    said = Decide().decide(judged(margin=[0.5, 0.0, -0.5], margin_sd=0.0))
    assert said["certainty"].tolist() == [1.0, 0.5, 1.0]


def test_the_strict_profile_asks_for_confidence():
    strict = Decide(profile="strict")
    p = np.array([0.60, 0.66, 0.72, 0.85])
    said = strict.decide(judged(p_sell=0.0, p_hold=1 - p, p_buy=p))
    assert said["side"].tolist() == [0, 1, 1, 1]
    assert said["strength"].tolist() == [None, "weak", "medium", "strong"]
    assert texts(said.iloc[0]) == ["confidence 0.60 < 0.65", "confidence 0.40 < 0.85 as a hold"]
    quiet = strict.decide(judged(p_sell=0.02, p_hold=0.9, p_buy=0.08))
    assert "as a hold" not in " ".join(texts(quiet.iloc[0]))


def test_a_strict_signal_still_has_to_pay_its_cost():
    said = Decide(profile="strict").decide(judged(cost=0.0099, scale=0.01))
    assert said["status"].iloc[0] == "hold"
    assert texts(said.iloc[0])[0].startswith("certainty 0.00 < 0.50")


@settings(max_examples=40, deadline=None)
@given(
    arrays("float64", (8, 3), elements=st.floats(0.01, 1)),
    arrays("float64", 8, elements=st.floats(-9, 9)),
    arrays("float64", 8, elements=st.floats(0, 3)),
    arrays("float64", 8, elements=st.floats(0, 0.03)),
    arrays("bool", (2, 8)),
    st.sampled_from(["default", "strict"]),
)
def test_every_decision_makes_a_signal(p, margin, sd, cost, flags, profile):
    p = p / p.sum(axis=1, keepdims=True)
    panel = judged(
        **dict(zip(("p_sell", "p_hold", "p_buy"), p.T, strict=True)),
        **{"margin": margin, "margin_sd": sd, "cost": cost, "scale": 0.02},
        **{"filter.gate": flags[0].astype(float), "ready": flags[1]},
    )
    for (_, time), row in panel.join(Decide(profile=profile).decide(panel)).iterrows():
        side = None if row["side"] is pd.NA else int(row["side"])
        odds = {-1: row["p_sell"], 0: row["p_hold"], 1: row["p_buy"]}
        Signal(
            asset="A",
            time=time,
            side=side,
            status=row["status"],
            probabilities={} if side is None else odds,
            confidence=np.nan if side is None else odds[side],
            certainty=row["certainty"],
            epistemic=0.0,
            aleatoric=0.0,
            expires=time + pd.Timedelta(days=1),
            model="",
            strength=row["strength"],
            why_not=row["why_not"],
        )


def test_costs_go_by_asset_class_in_basis_points():
    decide = Decide(cost_bps={"equity": 10, "default": 25})
    np.testing.assert_allclose(decide.cost(["equity", "rare", "equity"]), [1e-3, 2.5e-3, 1e-3])
    np.testing.assert_array_equal(Decide().cost(["equity", "etf"]), [0, 0])
    assert Decide().cost([]).shape == (0,)


def test_a_class_without_a_cost_is_refused():
    with pytest.raises(ConfigError, match="'crypto'"):
        Decide(cost_bps={"equity": 10}).cost(["equity", "crypto"])


@pytest.mark.parametrize("costs", sorted(path.stem for path in (CONF / "costs").glob("*.yaml")))
@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "decide").glob("*.yaml")))
def test_each_config_decides(name, costs):
    base = OmegaConf.load(CONF / "decide" / "default.yaml")
    cfg = OmegaConf.merge(base, OmegaConf.load(CONF / "decide" / f"{name}.yaml"))
    cfg = OmegaConf.create(
        {"costs": OmegaConf.load(CONF / "costs" / f"{costs}.yaml"), "decide": cfg}
    )
    settings = OmegaConf.to_container(cfg, resolve=True)["decide"]
    settings = {k: v for k, v in settings.items() if k not in ("_target_", "defaults")}
    decide = Decide(**settings)
    panel = judged(scale=0.05)
    panel["cost"] = decide.cost(["equity"])
    assert decide.decide(panel)["side"].iloc[0] == 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"certainty": 1.2}, r"certainty must lie in \[0, 1\], got 1.2"),
        ({"medium": 0.9}, "medium <= strong"),
        ({"profile": "lax"}, "'lax'"),
        ({"cost_bps": {"etf": -1}}, "etf"),
        ({"cost_bps": {"etf": float("nan")}}, "etf"),
        ({"floors": {"etf": 1.1}}, r"floors.etf must lie in \[0, 1\], got 1.1"),
        ({"max_novelty": 0.0}, "max_novelty must be above 0"),
        ({"max_epistemic": -1.0}, "max_epistemic must be above 0"),
        ({"repeat": "-1s"}, "repeat must be a time above 0"),
        ({"rise": -0.1}, "rise must not be below 0"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Decide(**setting)
