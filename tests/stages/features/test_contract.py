"""Every column of every yaml keeps the contract: a new one is tested by being there."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

import conf
from stages.features import alpha158
from stages.features.build import FeatureSet
from stages.features.cross_section import cross_section
from stages.features.rows import Rows, across_assets, reads
from stages.panel import BARS, warms_up, warmup
from tests.stages.features import contract

CONF = Path(conf.__file__).parent


def sets():
    with initialize_config_module("conf", version_base="1.3"):
        for path in sorted((CONF / "features").glob("*.yaml")):
            node = compose("config", overrides=[f"features={path.stem}"]).features
            if "columns" in node:
                yield path.stem, instantiate(node)
        for path in sorted((CONF / "rules").glob("*.yaml")):
            cfg = compose("config", overrides=["features=next_day", f"rules={path.stem}"])
            rules = instantiate(cfg.rules, _convert_="all")
            fed_by_bars = {c for f in rules.values() for c in reads(f).values()} <= {
                *BARS,
                "market",
            }
            bare = FeatureSet({"x": partial(contract_free, bars=1)}, rules=rules)
            yield path.stem, bare if fed_by_bars else instantiate(cfg.features)


@warms_up(lambda bars, **_: bars)
def contract_free(close, bars=1):
    return close * bars


def columns(sets):
    """Every column once; of a function at many windows, or of many columns, the two ends."""
    found, seen = {}, set()
    for stem, whole in sets.items():
        for name, function in whole._functions():
            settings = {
                k: "a column" if v in whole.columns else v
                for k, v in function.keywords.items()
                if not isinstance(v, int)
            }
            kind = name.split(".")[0], function.func, str(settings)
            if name != "feature.x" and name not in seen:
                found.setdefault(kind, []).append((warmup(function), name, stem))
                seen.add(name)
    ends = {end for same in found.values() for end in (min(same), max(same))}
    return {f"{stem}.{name}": (sets[stem], name) for _, name, stem in sorted(ends)}


SETS = dict(sets())
COLUMNS = columns(SETS)
# one by definition: the newest bar over itself
CONSTANT = ("alpha360.feature.CLOSE0", "alpha360.feature.VOLUME0")


class Column:
    """One column of a set with those it reads, float64 before the cast."""

    def __init__(self, whole, name):
        family, short = name.split(".")
        group = {"feature": whole.columns, "rule": whole.rules, "context": whole.context}[family]
        self.function = group[short]
        self.above = above(self.function, whole.columns)
        self.warmup = FeatureSet({**self.above, "itself": self.function}).warmup

    def __call__(self, bars):
        functions = [self.function, *self.above.values()]
        read = {c for f in functions for c in reads(f).values()}
        rows = Rows.of(bars, read | {"close"})
        if "market" in read and "market" not in bars:
            rows.columns["market"] = rows.equal_weight()
        for name, function in self.above.items():
            rows.columns[name] = rows.run(function)
        return pd.DataFrame({"value": rows.run(self.function)}, bars.index)

    @property
    def compares(self):
        """Whether it, or a column it reads, looks at the other assets of the time."""
        return any(across_assets(f) for f in [self.function, *self.above.values()])

    @property
    def looks_across(self):
        return self.compares or "market" in reads(self.function).values()


def above(function, columns):
    """The columns that a function reads, and those that they read, in order."""
    found = {}
    for name in reads(function).values():
        if name in columns:
            found |= {**above(columns[name], columns), name: columns[name]}
    return found


@pytest.fixture(params=COLUMNS)
def column(request):
    return Column(*COLUMNS[request.param])


def test_values_start_when_warm(column, bars, aligned):
    # the first asset has nobody to be ranked among until the second is listed
    table = aligned if column.compares else bars
    contract.starts_when_warm(column, table, column.warmup)


def test_the_past_does_not_see_the_future(column, bars):
    contract.does_not_see_the_future(column, bars, pd.Timestamp("2020-06-01", tz="UTC"))


def test_the_declared_warmup_suffices(column, aligned):
    contract.needs_no_more_than_its_warmup(column, aligned, column.warmup)


def test_an_asset_does_not_see_the_others(column, bars):
    contract.does_not_care_for_the_order_of_assets(column, bars)
    if not column.compares:
        market = bars.assign(market=bars["close"].groupby("time").transform("mean"))
        contract.does_not_see_other_assets(column, market)


def test_a_missing_bar_spoils_only_its_windows(column, aligned):
    if column.looks_across:  # the others of the time stand in for it, see test_build
        aligned = aligned.loc[["A"]].assign(market=aligned.loc["B", "close"].to_numpy())
    if not column.compares:
        contract.loses_only_the_windows_that_span_a_missing_bar(
            column, aligned, column.warmup, row=255
        )


def test_values_do_not_depend_on_the_currency(column, aligned):
    # the public definition of CORR takes log(volume + 1)
    atol = 1e-5 if column.function.func is alpha158.corr else 1e-8
    contract.does_not_depend_on_the_currency(column, aligned, atol)


def test_values_vary_and_rules_stay_in_range(column, bars, request):
    made = column(bars)["value"].dropna()
    constant = request.node.callspec.params["column"] in CONSTANT
    assert (made.nunique() == 1) == constant
    if column.function.func.__module__.startswith("stages.rules"):
        assert made.between(-1, 1).all()


@pytest.mark.parametrize("name", SETS)
def test_no_column_of_a_set_sees_the_future(name, bars):
    """All columns at once, as they are stored; at every window."""

    def make(table):
        return SETS[name].build(table).drop(columns=bars.columns)

    contract.does_not_see_the_future(make, bars, pd.Timestamp("2020-06-01", tz="UTC"))


def test_every_set_warms_up_within_a_trading_year_and_a_bit():
    assert all(whole.warmup <= 260 for whole in SETS.values())


# the contract itself: what breaks it is caught


def on_rows(function):
    def make(bars):
        rows = Rows.of(bars, {"close"})
        return pd.DataFrame({"value": rows.run(function)}, bars.index)

    return make


def test_a_leak_of_one_bar_is_caught(bars):
    def leaky(close):
        return np.append(close[1:], np.nan)

    with pytest.raises(AssertionError):
        contract.does_not_see_the_future(on_rows(leaky), bars, pd.Timestamp("2020-06-01", tz="UTC"))


def test_a_scaler_fitted_on_everything_is_caught(bars):
    def scaled(close):
        return (close - close.mean()) / close.std()

    with pytest.raises(AssertionError):
        contract.does_not_see_the_future(
            on_rows(scaled), bars, pd.Timestamp("2020-06-01", tz="UTC")
        )


def test_a_running_sum_is_caught(aligned):
    def running(close):
        return np.append(np.full(9, np.nan), (np.cumsum(close)[9:] - np.cumsum(close)[:-9]) / 9)

    with pytest.raises(AssertionError):
        contract.loses_only_the_windows_that_span_a_missing_bar(on_rows(running), aligned, 9, 255)


def test_a_recursion_that_remembers_for_ever_is_caught(aligned):
    def recursive(close):
        return pd.Series(close).ewm(span=26, adjust=False).mean().where(lambda x: x.index >= 26)

    with pytest.raises(AssertionError):
        contract.needs_no_more_than_its_warmup(on_rows(recursive), aligned, 26)


def test_a_cross_section_that_knows_its_columns_is_caught(bars):
    @cross_section
    def first_is_special(close):
        return close - close[:, [0]]

    def make(table):
        rows = Rows.of(table, {"close"})
        return pd.DataFrame({"value": rows.run(first_is_special)}, table.index)

    contract.does_not_care_for_the_order_of_assets(make, bars)  # placed by name: always the same
    with pytest.raises(AssertionError):
        contract.does_not_see_other_assets(make, bars)
