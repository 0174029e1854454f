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
from stages.signal import Signal

CONF = Path(__file__).parents[3] / "conf"


def judged(**columns) -> pd.DataFrame:
    """A panel of one asset: confident buys, but for the columns given."""
    length = max(np.size(values) for values in columns.values()) if columns else 1
    rows = {"p_sell": 0.1, "p_hold": 0.2, "p_buy": 0.7, "margin": 1.9, "margin_sd": 0.5}
    rows |= {"filter.gate": 1.0, "ready": True, **columns}
    time = pd.date_range("2020-01-01", periods=length, tz="UTC").as_unit("us")
    asset = pd.Index(["A"] * length, dtype="str")
    index = pd.MultiIndex.from_arrays([asset, time], names=["asset", "time"])
    return pd.DataFrame({k: np.broadcast_to(v, length) for k, v in rows.items()}, index)


def test_a_sure_buy_is_unproven_until_skill_is_shown():
    row = Decide().decide(judged()).iloc[0]
    assert (row["side"], row["status"], row["strength"]) == (1, "unproven", "strong")
    assert row["why_not"] == ("skill not proven yet",)
    proven = Decide(skill_proven=True).decide(judged()).iloc[0]
    assert (proven["side"], proven["status"], proven["why_not"]) == (1, "fired", ())


def test_sell_mirrors_buy():
    mirrored = judged(p_sell=0.7, p_buy=0.1, margin=-1.9)
    buy, sell = Decide().decide(judged()).iloc[0], Decide().decide(mirrored).iloc[0]
    assert sell["side"] == -buy["side"] == -1
    assert sell["certainty"] == buy["certainty"]


def test_certainty_is_the_chance_that_the_margin_pays_its_cost():
    panel = judged(margin=0.5, margin_sd=0.4, cost=0.001, scale=0.01)
    found = Decide().decide(panel)["certainty"].iloc[0]
    assert found == pytest.approx(norm.cdf((0.5 - np.log(1.1 / 0.9)) / 0.4))


def test_a_dearer_trade_is_less_certain_until_it_cannot_pay():
    costs = np.array([0, 0.001, 0.005, 0.009, 0.01, 0.02])
    said = Decide().decide(judged(cost=costs, scale=0.01))
    assert (np.diff(said["certainty"]) <= 0).all()
    assert said["certainty"].iloc[-2:].tolist() == [0, 0]
    assert said["why_not"].iloc[-1] == ("cost exceeds the return at stake",)
    assert said["status"].iloc[-1] == "hold"


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"filter.gate": 0.0}, "gate: score below threshold"),
        ({"margin": 0.14, "margin_sd": 0.5}, "certainty 0.61 < 0.80"),
        ({"margin": 0.4199, "margin_sd": 0.5}, "certainty 0.79 < 0.80"),
        ({"p_hold": 0.6, "p_buy": 0.3}, "p_hold is likelier than p_buy"),
    ],
)
def test_a_hold_says_what_stopped_it(columns, reason):
    row = Decide().decide(judged(**columns)).iloc[0]
    assert (row["side"], row["status"]) == (0, "hold")
    assert row["why_not"] == (reason,)
    assert row["strength"] is None
    assert 0 <= row["certainty"] <= 1


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"ready": False}, "history incomplete"),
        ({"p_buy": np.nan}, "odds: a stage says nothing about this row"),
        ({"cost": 0.001, "scale": np.nan}, "return at stake unknown"),
    ],
)
def test_what_cannot_be_judged_abstains(columns, reason):
    row = Decide().decide(judged(**columns)).iloc[0]
    assert row["side"] is pd.NA
    assert row["status"] == "abstain"
    assert np.isnan(row["certainty"])
    assert row["why_not"] == (reason,)


def test_an_unknown_stake_does_not_matter_where_trading_is_free():
    assert Decide().decide(judged(cost=0.0, scale=np.nan))["status"].iloc[0] == "unproven"
    assert Decide().decide(judged(cost=0.0))["status"].iloc[0] == "unproven"


def test_a_cost_without_any_stake_is_refused():
    with pytest.raises(DataError, match="at stake") as refusal:
        Decide().decide(judged(cost=0.001))
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
    assert said["why_not"].iloc[0] == ("confidence 0.60 < 0.65", "hold confidence 0.40 < 0.85")
    quiet = strict.decide(judged(p_sell=0.02, p_hold=0.9, p_buy=0.08))
    assert "hold confidence" not in " ".join(quiet["why_not"].iloc[0])


def test_a_strict_signal_still_has_to_pay_its_cost():
    said = Decide(profile="strict").decide(judged(cost=0.0099, scale=0.01))
    assert said["status"].iloc[0] == "hold"
    assert said["why_not"].iloc[0][0].startswith("certainty 0.00 < 0.50")


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
    ],
)
def test_a_setting_out_of_range_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Decide(**setting)
