"""Every column of every yaml keeps the contract: a new one is tested by being there.

A set is built as a whole, so that each promise is judged for all of its columns at once.
"""

from dataclasses import replace
from functools import partial, wraps
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_module

import conf
from pipeline.recipe import instantiate
from stages.features import alpha158
from stages.features.build import FeatureSet
from stages.features.cross_section import cross_section
from stages.features.functions import across_assets, reads
from stages.features.returns import log_return
from stages.features.rows import Rows
from stages.panel import BARS
from tests.stages.features import contract

CONF = Path(conf.__file__).parent
# sets that read quotes, trades or longer bars: test_microstructure and test_timeframes judge them
ELSEWHERE = ("microstructure", "intraday")
NOON = pd.Timestamp("2020-06-01", tz="UTC")
# one by definition: the newest bar over itself
CONSTANT = ("feature.CLOSE0", "feature.VOLUME0")


def sets():
    with initialize_config_module("conf", version_base="1.3"):
        for path in sorted((CONF / "features").glob("*.yaml")):
            node = compose("config", overrides=[f"features={path.stem}"]).features
            if "columns" in node and path.stem not in ELSEWHERE:
                yield path.stem, instantiate(node)
        for path in sorted((CONF / "rules").glob("*.yaml")):
            cfg = compose("config", overrides=["features=next_day", f"rules={path.stem}"])
            rules = instantiate(cfg.rules)
            fed_by_bars = {c for f in rules.values() for c in reads(f).values()} <= {
                *BARS,
                "market",
            }
            bare = FeatureSet({"return_1": partial(log_return, bars=1)}, rules=rules)
            yield path.stem, bare if fed_by_bars else instantiate(cfg.features)


def distinct(named):
    """As few of the sets as hold every column of all, so that none is judged twice."""
    left = dict(named)
    for name in sorted(named, key=lambda name: len(dict(named[name].functions()))):
        others = [held(whole) for other, whole in left.items() if other != name]
        if held(left[name]) <= set().union(*others):
            del left[name]
    return {name: replace(whole, inner=()) for name, whole in left.items()}  # inner columns too


def held(whole):
    """The columns of a set by name, function and settings."""
    return {(name, f.func, str(f.keywords)) for name, f in whole.functions()}


def fed(features):
    """The set without what daily bars cannot feed, or nothing: other bars judge that elsewhere."""
    known, names = {*contract.PRICES, "volume", "market", "sector", "session_day"}, []
    for name, function in features.functions():
        if set(reads(function).values()) <= known:
            names.append(name)
            known.add(name.removeprefix("feature."))
    return only(features, names) if any(name.startswith("feature.") for name in names) else None


def maker(features, names=None):
    """The columns of a set, float64: all, or `names` with those that they read."""
    if names is not None:
        features = only(features, names)

    def make(bars):
        made = replace(features).values(bars)
        return made if names is None else made[[c for c in made if c in names]]

    return make


def only(features, names):
    """The set of the columns `names` and of all that they read."""
    needed = set(names)
    for name, function in reversed(list(features.functions())):
        if name in needed:
            needed |= {f"feature.{column}" for column in reads(function).values()}
    parts = {
        part: {
            short: function
            for short, function in getattr(features, part).items()
            if f"{family}.{short}" in needed
        }
        for family, part in (("feature", "columns"), ("rule", "rules"), ("context", "context"))
    }
    parts["columns"] = parts["columns"] or {"return_1": partial(log_return, bars=1)}
    return replace(features, **parts, inner=[n for n in features.inner if n in parts["columns"]])


ALL = {name: part for name, whole in sets() if (part := fed(whole)) is not None}
SETS = distinct(ALL)


@pytest.fixture(params=SETS)
def whole(request):
    return SETS[request.param]


def comparing(features):
    """Columns that look at the other assets of the time, or read one that does."""
    found = set()
    for name, function in features.functions():
        if across_assets(function) or any(
            f"feature.{c}" in found for c in reads(function).values()
        ):
            found.add(name)
    return found


def alone(features):
    return [name for name, _ in features.functions() if name not in comparing(features)]


@pytest.fixture(scope="session")
def sectors(bars):
    """Staggered bars with everything that any column may read."""
    return with_sectors(bars)


@pytest.fixture(scope="session")
def complete(aligned):
    return with_sectors(aligned)


def with_sectors(bars):
    first = bars.index.get_level_values("asset").isin(["A", "B"])
    return bars.assign(sector=np.where(first, "banks", "mines"))


def test_values_start_when_warm(whole, sectors, complete):
    contract.starts_when_warm(maker(whole), complete, whole.warmups)
    # the first asset has nobody to be ranked among until the second is listed
    contract.starts_when_warm(maker(whole, alone(whole)), sectors, whole.warmups)


def test_the_past_does_not_see_the_future(whole, sectors):
    contract.does_not_see_the_future(maker(whole), sectors, NOON)


def test_stored_columns_do_not_see_the_future(whole, bars):
    def make(table):
        return replace(whole).build(table).drop(columns=bars.columns)

    contract.does_not_see_the_future(make, bars, NOON)


def test_the_declared_warmup_suffices_for_each_column(whole, complete):
    for bars in set(whole.warmups.values()):
        names = [name for name, own in whole.warmups.items() if own == bars]
        contract.needs_no_more_than_its_warmup(maker(whole, names), complete, bars)


def test_an_asset_does_not_see_the_others(whole, sectors):
    contract.does_not_care_for_the_order_of_assets(maker(whole), sectors)
    market = sectors.assign(market=sectors["close"].groupby("time").transform("mean"))
    contract.does_not_see_other_assets(maker(whole, alone(whole)), market)


def test_a_missing_bar_spoils_only_its_windows(whole, complete):
    # a single asset beside a given market: others would stand in for it, see test_build
    single = complete.loc[["A"]].assign(market=complete.loc["B", "close"].to_numpy())
    bare = [n for n, f in whole.functions() if set(reads(f).values()) != {"session_day"}]
    names = [name for name in alone(whole) if name in bare]
    contract.loses_only_the_windows_that_span_a_missing_bar(
        maker(whole, names), single, whole.warmups, row=255
    )


def test_values_do_not_depend_on_the_currency(whole, complete):
    # the public definition of CORR takes log(volume + 1)
    loose = [n for n, f in whole.functions() if f.func is alpha158.corr]
    contract.does_not_depend_on_the_currency(maker(whole), complete, loose)


def test_values_vary_and_rules_stay_in_range(whole, sectors):
    prices = [c for c in contract.PRICES if c in sectors]
    made = maker(whole)(sectors.assign(**sectors[prices].round(2)))  # in cents: some stand still
    constant = [name for name in made if made[name].nunique() < 2]
    assert constant == [name for name in CONSTANT if name in made]
    for name, function in whole.functions():
        if function.func.__module__.startswith("stages.rules"):
            assert made[name].dropna().between(-1, 1).all(), name


def test_no_column_of_a_yaml_is_left_out_of_what_is_judged():
    judged = set().union(*map(held, SETS.values()))
    for name, whole in ALL.items():
        assert held(whole) <= judged, name


def test_every_set_warms_up_within_a_trading_year_and_a_bit():
    assert all(whole.warmup <= 260 for whole in SETS.values())


# the contract itself: what breaks it is caught


def families():
    """One column of each module that a yaml names a function of."""
    found = {}
    for features in SETS.values():
        for name, function in features.functions():
            found.setdefault(function.func.__module__.removeprefix("stages."), (features, name))
    return found


def ahead(function, bars=1):
    """A partial whose values are known `bars` bars too early."""

    @wraps(function.func)
    def leaky(*inputs, **settings):
        values = function.func(*inputs, **settings)
        return np.concatenate([values[bars:], np.full_like(values[:bars], np.nan)])

    return partial(leaky, **function.keywords)


@pytest.mark.parametrize(("features", "name"), families().values(), ids=families())
def test_a_leak_of_one_bar_is_caught_in_every_family(features, name, sectors):
    part = only(features, [name])
    family, _, short = name.partition(".")
    group = {"feature": "columns", "rule": "rules", "context": "context"}[family]
    functions = getattr(part, group)
    planted = replace(part, **{group: functions | {short: ahead(functions[short])}})
    contract.does_not_see_the_future(maker(part, [name]), sectors, NOON)
    with pytest.raises(AssertionError, match=name):
        contract.does_not_see_the_future(maker(planted, [name]), sectors, NOON)


def on_rows(function):
    def make(bars):
        rows = Rows.of(bars, {"close"})
        return pd.DataFrame({"value": rows.run(function)}, bars.index)

    return make


def test_a_scaler_fitted_on_everything_is_caught(bars):
    def scaled(close):
        return (close - close.mean()) / close.std()

    with pytest.raises(AssertionError):
        contract.does_not_see_the_future(on_rows(scaled), bars, NOON)


def test_a_running_sum_is_caught(aligned):
    def running(close):
        return np.append(np.full(9, np.nan), (np.cumsum(close)[9:] - np.cumsum(close)[:-9]) / 9)

    with pytest.raises(AssertionError):
        contract.loses_only_the_windows_that_span_a_missing_bar(
            on_rows(running), aligned, {"value": 9}, 255
        )


def test_a_recursion_that_remembers_for_ever_is_caught(aligned):
    def recursive(close):
        return pd.Series(close).ewm(span=26, adjust=False).mean().where(lambda x: x.index >= 26)

    with pytest.raises(AssertionError):
        contract.needs_no_more_than_its_warmup(on_rows(recursive), aligned, 26)


def test_a_warmup_declared_too_short_is_caught(aligned):
    make = on_rows(partial(log_return, bars=10))
    contract.starts_when_warm(make, aligned, {"value": 10})
    for wrong in (9, 11):
        with pytest.raises(AssertionError, match=f"value declares {wrong} bars"):
            contract.starts_when_warm(make, aligned, {"value": wrong})


def test_a_currency_in_a_value_is_caught(aligned):
    with pytest.raises(AssertionError):
        contract.does_not_depend_on_the_currency(on_rows(lambda close: np.log(close)), aligned)


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
