"""Every column of every yaml keeps the contract: a new one is tested by being there."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

import conf
from stages.features.build import FeatureSet
from stages.features.cross_section import cross_section
from stages.features.rows import Rows, across_assets, reads
from stages.panel import warms_up
from tests.stages.features import contract

CONF = Path(conf.__file__).parent


def sets():
    rules = {path.stem: OmegaConf.load(path) for path in sorted((CONF / "rules").glob("*.yaml"))}
    for path in sorted((CONF / "features").glob("*.yaml")):
        node = OmegaConf.load(path)
        if "columns" in node:
            node = OmegaConf.create({"features": node, "rules": rules["technical"]})
            yield path.stem, instantiate(node.features)
    for name, node in rules.items():
        bare = {"x": partial(contract_free, bars=1)}
        yield name, FeatureSet(bare, rules=instantiate(node, _convert_="all"))


@warms_up(lambda bars, **_: bars)
def contract_free(close, bars=1):
    return close * bars


SETS = dict(sets())
COLUMNS = {
    f"{stem}.{name}": (whole, name)
    for stem, whole in SETS.items()
    for name, _ in whole._functions()
    if name != "feature.x"
}


class Column:
    """One column of a set with those it reads, float64 before the cast."""

    def __init__(self, whole, name):
        family, short = name.split(".")
        group = {"feature": whole.columns, "rule": whole.rules, "context": whole.context}[family]
        self.function = group[short]
        above = {c: whole.columns[c] for c in reads(self.function).values() if c in whole.columns}
        own = FeatureSet({**above, short: self.function})
        self.warmup = own.warmup
        self.above = above

    def __call__(self, bars):
        read = {c for f in [self.function, *self.above.values()] for c in reads(f).values()}
        rows = Rows.of(bars, read | {"close"})
        if "market" in read and "market" not in bars:
            rows.columns["market"] = rows.equal_weight()
        rows.columns |= {name: rows.run(function) for name, function in self.above.items()}
        return pd.DataFrame({"value": rows.run(self.function)}, bars.index)

    @property
    def looks_across(self):
        return across_assets(self.function) or "market" in reads(self.function).values()


@pytest.fixture(params=COLUMNS)
def column(request):
    return Column(*COLUMNS[request.param])


def test_values_start_when_warm(column, bars, aligned):
    # the first asset has nobody to be ranked among until the second is listed
    table = aligned if across_assets(column.function) else bars
    contract.starts_when_warm(column, table, column.warmup)


def test_the_past_does_not_see_the_future(column, bars):
    contract.does_not_see_the_future(column, bars, pd.Timestamp("2020-06-01", tz="UTC"))


def test_the_declared_warmup_suffices(column, aligned):
    contract.needs_no_more_than_its_warmup(column, aligned, column.warmup)


def test_an_asset_does_not_see_the_others(column, bars):
    contract.does_not_care_for_the_order_of_assets(column, bars)
    if not across_assets(column.function):
        market = bars.assign(market=bars["close"].groupby("time").transform("mean"))
        contract.does_not_see_other_assets(column, market)


def test_a_missing_bar_spoils_only_its_windows(column, aligned):
    if column.looks_across:  # the others of the time stand in for it, see test_build
        aligned = aligned.loc[["A"]].assign(market=aligned.loc["B", "close"].to_numpy())
    if not across_assets(column.function):
        contract.loses_only_the_windows_that_span_a_missing_bar(
            column, aligned, column.warmup, row=255
        )


def test_values_do_not_depend_on_the_currency(column, aligned):
    contract.does_not_depend_on_the_currency(column, aligned)


def test_values_vary_and_rules_stay_in_range(column, bars):
    made = column(bars)["value"].dropna()
    assert made.nunique() > 1
    if column.function.func.__module__.startswith("stages.rules"):
        assert made.between(-1, 1).all()


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
