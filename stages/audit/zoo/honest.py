"""Random bars, and sixty honest pipelines on them: an audit must find nothing."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

TICK = 0.01  # log return of a bar, standard deviation


@dataclass(frozen=True)
class Bars:
    """How random bars are drawn.

    Attributes
    ----------
    assets, times, seed : int
    ragged : bool
        Assets are listed and leave at different times, and sessions are missing.
    ohlcv : bool
        With open, high, low and volume; else closes alone.
    minutes : int
        Between two bars; a day has 1440.
    """

    assets: int = 5
    times: int = 320
    seed: int = 0
    ragged: bool = False
    ohlcv: bool = True
    minutes: int = 1440

    def draw(self) -> pd.DataFrame:
        """A panel of bars with volatility that clusters; prices above 0."""
        rng = np.random.default_rng(self.seed)
        times = pd.date_range(
            "2020-01-01 21:00", periods=self.times, freq=f"{self.minutes}min", tz="UTC"
        ).as_unit("us")
        shared = rng.normal(0, TICK / 2, self.times)
        tables = {}
        for k in range(self.assets):
            heat = np.exp(0.3 * np.sin(np.arange(self.times) / 17 + k))
            move = shared + heat * rng.standard_t(5, self.times) * TICK * 0.7
            close = 20 * (k + 1) * np.exp(np.cumsum(move))
            table = pd.DataFrame({"close": close}, times)
            if self.ohlcv:
                table = _bar(close, rng, times)
            tables[f"A{k:02d}"] = table[self._present(rng, k)]
        return pd.concat(tables, names=["asset", "time"])

    def _present(self, rng: np.random.Generator, asset: int) -> np.ndarray:
        here = np.ones(self.times, dtype=bool)
        if self.ragged:
            here &= rng.random(self.times) > 0.03
            first, last = rng.integers(0, self.times // 6, 2)
            here[: first if asset else 0] = False
            here[self.times - (last if asset else 0) :] = False
        return here


def _bar(close: np.ndarray, rng: np.random.Generator, times: pd.DatetimeIndex) -> pd.DataFrame:
    at_open = np.concatenate([close[:1], close[:-1]]) * np.exp(rng.normal(0, TICK / 4, len(close)))
    up, down = np.exp(np.abs(rng.normal(0, TICK / 2, (2, len(close)))))
    return pd.DataFrame(
        {
            "open": at_open,
            "high": np.maximum(close, at_open) * up,
            "low": np.minimum(close, at_open) / down,
            "close": close,
            "volume": rng.lognormal(12, 0.5, len(close)).round(),
        },
        times,
    )


@dataclass(frozen=True)
class Honest:
    """A pipeline without a leak.

    Attributes
    ----------
    words : tuple of str
        What its configuration differs in.
    bars : Bars or None
        None: a planted market, whose features and labels come with the data.
    columns : tuple of str
        Features taken of those of the configuration; context and rules as far as they warm up.
    """

    words: tuple[str, ...]
    bars: Bars | None
    columns: tuple[str, ...]


CLOSES = ("return_1", "return_5", "momentum_20", "volatility_10", "sma_10", "return_20")
WIDE = ("market_return_5", "market_return_20", "rank_reversal")
RANGES = ("stochastic_k", "williams_r", "cci_20")
VOLUMES = ("obv_20", "mfi_14")


def honest(number: int) -> Honest:
    """The honest pipeline with this number: drawn once, the same for ever."""
    rng = np.random.default_rng(number)

    def one(*options: str) -> str:
        return str(rng.choice(options))

    horizon, delay = int(rng.choice([1, 2, 3, 5, 8])), int(rng.integers(0, 2))
    words = [
        *(f"horizon={horizon}", f"delay={delay}", f"seed={number}"),
        f"window={rng.choice([4, 8, 12])}",
        f"filter={one('lightgbm', 'lightgbm', 'xgboost', 'forest', 'quick')}",
        f"refiner={one('none', 'none', 'quick', 'tcn')}",
        f"folds.n_folds={rng.integers(3, 6)}",
        f"folds.first={rng.choice([0.3, 0.4, 0.5])}",
        f"folds.embargo={horizon + int(rng.integers(0, 4))}",
        f"decide={one('default', 'strict')}",
        f"costs={one('default', 'none')}",
    ]
    if rng.random() < 0.15:
        given = ["features=given", "labels=given", "costs=none", "horizon=1", "delay=0"]
        return Honest((*words[2:-1], *given), None, ())
    labels = one("triple_barrier", "triple_barrier", "fixed_horizon", "terciles")
    words.append(f"labels={labels}")
    bars = Bars(
        assets=int(rng.integers(4, 9)),
        times=560,
        seed=number,
        ragged=bool(rng.random() < 0.4),
        ohlcv=bool(rng.random() < 0.7),
        minutes=int(rng.choice([1440, 1440, 60, 5])),
    )
    columns = [c for c in (*CLOSES, *WIDE) if rng.random() < 0.6] or list(CLOSES)
    if "rank_reversal" in columns:
        columns.append("return_5")  # what it ranks
    if "filter=quick" in words and "refiner=none" not in words and rng.random() < 0.5:
        words.append("ensemble=soft_vote")
    if bars.ohlcv:
        columns += [c for c in (*RANGES, *VOLUMES) if rng.random() < 0.5]
        if labels == "triple_barrier" and delay and rng.random() < 0.5:
            words.append("labels.entry=open")
    return Honest(tuple(words), bars, tuple(columns))
