"""What every feature, rule and context in conf/ owes the pipeline: one function a promise.

Each takes `make`, which turns bars into a table of float columns on the bars' index, and judges
all of its columns; where they differ, `warmups` says how many bars each needs before its first
value.
"""

import numpy as np
import pandas as pd
from pandas.testing import assert_frame_equal

from stages.panel import age, until

PRICES = ("open", "high", "low", "close", "vwap")


def starts_when_warm(make, bars, warmups):
    made, old = make(bars), age(bars)
    for name, unknown in made.isna().items():
        late = np.flatnonzero(unknown.to_numpy() != (old < warmups[name]))
        assert not len(late), f"{name} declares {warmups[name]} bars: row {late[:1]}"


def does_not_see_the_future(make, bars, time):
    then, whole = make(until(bars, time)), make(bars)
    assert_frame_equal(then, whole.loc[then.index], check_exact=True)
    garbage = bars.copy()
    late = bars.index.get_level_values("time") > time
    numbers = garbage.select_dtypes("number").columns
    noise = np.random.default_rng(5).lognormal(size=(late.sum(), len(numbers)))
    garbage.loc[late, numbers] = noise
    assert_frame_equal(then, make(garbage).loc[then.index], check_exact=True)


def needs_no_more_than_its_warmup(make, bars, warmup):
    """With that much history the last value is what the whole history gives."""
    last = make(bars).groupby("asset").tail(1)
    short = make(bars.groupby("asset").tail(warmup + 1)).groupby("asset").tail(1)
    assert short.notna().all(axis=None)
    assert_frame_equal(short, last, check_exact=False, rtol=1e-9, atol=1e-9)


def does_not_see_other_assets(make, bars):
    alone = make(bars.loc[["C"]])
    whole = make(bars)[alone.columns]
    assert_frame_equal(alone, whole.loc[["C"]], check_exact=True)


def does_not_care_for_the_order_of_assets(make, bars):
    names = bars.index.unique("asset")[::-1]
    assert_frame_equal(make(bars.loc[names]).loc[bars.index], make(bars), check_exact=True)


def loses_only_the_windows_that_span_a_missing_bar(make, bars, warmups, row):
    """`row` counts from the start of the last asset."""
    clean = make(bars)
    hole = len(bars) - bars.groupby("asset").size().iloc[-1] + row
    holed = bars.copy()
    holed.iloc[hole, [holed.columns.get_loc(c) for c in holed.select_dtypes("number")]] = np.nan
    made = make(holed)
    hit = np.arange(len(bars)) - hole
    assert made[hit < 0].equals(clean[hit < 0])
    for name, unknown in made.isna().items():
        spans = (hit >= 0) & (hit <= warmups[name])
        assert unknown.to_numpy()[spans].any(), f"{name} does not see the missing bar"
        assert not unknown.to_numpy()[hit > warmups[name]].any(), f"{name} remembers it for ever"
    known = made.notna()
    assert_frame_equal(made[known], clean[known], check_exact=False, rtol=1e-9, atol=1e-9)


def does_not_depend_on_the_currency(make, bars, loose=()):
    """Columns named `loose` by 1e-5, the others by 1e-8."""
    dear = bars.copy()
    dear[[c for c in PRICES if c in bars]] *= 1000.0
    dear["volume"] *= 7.0
    made, again = make(bars), make(dear)
    for names, atol in (([c for c in made if c not in loose], 1e-8), (list(loose), 1e-5)):
        assert_frame_equal(again[names], made[names], check_exact=False, rtol=1e-6, atol=atol)


def clean_bars(rng, assets="DBCA", times=520, stagger=0):
    """Random bars with a range around each close; each asset listed `stagger` after the last."""
    days = pd.bdate_range("2019-01-01", periods=times, tz="UTC").as_unit("us")
    shared = rng.normal(0, 0.008, times)
    tables = {}
    for k, name in enumerate(assets):
        moves = 0.0003 + shared + rng.standard_t(5, times) * 0.01
        close = 20 * (k + 1) * np.exp(moves.cumsum())
        before = np.concatenate([[close[0]], close[:-1]])
        wiggle = np.exp(np.abs(rng.normal(0, 0.006, (2, times))))
        table = pd.DataFrame(
            {
                "open": before * np.exp(rng.normal(0, 0.003, times)),
                "high": np.maximum(close, before) * wiggle[0],
                "low": np.minimum(close, before) / wiggle[1],
                "close": close,
                "volume": rng.lognormal(12, 0.6, times).round(),
            },
            days,
        )
        typical = table[["high", "low", "close"]].mean(axis=1)
        tables[name] = table.assign(vwap=typical).iloc[k * stagger :]
    return pd.concat(tables, names=["asset", "time"])
