"""The trend policy of conf/portfolio/etf_trend.yaml as one would write it in plain pandas.

Indicators are computed once for all days, with `ewm` and `rolling`; then one loop over the days.
Exponential averages remember the first price, those of the package a fixed number of bars, so the
two trade alike but not identically.
"""

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

BUY, HOLD, PER_CLUSTER, EACH, GROUP, ALL, BAND = 10, 15, 2, 0.15, 0.30, 0.95, 0.02


def frames(prices):
    """Tables of time by asset."""
    bars, assets = prices["close"].shape
    times = pd.date_range("2010-01-01 21:00", periods=bars, freq="B", tz="UTC")
    names = [f"E{k:03d}" for k in range(assets)]
    return {name: pd.DataFrame(table, times, names) for name, table in prices.items()}


def indicators(prices):
    """Trend strength, momentum score, volatility and range of every day."""
    close, high, low = prices["close"], prices["high"], prices["low"]
    returns = np.log(close).diff()
    volatility = np.sqrt((returns**2).ewm(alpha=0.06).mean())
    fast, slow = close.ewm(span=12).mean(), close.ewm(span=26).mean()
    line = fast - slow
    macd = (line - line.ewm(span=9).mean()) / close / volatility
    path = close.diff().abs().rolling(10).sum()
    speed = ((close.diff(10).abs() / path) * (2 / 3 - 2 / 31) + 2 / 31) ** 2
    average = close.copy()
    for t in range(11, len(close)):
        before = average.iloc[t - 1]
        average.iloc[t] = before + speed.iloc[t] * (close.iloc[t] - before)
    kama = np.log(close / average) / volatility
    weaker = macd.where(macd.abs() < kama.abs(), kama)
    strength = weaker.where(macd * kama > 0, 0.0)
    score = sum(
        w * np.log(close / close.shift(n)) / (returns.rolling(n).std() * np.sqrt(n))
        for n, w in ((20, 0.3), (60, 0.4), (120, 0.3))
    )
    before = close.shift()
    span = np.maximum(high, before) - np.minimum(low, before)
    return {
        "returns": returns,
        "volatility": volatility,
        "strength": strength,
        "score": score,
        "range": span.ewm(alpha=1 / 14).mean(),
        "market": close.mean(axis=1),
    }


def clusters_of(returns):
    """Groups of assets that move together."""
    distance = (1 - returns.corr()).clip(0, 2).to_numpy(copy=True)
    np.fill_diagonal(distance, 0)
    labels = fcluster(linkage(squareform(distance, checks=False), "average"), 0.3, "distance")
    return pd.Series(labels, returns.columns)


def capped(claims, groups):
    """Weights in proportion to claims under the caps of an asset, a group and all."""
    weights = pd.Series(0.0, claims.index)
    free = pd.Series(True, claims.index)
    while free.any() and ALL - weights.sum() > 1e-12:
        share = claims.where(free, 0.0)
        weights = weights + share * (ALL - weights.sum()) / share.sum()
        over = weights >= EACH
        weights = weights.clip(upper=EACH)
        sums = weights.groupby(groups).transform("sum")
        full = sums >= GROUP
        weights = weights.where(~full, weights * GROUP / sums)
        free &= ~over & ~full
    return weights


def simulate(prices, trip=0.0004, capital=1e6, warmup=209):  # noqa: C901, PLR0912  one plain loop
    """Equity by day, and the number of fills."""
    known = indicators(prices)
    close, opened = prices["close"], prices["open"]
    cash, shares = capital, pd.Series(0.0, close.columns)
    entered, entry, highest = {}, {}, {}
    orders, groups, equity, fills = {}, None, {}, 0
    for day, time in enumerate(close.index[warmup:]):
        row = close.loc[time]
        for asset, amount in sorted(orders.items(), key=lambda item: item[1]):
            price = opened.loc[time, asset]
            if amount > 0:
                amount = min(amount, cash // (price * (1 + trip / 2)))
            if not amount:
                continue
            cash -= amount * price + abs(amount) * price * trip / 2
            if not shares[asset]:
                entered[asset], entry[asset], highest[asset] = day, price, price
            shares[asset] += amount
            fills += 1
        held = shares.index[shares > 0]
        worth = cash + (shares * row).sum()
        equity[time] = worth
        for asset in held:
            highest[asset] = max(highest[asset], row[asset])
        if day % 20 == 0:
            groups = clusters_of(known["returns"].loc[:time].tail(60))
        market = known["market"].loc[:time].tail(252)
        blocked = market.iloc[-1] / market.max() - 1 < -0.10
        stopped = set()
        for asset in held:
            fell = row[asset] < highest[asset] - 2 * known["range"].loc[time, asset]
            stale = day - entered[asset] >= 60 and row[asset] / entry[asset] - 1 < -0.05
            if fell or stale:
                stopped.add(asset)
        orders = {asset: -shares[asset] for asset in stopped}
        if day % 5:
            continue
        side = np.sign(known["strength"].loc[time])
        score = known["score"].loc[time] + 0.05 * (shares > 0)
        fine = ((side > 0) | ((shares > 0) & (side == 0))) & ~shares.index.isin(stopped)
        rank = score[fine].rank(ascending=False, method="first").sort_values()
        keep, full = [], {}
        for asset in [a for a in rank.index if shares[a] > 0 and rank[a] <= HOLD]:
            if full.get(groups[asset], 0) < PER_CLUSTER:
                keep.append(asset)
                full[groups[asset]] = full.get(groups[asset], 0) + 1
        for asset in () if blocked else rank.index[rank <= BUY]:
            if shares[asset] == 0 and full.get(groups[asset], 0) < PER_CLUSTER:
                keep.append(asset)
                full[groups[asset]] = full.get(groups[asset], 0) + 1
        for asset in held:
            if asset not in keep and asset not in stopped:
                orders[asset] = -shares[asset]
        if not keep:
            continue
        weights = capped(1 / known["volatility"].loc[time, keep], groups[keep])
        for asset, weight in weights.items():
            wanted = weight * worth
            have = shares[asset] * row[asset]
            if shares[asset] and abs(have - wanted) <= BAND * worth:
                continue
            change = wanted // row[asset] - shares[asset]
            if change < 0 or not blocked:
                orders[asset] = change
    return pd.Series(equity), fills
