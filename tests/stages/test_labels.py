from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from sklearn.exceptions import NotFittedError

from stages import barriers
from stages.base import DataError
from stages.labels import FixedHorizon, Given, Terciles, TripleBarrier, forward_return
from stages.panel import PanelError, check_labels, settled, until

CONF = Path(__file__).parents[2] / "conf" / "labels"
LABELERS = [
    TripleBarrier(width=0.7),
    TripleBarrier(width=0.7, delay=0, horizon=1),
    TripleBarrier(width=0.7, entry="open"),
    FixedHorizon(),
    FixedHorizon(unit="return", up=0.0055, down=0.005, between="drop"),
    FixedHorizon(unit="return", up=0, down=0, horizon=3, delay=2),
    Terciles(),
]


def walk(seed: int, times: int = 120, assets: str = "BCA", missing: float = 0.0) -> pd.DataFrame:
    """Bars with a range around each close; each asset is listed five bars after the one before."""
    rng = np.random.default_rng(seed)
    clock = pd.date_range("2020-01-01 21:00", periods=times, tz="UTC")
    frames = {}
    for k, name in enumerate(sorted(assets)):
        close = 100 * np.exp(rng.normal(0, 0.01, times).cumsum())
        opened = np.r_[close[0], close[:-1]] * np.exp(rng.normal(0, 0.005, times))
        rest = np.abs(rng.normal(0, 0.003, (2, times)))
        high, low = np.maximum(opened, close) + rest[0], np.minimum(opened, close) - rest[1]
        bars = pd.DataFrame({"open": opened, "high": high, "low": low, "close": close}, clock)
        bars[rng.random(times) < missing] = np.nan
        frames[name] = bars[5 * k :]
    return pd.concat(frames, names=["asset", "time"])


def asset_bars(**columns: list[float]) -> pd.DataFrame:
    """One asset: 30 quiet bars of alternating +-1 %, then the given ones."""
    quiet = 100 * np.exp(-0.01 * (np.arange(30) % 2))
    table = {name: np.r_[quiet, values] for name, values in columns.items()}
    clock = pd.date_range("2020-01-01", periods=len(table["close"]), tz="UTC")
    return pd.DataFrame(table, pd.MultiIndex.from_product([["A"], clock], names=["asset", "time"]))


def slow_triple_barrier(bars: pd.DataFrame, labels: TripleBarrier) -> pd.DataFrame:
    """The definition, one row at a time and in plain Python."""
    out = {}
    width = labels.scale(bars)
    for name, own in bars.groupby(level="asset"):
        own = own.droplevel("asset")
        for i, time in enumerate(own.index):
            first = i + labels.delay + (labels.entry == "close")
            span = own.iloc[first : first + labels.horizon]
            if len(span) < labels.horizon or np.isnan(width[name, time]):
                continue
            price = own[labels.entry].iloc[i + labels.delay]
            if np.isnan(price) or span.isna().any(axis=None):
                continue
            up, down = price * np.exp([width[name, time], -width[name, time]])
            over = span.index[-1]
            said = (0, over, span["close"].iloc[-1])
            for when, bar in span.iterrows():
                if bar["open"] >= up or bar["open"] <= down:
                    said = (1 if bar["open"] >= up else -1, when, bar["open"])
                elif bar["high"] >= up and bar["low"] <= down:
                    said = (0, when, bar["close"])
                elif bar["high"] >= up:
                    said = (1, when, max(up, bar["low"]))
                elif bar["low"] <= down:
                    said = (-1, when, min(down, bar["high"]))
                else:
                    continue
                break
            out[name, time] = (*said[:2], said[2] / price - 1, over)
    return pd.DataFrame.from_dict(out, orient="index", columns=["side", "end", "ret", "over"])


@pytest.mark.parametrize("entry", ["close", "open"])
@pytest.mark.parametrize("missing", [0.0, 0.05])
def test_the_barriers_are_those_of_the_definition(entry, missing):
    bars = walk(seed=3, missing=missing)
    labels = TripleBarrier(width=0.5, entry=entry)
    y, slow = labels.label(bars), slow_triple_barrier(bars, labels)
    assert len(y) > 30
    assert set(y["side"]) == {-1, 0, 1}
    assert list(y.index) == list(slow.index)
    assert (y["side"].to_numpy() == slow["side"]).all()
    assert list(y["end"]) == list(slow["end"])
    assert list(y["horizon_end"]) == list(slow["over"])
    np.testing.assert_allclose(y["ret"], slow["ret"], rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000), cut=st.integers(30, 119), kind=st.sampled_from(range(len(LABELERS)))
)
def test_more_history_changes_no_label_that_was_known(seed, cut, kind):
    labels, bars = LABELERS[kind], walk(seed, missing=0.02)
    time = bars.index.unique("time").sort_values()[cut]
    then, now = labels.label(until(bars, time)), labels.label(bars)
    known = now[now.index.isin(then.index)]
    pd.testing.assert_frame_equal(then, known)
    assert (then["end"] <= time).all()
    # a label whose whole horizon was over had to be there already
    late = now.index.difference(then.index).get_level_values("time")
    times = bars.index.unique("time").sort_values()
    assert not len(late) or late.min() >= times[max(cut - labels.span + 1, 0)]


@pytest.mark.parametrize("labels", LABELERS, ids=str)
def test_labels_keep_the_contract_and_nobody_guesses_the_future(labels):
    bars = walk(seed=0)
    y = check_labels(labels.fit(bars).label(bars))
    left = bars.groupby(level="asset").cumcount(ascending=False).loc[y.index]
    assert left.min() == labels.span - (getattr(labels, "entry", "close") == "open")
    # a horizon is over when its last bar is known, however early the side was
    last = bars.groupby(level="asset").cumcount().loc[y.index] + left.min()
    for name, own in y.groupby(level="asset"):
        assert list(settled(own)) == list(bars.loc[name].index[last.loc[own.index]])
    assert (y["weight"] <= 1).all()
    assert np.isfinite(y["ret"]).all()
    assert y["ret"].dtype == "float64"


@pytest.mark.parametrize("labels", LABELERS[:-1], ids=str)
def test_an_asset_is_labelled_as_if_it_were_alone(labels):
    bars = walk(seed=1, missing=0.01)
    together = labels.label(bars)
    for name in "ABC":
        alone = labels.label(bars.loc[[name]])
        pd.testing.assert_frame_equal(alone, together.loc[[name]])


@pytest.mark.parametrize("labels", LABELERS, ids=str)
def test_what_is_at_stake_is_known_at_the_row(labels):
    bars = walk(seed=2)
    time = bars.index.unique("time").sort_values()[80]
    garbage = bars.copy()
    garbage.loc[garbage.index.get_level_values("time") > time] = 1e6
    before = until(labels.scale(bars).to_frame(), time)
    pd.testing.assert_frame_equal(before, until(labels.scale(garbage).to_frame(), time))
    assert before["scale"].groupby(level="asset").last().gt(0).all()


def test_the_first_touch_decides_and_says_when():
    bars = asset_bars(close=[100, 100.1, 108, 90, 100])
    time = bars.index.get_level_values("time")
    row = TripleBarrier(horizon=3, delay=0, width=1).label(bars).loc["A", :].loc[time[30]]
    assert (row["side"], row["end"]) == (1, time[32])
    assert row["ret"] == pytest.approx(0.08)


@pytest.mark.parametrize(
    ("bar", "side", "paid"),
    [
        ({"open": 100, "high": 110, "low": 90, "close": 99}, 0, 99),  # which came first is unknown
        ({"open": 106, "high": 110, "low": 90, "close": 99}, 1, 106),  # opened beyond: first
        ({"open": 93, "high": 101, "low": 90, "close": 99}, -1, 93),
        ({"open": np.nan, "high": 110, "low": 105, "close": 107}, 1, 105),  # never traded nearer
        ({"open": np.nan, "high": 95, "low": 90, "close": 93}, -1, 95),
        ({"open": 100, "high": 100.1, "low": 99.9, "close": 100}, 0, 100),
    ],
)
def test_a_bar_across_the_barriers(bar, side, paid):
    flat = {name: [100.0] for name in bar}
    bars = asset_bars(**{name: [*flat[name], value] for name, value in bar.items()})
    y = TripleBarrier(horizon=1, delay=0, width=1).label(bars)
    assert y["side"].iloc[-1] == side
    assert y["ret"].iloc[-1] == pytest.approx(paid / 100 - 1)


def test_a_touch_lets_no_label_of_an_incomplete_horizon_through():
    y = TripleBarrier(horizon=5, delay=0, width=0.5).label(asset_bars(close=[150.0, 150.0]))
    assert len(y) == 32 - 5 - 20  # 20 bars until there is a volatility


def test_the_fitted_width_makes_a_third_hold_with_and_without_ranges():
    bars = walk(seed=5, times=1500)
    for columns in (["close"], ["open", "high", "low", "close"]):
        labels = TripleBarrier().fit(bars[columns])
        assert (labels.label(bars[columns])["side"] == 0).mean() == pytest.approx(1 / 3, abs=0.01)
    # ranges reach further than closes, so their barriers stand further out (ml-core: 0.9 and 0.7)
    assert labels.width_ > TripleBarrier().fit(bars[["close"]]).width_


def test_a_given_width_is_kept_and_a_state_brings_it_back():
    bars = walk(seed=0)
    fitted = TripleBarrier().fit(bars)
    copy = TripleBarrier().restore(fitted.state())
    pd.testing.assert_frame_equal(copy.label(bars), fitted.label(bars))
    assert TripleBarrier(width=0.9).fit(bars).width_ == 0.9
    assert not Terciles().restore(Terciles().fit(bars).state()).state().values
    with pytest.raises(NotFittedError, match="width_"):
        TripleBarrier().label(bars)


def test_a_width_may_be_fitted_on_some_of_the_rows():
    bars = walk(seed=5, times=600)
    time = bars.index.get_level_values("time")
    calm = bars.index[(time < "2020-08-01") & (bars.index.get_level_values("asset") != "C")]
    wild = bars.copy()
    late = np.asarray(time >= "2020-08-15")  # a week after the last horizon of the calm rows
    wild.loc[late] *= np.exp(np.random.default_rng(0).normal(0, 0.5, late.sum()))[:, None]
    wild.loc["C"] = wild.loc["C"].to_numpy() ** 2
    one, two = (TripleBarrier().fit(each, calm) for each in (bars, wild))
    assert one.width_ == two.width_ != TripleBarrier().fit(wild).width_
    held = one.label(bars)["side"].reindex(calm).dropna() == 0
    assert held.mean() == pytest.approx(1 / 3, abs=0.02)
    used = one.roles_["calibrate"]
    assert list(used) == list(one.label(bars).index.intersection(calm))
    assert not TripleBarrier(width=0.9).fit(bars).roles_


@pytest.mark.parametrize(
    ("horizon_end", "message"),
    [
        (lambda y: y["end"] - pd.Timedelta("1s"), "over before its label ends"),
        (lambda y: y["end"].where(y["side"] != 0), "over before its label ends"),
        (lambda y: y["end"].dt.tz_localize(None), "horizon_end must be UTC"),
    ],
)
def test_a_horizon_that_cannot_be_is_refused(horizon_end, message):
    y = TripleBarrier(width=0.7).label(walk(seed=0))
    with pytest.raises(PanelError, match=message):
        check_labels(y.assign(horizon_end=horizon_end(y)))


def test_labels_without_a_horizon_are_settled_when_they_end():
    y = TripleBarrier(width=0.7).label(walk(seed=0))
    assert (settled(y) > y["end"]).any()
    early = y.drop(columns="horizon_end")
    assert check_labels(early) is early
    pd.testing.assert_series_equal(settled(early), y["end"])


def test_too_short_a_history_cannot_fit_a_width():
    with pytest.raises(DataError, match="no bar has a whole label of 6 bars") as refused:
        TripleBarrier().fit(walk(seed=0, times=25))
    assert refused.value.code == "SV-F18"


@pytest.mark.parametrize("labels", LABELERS, ids=str)
def test_a_label_across_too_long_a_gap_is_missing(labels):
    bars = walk(seed=0)
    time = bars.index.get_level_values("time")
    shut = pd.Timestamp("2020-03-10", tz="UTC")
    # everything from the tenth of March on happens 30 days later
    moved = time.where(time < shut, time + pd.Timedelta("30D"))
    bars.index = pd.MultiIndex.from_arrays([bars.index.get_level_values("asset"), moved])
    bars.index.names = ["asset", "time"]
    y = replace(labels, max_gap="14D").label(bars)
    missing = labels.label(bars).index.difference(y.index)
    span = labels.span - (getattr(labels, "entry", "close") == "open")
    days_before = (shut - missing.get_level_values("time")).days
    assert len(missing)
    assert set(days_before) <= set(range(span))
    assert len(y)


def test_uniqueness_counts_the_labels_alive():
    # labels live on bars 1-2, 2-4, 3-4; nothing starts at 3
    weights = barriers.uniqueness(np.array([2, 4, 4, 3, 4]))
    np.testing.assert_allclose(weights[0], (1 + 1 / 2) / 2)
    np.testing.assert_allclose(weights[1], (1 / 2 + 1 / 2 + 1 / 2) / 3)
    np.testing.assert_allclose(weights[2], (1 / 2 + 1 / 2) / 2)
    assert np.isnan(weights[3:]).all()


def test_labels_of_every_bar_share_their_horizon():
    y = FixedHorizon(unit="return", horizon=4, delay=0).label(walk(seed=0))
    middle = y.loc["A"].iloc[10:-10]
    np.testing.assert_allclose(middle["weight"], 1 / 4)


def test_volatility_is_the_weighted_mean_of_the_squared_returns_known():
    close = walk(seed=0, assets="A", times=400)["close"].to_numpy().copy()
    sigma = barriers.volatility(close, np.array([0, 400]), 0.94)
    returns = pd.Series(np.log(close)).diff()
    recursive = (returns**2).ewm(alpha=0.06).mean() ** 0.5
    np.testing.assert_allclose(sigma[200:], recursive[200:], rtol=2e-3)  # old weights are cut
    assert np.isnan(sigma[:20]).all()
    assert np.isfinite(sigma[20:]).all()
    # where the history begins does not matter once the window is full
    np.testing.assert_array_equal(
        barriers.volatility(close[100:].copy(), np.array([0, 300]), 0.94)[113:], sigma[213:]
    )


def test_a_price_that_never_moves_or_is_missing_has_no_volatility():
    flat, broken = np.full(60, 5.0), np.r_[np.full(30, 5.0), np.nan, -1.0, 0.0]
    assert np.isnan(barriers.volatility(flat, np.array([0, 60]), 0.94)).all()
    assert np.isnan(barriers.volatility(broken, np.array([0, 33]), 0.94)).all()


def test_forward_thresholds_make_thirds_of_a_gaussian():
    sides = FixedHorizon().label(walk(seed=4, times=2000))["side"].value_counts(normalize=True)
    assert sides.between(0.29, 0.38).all()


def test_a_fixed_threshold_may_differ_up_and_down_and_drop_what_lies_between():
    bars = walk(seed=4)
    ret = forward_return(bars, 5, 1)
    held = FixedHorizon(unit="return", up=0.02, down=0.01).label(bars)
    expected = np.select([ret >= 0.02, ret <= -0.01], [1, -1], 0)[ret.notna()]
    np.testing.assert_array_equal(held["side"], expected)
    np.testing.assert_array_equal(held["ret"], ret.dropna())
    dropped = FixedHorizon(unit="return", up=0.02, down=0.01, between="drop").label(bars)
    np.testing.assert_array_equal(dropped["side"], expected[expected != 0])
    assert (FixedHorizon(unit="return", up=0.02, down=0.01).scale(bars) == 0.015).all()


def test_no_return_is_no_move_even_without_thresholds():
    bars = asset_bars(close=[100.0, 100.0, 100.0])
    y = FixedHorizon(unit="return", up=0, down=0, horizon=1, delay=0).label(bars)
    assert list(y["side"].iloc[-3:]) == [1, 0, 0]


def test_the_forward_return_counts_the_bars_of_the_asset():
    bars = walk(seed=0)
    ret, close = forward_return(bars, 5, 1).loc["B"], bars.loc["B", "close"]
    assert ret.iloc[7] == pytest.approx(close.iloc[13] / close.iloc[8] - 1)
    assert ret.iloc[-6:].isna().all()
    assert ret.iloc[:-6].notna().all()


def test_terciles_split_every_bar_into_thirds_by_return():
    bars = walk(seed=6, assets="ABCDEF")
    y = Terciles().label(bars)
    for _, bar in y.groupby(level="time"):
        ordered = bar.sort_values("ret")["side"]
        assert ordered.is_monotonic_increasing
        if len(bar) == 6:
            assert list(ordered) == [-1, -1, 0, 0, 1, 1]
    assert y.groupby(level="time").size().min() >= 3


def test_a_halted_asset_is_not_ranked_before_its_own_horizon_ends():
    bars = walk(seed=6, assets="ABCD")
    time = bars.index.get_level_values("time")
    halt = (time >= "2020-03-01") & (time < "2020-03-11")
    bars = bars[~((bars.index.get_level_values("asset") == "A") & halt)]
    y = Terciles(horizon=2, delay=0).label(bars)
    before = pd.Timestamp("2020-02-29 21:00", tz="UTC")
    assert ("A", before) not in y.index
    assert ("B", before) in y.index
    assert (y["end"] - y.index.get_level_values("time") == pd.Timedelta("2D")).all()


def test_assets_of_another_exchange_are_ranked_among_themselves():
    here = walk(seed=6, assets="ABCD")
    there = walk(seed=7, assets="WXYZ")
    times = there.index.get_level_values("time") - pd.Timedelta("4h")
    assets = there.index.get_level_values("asset")
    there = there.set_axis(pd.MultiIndex.from_arrays([assets, times], names=["asset", "time"]))
    expected = pd.concat([Terciles().label(here), Terciles().label(there)])
    pd.testing.assert_frame_equal(Terciles().label(pd.concat([here, there])), expected)


def test_given_labels_are_not_computed():
    assert Given().scale(walk(seed=0)) is None
    assert Given().span == 1
    with pytest.raises(DataError, match="no labels came with the data"):
        Given().label(walk(seed=0))


@pytest.mark.parametrize(
    ("labels", "settings"),
    [
        (TripleBarrier, {"horizon": 0}),
        (TripleBarrier, {"delay": -1}),
        (TripleBarrier, {"width": 0.0}),
        (TripleBarrier, {"decay": 1.0}),
        (TripleBarrier, {"entry": "open", "delay": 0}),
        (TripleBarrier, {"entry": "vwap"}),
        (TripleBarrier, {"max_gap": "-1D"}),
        (FixedHorizon, {"up": -0.1}),
        (FixedHorizon, {"between": "skip"}),
        (FixedHorizon, {"unit": "ticks"}),
    ],
)
def test_a_setting_out_of_range_is_refused_with_its_value(labels, settings):
    name, value = next(iter(settings.items()))
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        labels(**settings)


def test_a_panel_without_the_price_of_entry_is_refused():
    with pytest.raises(PanelError, match="'open'"):
        TripleBarrier(width=1, entry="open").label(walk(seed=0)[["close"]])


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda f: f.stem)
def test_every_configuration_makes_labels_that_share_the_horizon(file):
    cfg = OmegaConf.merge({"horizon": 3, "delay": 2}, {"labels": OmegaConf.load(file)})
    labels = instantiate(cfg.labels)
    assert (labels.horizon, labels.delay, labels.span) == (3, 2, 5)
    assert set(cfg.labels) - {"_target_"} <= set(vars(labels))
