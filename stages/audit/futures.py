"""Other futures for the same past: what an honest pipeline cannot tell apart at a decision time."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from stages.panel import asset_codes, asset_starts

Future = Callable[[pd.DataFrame, pd.Timestamp, np.random.Generator], pd.DataFrame]

PRICES = ("open", "high", "low", "close", "market", "bid", "ask")
OPPOSITE = {"high": "low", "low": "high", "bid": "ask", "ask": "bid"}
AHEAD = 64  # bars of a short future; a look beyond them meets nothing, which shows as well
WORN = (1, 2, 5, 12)  # bars before the decision time that an asset of the worn past lacks
VOLATILITY = 0.05  # log return a bar of a garbage price
JUMPS = (1 / 16, 1 / 4, 4.0, 16.0)  # large enough to change who is larger
TIMED = ("bar_", "closed_")  # ends of longer bars: a calendar says them, whatever the future
FEW = 9  # fewer different whole numbers than this are codes, not measures


def cut(bars: pd.DataFrame, time: pd.Timestamp, rng: np.random.Generator) -> pd.DataFrame:
    """Nothing after `time`: truncate and compare."""
    return bars[~later_than(bars, time)]


def garbage(bars: pd.DataFrame, time: pd.Timestamp, rng: np.random.Generator) -> pd.DataFrame:
    """Other prices, volumes and columns of every kind after `time`; each bar stays a valid bar."""
    later = later_than(bars, time)
    codes, n = asset_codes(bars)[later], int(later.sum())
    made: dict[str, np.ndarray] = {}
    for name in _numbers(bars):
        old = bars[name].to_numpy()[later]
        if name == "close":
            walk = pd.Series(rng.normal(0, VOLATILITY, n)).groupby(codes).cumsum()
            made |= _bar(old * np.exp(walk.to_numpy()), rng)
        elif name == "market":
            made[name] = old * np.exp(rng.normal(0, VOLATILITY, n))
        elif name not in PRICES:
            made[name] = _noise(old, rng)
    return _replaced(bars, later, made)


def mirrored(bars: pd.DataFrame, time: pd.Timestamp, rng: np.random.Generator) -> pd.DataFrame:
    """Every later return with its sign turned; what is no price comes in the opposite order."""
    later = later_than(bars, time)
    backwards = _backwards(bars, later)
    made: dict[str, np.ndarray] = {}
    for name in _numbers(bars):
        if name not in PRICES:
            made[name] = bars[name].to_numpy()[backwards]
            continue
        swapped = OPPOSITE.get(name, name)
        old = bars[swapped if swapped in bars else name].to_numpy()[later]
        centre = _last_known(bars, "market" if name == "market" else "close", later)
        with np.errstate(divide="ignore", invalid="ignore"):
            turned = np.where((centre > 0) & (old > 0), centre**2 / old, 2 * centre - old)
        made[name] = np.where(np.isfinite(turned), turned, old)
    return _replaced(bars, later, made)


def jumped(bars: pd.DataFrame, time: pd.Timestamp, rng: np.random.Generator) -> pd.DataFrame:
    """Another level after `time`, returns kept: each asset and column by a factor of its own."""
    later = later_than(bars, time)
    codes = asset_codes(bars)[later]
    sizes = rng.choice(JUMPS, (2, codes.max(initial=0) + 1))  # of prices, of the rest
    made: dict[str, np.ndarray] = {}
    for name in _numbers(bars):
        old = bars[name].to_numpy()[later]
        if _coded(old):
            made[name] = np.roll(old, len(old) // 2)
        else:
            made[name] = old * sizes[int(name not in PRICES)][codes]
    return _replaced(bars, later, made)


def relisted(bars: pd.DataFrame, time: pd.Timestamp, rng: np.random.Generator) -> pd.DataFrame:
    """Garbage at other levels: assets leave after `time`, sessions are missing, one is new."""
    out = jumped(garbage(bars, time, rng), time, rng)
    later = later_than(out, time)
    assets, times = (out.index.get_level_values(level) for level in ("asset", "time"))
    names = assets.unique()
    gone = _some(names, rng) if len(names) > 1 else names[:0]
    closed = _some(times[later].unique(), rng) if later.any() else times[:0]
    shut = later & times.isin(closed)
    fresh = out[later & ~shut & (assets == names[0])]
    fresh.index = pd.MultiIndex.from_arrays(
        [pd.Index([f"{names[0]}.new"] * len(fresh), dtype="str"), fresh.index.droplevel("asset")],
        names=out.index.names,
    )
    return pd.concat([out[~(shut | (later & assets.isin(gone)))], fresh])


def delisted(bars: pd.DataFrame, time: pd.Timestamp, rng: np.random.Generator) -> pd.DataFrame:
    """Garbage in which one asset has no bar after `time`."""
    out = garbage(bars, time, rng)
    assets = out.index.get_level_values("asset")
    gone = rng.choice(assets.unique().to_numpy(dtype="str"))
    return out[~(later_than(out, time) & (assets == gone))]


FUTURES: dict[str, Future] = {
    "garbage": garbage,
    "mirrored": mirrored,
    "cut": cut,
    "relisted": relisted,
    "jumped": jumped,
}


def soon(bars: pd.DataFrame, time: pd.Timestamp) -> pd.DataFrame:
    """`bars` up to `AHEAD` bars after `time`."""
    times = bars.index.unique("time").sort_values()
    last = times[min(int(times.searchsorted(time, side="right")) + AHEAD, len(times)) - 1]
    return bars[~later_than(bars, last)]


def worn(bars: pd.DataFrame, time: pd.Timestamp, rng: np.random.Generator) -> pd.DataFrame:
    """The same bars with holes in the past, for both worlds of a comparison to share.

    A third of the assets has no values in the last 1, 2, 5 or 12 bars up to `time`, another third
    lacks the bars themselves: only then does a fill from the future have something to fill.
    """
    codes, past = asset_codes(bars), ~later_than(bars, time)
    by_asset = pd.Series(past).groupby(codes)
    left = by_asset.transform("sum").to_numpy()
    back = left - by_asset.cumsum().to_numpy()  # 0 at the last bar up to `time`
    assets = codes.max(initial=-1) + 1
    length = rng.choice(WORN, assets)[codes]
    kind = (rng.permutation(assets) % 3)[codes]
    hole = past & (back < length) & (left > length)  # never a whole history
    floats = [str(name) for name in bars if bars[name].dtype.kind == "f"]
    nothing = {name: np.full(int((hole & (kind == 0)).sum()), np.nan) for name in floats}
    return _replaced(bars, hole & (kind == 0), nothing)[~(hole & (kind == 1))]


def later_than(table: pd.DataFrame, time: pd.Timestamp) -> np.ndarray:
    """Which rows of `table` lie after `time`: bool, shape (N,)."""
    return np.asarray(table.index.get_level_values("time") > time)


def _numbers(bars: pd.DataFrame) -> list[str]:
    numbers = [str(name) for name in bars if bars[name].dtype.kind in "fiu"]
    return [name for name in numbers if not name.startswith(TIMED)]


def _replaced(bars: pd.DataFrame, rows: np.ndarray, made: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """`bars` with those of the columns `made` that it has, at `rows`; what was NaN stays it."""
    out = {}
    for name, values in made.items():
        if name in bars:
            column = bars[name].to_numpy(copy=True)
            old = column[rows]
            column[rows] = np.where(old == old, values, old)  # noqa: PLR0124
            out[name] = column
    return bars.assign(**out)


def _coded(values: np.ndarray) -> bool:
    """Whether a column holds a few whole numbers, such as a regime."""
    known = values[np.isfinite(values)]
    return bool((known == np.round(known)).all()) and len(np.unique(known)) < FEW


def _noise(old: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other values of the same kind: codes stay among themselves."""
    mixed = rng.permutation(old)
    return mixed if _coded(old) else mixed * rng.lognormal(0, 1, len(old))


def _bar(close: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Bars around new closes, negative ones too: low <= open, close <= high, bid <= ask."""
    at_open = close * np.exp(rng.normal(0, VOLATILITY / 2, len(close)))
    up, down = np.abs(close) * rng.uniform(0, VOLATILITY, (2, len(close)))
    return {
        "open": at_open,
        "high": np.maximum(close, at_open) + up,
        "low": np.minimum(close, at_open) - down,
        "close": close,
        "bid": close - down / 10,
        "ask": close + up / 10,
    }


def _backwards(bars: pd.DataFrame, later: np.ndarray) -> np.ndarray:
    """Row numbers of each asset's later rows, last first."""
    starts = asset_starts(bars)
    parts = [
        first + np.flatnonzero(later[first:stop])[::-1]
        for first, stop in zip(starts[:-1], starts[1:], strict=True)
    ]
    return np.concatenate([np.zeros(0, dtype=int), *parts])


def _last_known(bars: pd.DataFrame, name: str, later: np.ndarray) -> np.ndarray:
    """Each asset's last value of `name` before its future, per later row; its own if none."""
    if name not in bars:
        return np.full(int(later.sum()), np.nan)
    past = bars[name].mask(later).groupby(asset_codes(bars)).ffill()
    return past.fillna(bars[name]).to_numpy()[later]


def _some(names: pd.Index, rng: np.random.Generator) -> pd.Index:
    """A third of `names`, at least one of them."""
    return names[np.sort(rng.permutation(len(names))[: max(len(names) // 3, 1)])]
