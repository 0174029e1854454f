from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from stages.explain.words import Word, level, plain, words
from stages.features.build import FeatureSet
from stages.features.given import GivenFeatures
from stages.features.returns import log_return
from stages.features.timeframes import on_closes

CONF = Path(__file__).parents[3] / "conf"


def configured(name: str):
    """A feature set as its yaml makes it, with the rules of the default."""
    made = OmegaConf.load(CONF / "features" / f"{name}.yaml")
    rules = OmegaConf.load(CONF / "rules" / "technical.yaml")
    features = instantiate(OmegaConf.merge(made, {"rules": rules}), _convert_="all")
    columns = [f"feature.{c}" for c in features.columns]
    columns += [f"rule.{c}" for c in features.rules] + [f"context.{c}" for c in features.context]
    return words(columns, features)


def test_inputs_are_called_by_what_their_functions_say():
    named = configured("core")
    expected = {
        "feature.rsi_14": "RSI over 14 bars",
        "feature.return_1": "log return over 1 bar",
        "feature.momentum_20": "momentum over 20 bars",
        "feature.drawdown_252": "drawdown over 252 bars",
        "feature.market_drawdown_252": "market drawdown over 252 bars",
        "feature.bollinger_percent": "Bollinger's %b over 20 bars",
        "feature.stochastic_k": "slow stochastic %K over 14 bars",
        "feature.volatility_ratio": "volatility ratio of 10 to 60 bars",
        "feature.volatility_ewma": "EWMA volatility",
        "feature.macd_signal": "MACD signal of 12 to 26 bars",
        "feature.rank_reversal": "rank of log return over 5 bars among the assets",
        "rule.rsi": "RSI reversal rule over 14 bars",
        "rule.bollinger": "Bollinger reversion rule over 20 bars",
        "context.regime": "state of the market over 20 bars",
    }
    assert {column: named[column].name for column in expected} == expected
    assert named["context.regime"].states == {-1: "calm", 0: "normal", 1: "stormy"}
    assert [column for column, word in named.items() if word.rule] == [
        column for column in named if column.startswith("rule.")
    ]


def test_a_feature_of_longer_bars_is_called_by_what_it_makes_of_them():
    of = partial(log_return, bars=3)
    made = FeatureSet({"m5": partial(on_closes, bar="bar_m5", closed="closed_m5", of=of)})
    assert words(["feature.m5"], made)["feature.m5"].name == "log return over 3 bars of m5"


@pytest.mark.parametrize("name", ["core", "alpha158"])
def test_no_two_inputs_of_a_family_share_a_name(name):
    named = configured(name)
    for family in ("feature", "rule", "context"):
        names = [word.name for column, word in named.items() if column.startswith(family)]
        assert len(set(names)) == len(names)
        assert all(n == n.strip() and "`" not in n and "  " not in n for n in names)


def test_codes_of_a_catalogue_are_spelled_out():
    named = configured("alpha158")
    assert named["feature.KMID"].name == "body of the bar over its open"
    assert named["feature.ROC20"].name == "close a price 20 bars ago over the newest close"
    assert named["feature.CNTP10"].name == "close share of the bars that rose over 10 bars"
    assert "(QTLU10)" in named["feature.QTLU10"].name


def test_an_input_that_no_function_makes_keeps_its_own_name():
    named = words(["feature.x0", "feature.net_flow_20", "rule.rsi"], GivenFeatures())
    assert [word.name for word in named.values()] == ["x0", "net flow 20", "RSI rule"]
    assert words(["feature.rsi_14"])["feature.rsi_14"].name == plain("rsi_14") == "RSI 14"


def test_a_function_without_a_docstring_goes_by_its_name():
    def net_flow(close, bars=3):
        return close

    class Made:
        columns = {"a": partial(net_flow, bars=7), "b": net_flow}

    named = words(["feature.a", "feature.b"], Made())
    assert [word.name for word in named.values()] == [
        "net flow over 7 bars",
        "net flow over 3 bars",
    ]


@pytest.mark.parametrize(
    ("word", "value", "place", "said"),
    [
        (Word("x"), 3.0, 0.97, "is very high"),
        (Word("x"), 3.0, 0.8, "is high"),
        (Word("x"), 3.0, 0.5, "is middling"),
        (Word("x"), 3.0, 0.1, "is low"),
        (Word("x"), 3.0, 0.0, "is very low"),
        (Word("x"), 3.14159, np.nan, "is at 3.14"),
        (Word("x"), np.nan, 0.5, "is missing"),
        (Word("r", rule=True), 0.2, 0.5, "says buy"),
        (Word("r", rule=True), -1.0, 0.5, "says sell"),
        (Word("r", rule=True), 0.0, 0.5, "is silent"),
        (Word("s", states={-1.0: "calm"}), -1.0, 0.1, "is calm"),
        (Word("s", states={-1.0: "calm"}), 0.0, 0.1, "is low"),
    ],
)
def test_values_are_placed_in_words(word, value, place, said):
    assert word.is_at(value, place) == said


def test_levels_rise_with_the_place():
    said = [level(place) for place in np.linspace(0, 1, 101)]
    assert list(dict.fromkeys(said)) == ["very low", "low", "middling", "high", "very high"]
