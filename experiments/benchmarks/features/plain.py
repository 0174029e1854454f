"""Columns of features=default as one would write them in pandas: groupby, shift, rolling, rank."""

import numpy as np
import pandas as pd


class Plain:
    """A panel of bars and the few verbs that its columns need."""

    def __init__(self, bars: pd.DataFrame, market: pd.Series) -> None:
        self.bars, self.market = bars, market

    def before(self, x: pd.Series, bars: int = 1) -> pd.Series:
        return x.groupby(level="asset", sort=False).shift(bars)

    def rolling(self, x: pd.Series, bars: int):
        return _Rolling(x.groupby(level="asset", sort=False).rolling(bars))

    def move(self, x: pd.Series, bars: int = 1) -> pd.Series:
        return np.log(x / self.before(x, bars))

    def rank(self, x: pd.Series) -> pd.Series:
        by_time = x.groupby(level="time", sort=False)
        return by_time.rank(pct=True) - 0.5 / by_time.transform("count") - 0.5

    def score(self, x: pd.Series) -> pd.Series:
        by_time = x.groupby(level="time", sort=False)
        return (x - by_time.transform("mean")) / by_time.transform("std")

    def columns(self) -> dict[str, pd.Series]:
        """Every column that is plain to write, by its name in conf/features/default.yaml."""
        return {**self.prices(), **self.ranges(), **self.flows(), **self.across()}

    def prices(self) -> dict[str, pd.Series]:
        close, made = self.bars["close"], {}
        r, roll, before = self.move(close), self.rolling, self.before
        for n in (1, 2, 3, 5, 10, 20, 60, 120, 252):
            made[f"return_{n}"] = self.move(close, n)
        for n in (10, 20, 60):
            made[f"volatility_{n}"] = roll(r, n).std()
        for n in (20, 60, 120):
            made[f"momentum_{n}"] = self.move(close, n) / (roll(r, n).std() * np.sqrt(n))
        for n in (5, 10, 20, 50, 200):
            made[f"sma_{n}"] = np.log(close / roll(close, n).mean())
        for fast, slow in ((20, 50), (50, 200)):
            cross = np.log(roll(close, fast).mean() / roll(close, slow).mean())
            made[f"sma_cross_{fast}_{slow}"] = cross
        made["momentum_252_21"] = np.log(before(close, 21) / before(close, 252))
        made["drawdown_252"] = np.log(close / roll(close, 252).max())
        made["above_low_252"] = np.log(close / roll(close, 252).min())
        made["largest_return_20"] = roll(r, 20).max()
        made["volatility_ratio"] = np.log(roll(r, 10).std() / roll(r, 60).std())
        path = roll((close - before(close)).abs(), 20).sum()
        made["efficiency_20"] = (close - before(close, 20)) / path
        spread, mean = roll(close, 20).std(ddof=0), roll(close, 20).mean()
        made["bollinger_percent"] = 0.5 + (close - mean) / (4 * spread)
        made["bollinger_width"] = 4 * spread / mean
        made["downside_60"] = roll(r.clip(upper=0) ** 2, 60).sum() / roll(r**2, 60).sum()
        volatility = roll(r, 20).std()
        mean_of = roll(volatility, 60).mean()
        made["volatility_of_volatility"] = roll(volatility, 60).std() / mean_of
        fall = close / roll(close, 60).max() - 1
        made["ulcer_60"] = np.sqrt(roll(fall**2, 60).mean())
        still = (close == before(close)).astype(float).where(r.notna())
        made["standing_60"] = roll(still, 60).mean()
        for n in (20, 60):
            made[f"beyond_market_{n}"] = self.move(close, n) - self.move(self.market, n)
        return made

    def ranges(self) -> dict[str, pd.Series]:
        names = ("open", "high", "low", "close")
        opened, high, low, close = (self.bars[name] for name in names)
        made, roll, before = {}, self.rolling, self.before
        top, bottom = roll(high, 14).max(), roll(low, 14).min()
        raw = 100 * (close - bottom) / (top - bottom)
        made["williams_r"] = raw - 100
        made["stochastic_k"] = roll(raw, 3).mean()
        made["stochastic_d"] = roll(made["stochastic_k"], 3).mean()
        h, lo, o, c = (np.log(x) for x in (high, low, opened, close))
        made["parkinson_20"] = np.sqrt(roll((h - lo) ** 2, 20).mean() / (4 * np.log(2)))
        garman = 0.5 * (h - lo) ** 2 - (2 * np.log(2) - 1) * (c - o) ** 2
        made["garman_klass_20"] = np.sqrt(roll(garman, 20).mean())
        shadows = (h - c) * (h - o) + (lo - c) * (lo - o)
        made["rogers_satchell_20"] = np.sqrt(roll(shadows, 20).mean())
        k, gap = 0.34 / (1.34 + 21 / 19), o - before(c)
        variance = roll(gap, 20).var() + k * roll(c - o, 20).var()
        made["yang_zhang_20"] = np.sqrt(variance + (1 - k) * roll(shadows, 20).mean())
        made["gap"] = gap
        made["overnight_20"] = roll(gap, 20).sum()
        made["within_bars_20"] = roll(c - o, 20).sum()
        for n in (20, 60):
            made[f"support_{n}"] = c - np.log(before(roll(low, n).min()))
            made[f"resistance_{n}"] = c - np.log(before(roll(high, n).max()))
        for n in (20, 55):
            top, bottom = before(roll(high, n).max()), before(roll(low, n).min())
            beyond = (close - top).clip(lower=0) - (bottom - close).clip(lower=0)
            made[f"breakout_{n}"] = beyond / (top - bottom)
        span = high - low
        made["body"] = (close - opened) / span
        made["upper_shadow"] = (high - np.maximum(opened, close)) / span
        made["lower_shadow"] = (np.minimum(opened, close) - low) / span
        made["close_place"] = (2 * close - high - low) / span
        made["body_20"] = roll((close - opened).abs(), 20).sum() / roll(span, 20).sum()
        return made

    def flows(self) -> dict[str, pd.Series]:
        high, low, close, volume = (self.bars[n] for n in ("high", "low", "close", "volume"))
        made, roll, before = {}, self.rolling, self.before
        typical, money, r = (high + low + close) / 3, close * volume, self.move(close)
        flow, up = typical * volume, typical - before(typical)
        into, out_of = flow.where(up > 0, 0 * up), flow.where(up < 0, 0 * up)
        into, out_of = roll(into, 14).sum(), roll(out_of, 14).sum()
        made["mfi_14"] = 100 * into / (into + out_of)
        signed = np.sign(close - before(close)) * volume
        made["obv_20"] = roll(signed, 20).sum() / roll(volume, 20).sum()
        made["volume_60"] = (volume - roll(volume, 60).mean()) / roll(volume, 60).std()
        made["turnover_120"] = (money - roll(money, 120).mean()) / roll(money, 120).std()
        known = money + 0 * r
        fast = roll(r.abs(), 20).sum() / roll(known, 20).sum()
        slow = roll(r.abs(), 120).sum() / roll(known, 120).sum()
        made["illiquidity"] = np.log(fast / slow)
        place = ((close - low) - (high - close)) / (high - low) * volume
        made["cmf_20"] = roll(place, 20).sum() / roll(volume, 20).sum()
        for n in (20, 60):
            paid = roll(typical * volume, n).sum() / roll(volume, n).sum()
            made[f"vwap_{n}"] = np.log(close / paid)
        usual = before(roll(volume, 20).median())
        made["unusual_volume_20"] = np.log1p(volume / usual)
        mean = roll(volume, 60).mean()
        spikes = (volume > 2 * mean).astype(float).where(mean.notna())
        made["volume_spikes_20"] = roll(spikes, 20).mean()
        made["money_trend"] = np.log(roll(money, 20).mean() / roll(money, 120).mean())
        return made

    def across(self) -> dict[str, pd.Series]:
        own = self.prices_of_ranks()
        made = {
            "rank_momentum": self.rank(own["momentum"]),
            "rank_reversal": self.rank(own["five"]),
            "rank_volatility": self.rank(own["volatility"]),
            "rank_return_20": self.rank(own["month"]),
            "z_return_1": self.score(own["one"]),
            "z_return_5": self.score(own["five"]),
            "z_momentum": self.score(own["momentum"]),
            "z_volatility": self.score(own["volatility"]),
        }
        by_time = own["month"].groupby(level="time", sort=False)
        made["dispersion_20"] = by_time.transform("std").where(own["month"].notna())
        return made

    def prices_of_ranks(self) -> dict[str, pd.Series]:
        close = self.bars["close"]
        return {
            "one": self.move(close),
            "five": self.move(close, 5),
            "month": self.move(close, 20),
            "momentum": np.log(self.before(close, 21) / self.before(close, 252)),
            "volatility": self.rolling(self.move(close), 60).std(),
        }


class _Rolling:
    """Rolling windows whose results have the index of the panel again."""

    def __init__(self, windows) -> None:
        self.windows = windows

    def __getattr__(self, name: str):
        return lambda *words, **settings: getattr(self.windows, name)(*words, **settings).droplevel(
            0
        )
