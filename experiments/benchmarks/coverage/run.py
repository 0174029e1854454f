"""How often sets and intervals hold: ``python experiments/benchmarks/coverage/run.py [SEEDS]``.

Simulated GARCH returns whose volatility trebles half-way, the planted market `drift_volatility`,
and real closes at $SIEVE_DATA or ../shared/data. The first 250 bars calibrate the static methods
and are not reported.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from stages.ensemble.conformal import COLUMNS, Coverage
from stages.ensemble.quantile import AdaptiveConformal, ConformalPI
from stages.labels import TripleBarrier
from stages.markets.drift import drift_volatility
from stages.panel import until

ODDS = ["p_sell", "p_hold", "p_buy"]
WINDOW = CALIBRATION = 250  # bars
GOALS = np.array([0.90, 0.90])  # least coverage of the worst window, and of that after the shift
REAL = {
    "m6_assets_daily_100_2018_2022.parquet": ("adj_close", "2020-02-20"),
    "us_equity_daily_296_1990_2006.parquet": ("close", "2000-03-10"),
}


def garch(seed: int, times: int, assets: int, shift: float = 3.0, common: float = 0.3):
    """Returns (T, A), fractions: GARCH(1, 1) with t5 shocks, of which assets share a part."""
    rng = np.random.default_rng(seed)
    shared, own = rng.standard_t(5, (times, 1)), rng.standard_t(5, (times, assets))
    shock = (np.sqrt(common) * shared + np.sqrt(1 - common) * own) / np.sqrt(5 / 3)
    returns, variance = np.empty((times, assets)), np.ones(assets)
    for t in range(times):
        returns[t] = np.sqrt(variance) * shock[t]
        variance = 0.02 + 0.08 * returns[t] ** 2 + 0.90 * variance
    return 0.01 * returns * np.where(np.arange(times) < times // 2, 1, shift)[:, None]


def volatility_before(returns: np.ndarray, decay: float = 0.94) -> np.ndarray:
    """Exponentially weighted volatility known before each bar, (T, A)."""
    variance = np.empty_like(returns)
    variance[0] = 1e-4
    for t in range(1, len(returns)):
        variance[t] = decay * variance[t - 1] + (1 - decay) * returns[t - 1] ** 2
    return np.sqrt(variance)


def followed(tracker, scores: np.ndarray) -> np.ndarray:
    """Quantile in force at each bar of one asset, scores (T,)."""
    issued = np.full(len(scores), np.nan)
    for t in range(1, len(scores)):
        issued[t] = tracker.learn(scores[t - 1 : t], issued[t - 1 : t])
    return issued


def one_asset(seeds: int, times: int = 3000) -> None:
    """The comparison of ml-core, section 6: one asset, one bar ahead."""
    rows: dict[str, list[np.ndarray]] = {}
    for seed in range(seeds):
        returns = garch(seed, times, 1)
        raw = np.abs(returns)[:, 0]
        scaled = raw / volatility_before(returns)[:, 0]
        skip, first = np.arange(times) < CALIBRATION, slice(20, CALIBRATION)
        issued = {
            "static, abs(r)": (raw, np.full(times, np.quantile(raw[first], 0.95))),
            "static, abs(r)/ewma": (scaled, np.full(times, np.quantile(scaled[first], 0.95))),
            "ACI .02, abs(r)": (raw, followed(AdaptiveConformal(window=250, gamma=0.02), raw)),
            "PI, abs(r)": (raw, followed(ConformalPI(), raw)),
        }
        for gamma in (0.005, 0.02):
            tracker = AdaptiveConformal(window=250, gamma=gamma)
            issued[f"ACI {gamma}, abs(r)/ewma"] = scaled, followed(tracker, scaled)
        issued["PI, abs(r)/ewma"] = scaled, followed(ConformalPI(), scaled)
        for name, (scores, quantiles) in issued.items():
            held = pd.Series(np.where(skip, np.nan, scores <= quantiles))
            infinite = np.isinf(quantiles[~skip]).mean()
            rows.setdefault(name, []).append(np.append(summary(held, times // 2), infinite))
    show("GARCH, one asset, horizon 1, delay 0", rows, ["never ends"])


def summary(held: pd.Series, shift: int) -> np.ndarray:
    """Overall, worst window, and the window from bar `shift` on, of coverage by bar."""
    after = held.iloc[shift : shift + WINDOW].mean()
    kept = held.dropna()
    return np.array([kept.mean(), kept.rolling(WINDOW).mean().min(), after])


def bars_of(returns: np.ndarray) -> pd.DataFrame:
    times = pd.bdate_range("2000-01-03 21:00", periods=len(returns), tz="UTC").as_unit("us")
    names = [f"A{a:03d}" for a in range(returns.shape[1])]
    index = pd.MultiIndex.from_product([names, times], names=["asset", "time"])
    return pd.DataFrame({"close": 100 * np.cumprod(1 + returns, axis=0).T.ravel()}, index)


def noisy_odds(bars: pd.DataFrame, y: pd.DataFrame, seed: int) -> dict[str, np.ndarray]:
    """Odds that know a little of the outcome."""
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(len(bars), 3))
    side = y["side"].reindex(bars.index, fill_value=0).to_numpy()
    drawn[np.arange(len(bars)), side + 1] += 0.4
    odds = np.exp(drawn)
    return dict(zip(ODDS, (odds / odds.sum(axis=1, keepdims=True)).T, strict=True))


def methods(coverage: dict, panel: pd.DataFrame, outcomes: pd.DataFrame):
    """Yield (name, interval and set of each outcome): frozen after the first bars, or tracked."""
    bars = np.sort(outcomes["end"].unique())
    early = outcomes[outcomes["end"] < bars[CALIBRATION]]
    whole = Coverage(**coverage)
    rows = panel.loc[early.index]
    unit = (rows["sigma"] * np.sqrt(whole.horizon)).to_numpy()
    centre = (rows["p_buy"] - rows["p_sell"]).to_numpy() * unit
    r = early["forward_return"].to_numpy()
    p = panel.loc[outcomes.index]
    flat = np.nanquantile(np.abs(r), 0.95)
    scaled = np.nanquantile(np.abs(r - centre) / unit, 0.95)
    paid = rows[ODDS].to_numpy()[np.arange(len(rows)), early["side"].astype(int) + 1]
    reach = np.nanquantile(1 - paid, 0.95)
    sets = (1 - p[ODDS] <= reach).to_numpy() | p[ODDS].eq(p[ODDS].max(axis=1), axis=0).to_numpy()
    known = p["sigma"].notna().to_numpy()[:, None]
    width = (p["sigma"] * np.sqrt(whole.horizon)).to_numpy()
    middle = (p["p_buy"] - p["p_sell"]).to_numpy() * width
    for name, low, high in (
        ("static, abs(r)", np.full(len(p), -flat), np.full(len(p), flat)),
        ("static, normalised", middle - scaled * width, middle + scaled * width),
    ):
        said = np.column_stack([low, high, np.where(known, sets, np.nan)])
        yield name, pd.DataFrame(said, p.index, COLUMNS)
    yield "ACI", Coverage(**coverage, method="aci", window=250).fit(panel, outcomes).predict(p)
    yield "PI", whole.fit(panel, outcomes).predict(p)


def judged(said: pd.DataFrame, outcomes: pd.DataFrame, shift: pd.Timestamp) -> np.ndarray:
    """Of the interval: overall, worst, after; of the set the same; median width, mean size."""
    r = outcomes["forward_return"]
    inside = ((said["interval_low"] <= r) & (r <= said["interval_high"])).astype(float)
    inside = inside.where(said["interval_low"].notna() & r.notna())
    sides = said[COLUMNS[2:]].to_numpy()
    chosen = sides[np.arange(len(sides)), outcomes["side"].astype(int) + 1]
    day = outcomes.index.get_level_values("time").normalize()
    by_day = pd.DataFrame({"interval": inside.to_numpy(), "set": chosen}).groupby(day).mean()
    by_day.iloc[:CALIBRATION] = np.nan
    at = int(by_day.index.searchsorted(shift.normalize()))
    width = (said["interval_high"] - said["interval_low"]).median()
    infinite = np.isinf(said["interval_high"]).mean()
    parts = [summary(by_day[kind], at) for kind in ("interval", "set")]
    return np.concatenate([*parts, [width, infinite, sides.sum(axis=1)[~np.isnan(chosen)].mean()]])


def simulated(seeds: int, horizon: int, delay: int, times: int = 2500, assets: int = 20) -> None:
    rows: dict[str, list[np.ndarray]] = {}
    settings = {"horizon": horizon, "delay": delay}
    for seed in range(seeds):
        bars = bars_of(garch(seed, times, assets))
        shift = bars.index.unique("time")[times // 2]
        y = TripleBarrier(**settings).fit(until(bars, shift)).label(bars)
        coverage = Coverage(**settings)
        panel = bars.assign(**noisy_odds(bars, y, seed), sigma=coverage.sigma(bars))
        outcomes = coverage.outcomes(bars, y)
        for name, said in methods(settings, panel, outcomes):
            rows.setdefault(name, []).append(judged(said, outcomes, shift))
    show_both(f"GARCH, {assets} assets, horizon {horizon}, delay {delay}", rows)


def planted(seeds: int, times: int = 2500) -> None:
    rows: dict[str, list[np.ndarray]] = {}
    settings = {"horizon": 1, "delay": 0}
    for seed in range(seeds):
        market = drift_volatility(seed, times=times)
        coverage = Coverage(**settings)
        panel = market.panel.assign(**market.posterior, sigma=coverage.sigma(market.panel))
        outcomes = coverage.outcomes(market.panel, market.y)
        shift = panel.index.unique("time")[times // 2]
        for name, said in methods(settings, panel, outcomes):
            rows.setdefault(name, []).append(judged(said, outcomes, shift))
    show_both("Planted drift_volatility, 20 assets, its true odds", rows)


def real(path: Path, close: str, since: str, horizon: int, delay: int) -> None:
    table = pd.read_parquet(path)
    table["time"] = pd.DatetimeIndex(table["date"]).tz_localize("UTC") + pd.Timedelta(hours=21)
    table = table.rename(columns={"symbol": "asset"}).set_index(["asset", "time"]).sort_index()
    bars = table[[close]].set_axis(["close"], axis=1)
    bars = bars[~bars.index.duplicated()]
    settings = {"horizon": horizon, "delay": delay}
    y = TripleBarrier(**settings, width=0.9).label(bars)
    base = y["side"].value_counts(normalize=True)
    coverage = Coverage(**settings)
    odds = {"p_sell": base[-1], "p_hold": base[0], "p_buy": base[1]}
    panel = bars.assign(**odds, sigma=coverage.sigma(bars))
    outcomes = coverage.outcomes(bars, y)
    shift = pd.Timestamp(since, tz="UTC")
    rows = {
        name: [judged(said, outcomes, shift)] for name, said in methods(settings, panel, outcomes)
    }
    assets = len(bars.index.unique("asset"))
    title = f"{path.name}: {assets} assets, base-rate odds, horizon {horizon}, delay {delay}"
    show_both(f"{title}; shift: {since}", rows)


def show_both(title: str, rows: dict[str, list[np.ndarray]]) -> None:
    intervals = {name: [r[[0, 1, 2, 6, 7]] for r in runs] for name, runs in rows.items()}
    sets = {
        name: [r[[3, 4, 5, 8]] for r in runs] for name, runs in rows.items() if "abs" not in name
    }
    show(f"{title}: intervals", intervals, ["median width", "never ends"])
    show(f"{title}: sets", sets, ["sides"])


def show(title: str, rows: dict[str, list[np.ndarray]], more: list[str]) -> None:
    """Means over seeds; least to most of the overall, least of the windows, seeds at the goal."""
    names = ["method", "overall", f"worst {WINDOW} bars", f"{WINDOW} bars after the shift"]
    seeds = len(next(iter(rows.values())))
    names += [*more, "at the goal"]
    print(f"\n{title}\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for name, runs in rows.items():
        table = np.array(runs)
        mean, least, most = table.mean(axis=0), table.min(axis=0), table.max(axis=0)
        met = (np.abs(table[:, 0] - 0.95) <= 0.01) & (table[:, 1:3] >= GOALS).all(axis=1)
        spread = [f" ({least[0]:.3f} to {most[0]:.3f})", *(f" (least {x:.3f})" for x in least[1:3])]
        shown = [f"{x:.3f}{s if seeds > 1 else ''}" for x, s in zip(mean, spread, strict=False)]
        shown += [f"{x:.3g}" for x in mean[3:]]
        print(f"| {name} | {' | '.join(shown)} | {met.sum()} of {seeds} |")


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    print(f"level 0.95, {seeds} seeds")
    one_asset(seeds)
    for horizon, delay in ((1, 0), (5, 1), (20, 1)):
        simulated(seeds, horizon, delay)
    planted(seeds)
    root = Path(__file__).parents[3]
    folder = Path(os.environ.get("SIEVE_DATA", root.parent / "shared" / "data"))
    for name, (close, since) in REAL.items():
        if (folder / name).is_file():
            for horizon, delay in ((1, 0), (5, 1), (20, 1)):
                real(folder / name, close, since, horizon, delay)
        else:
            print(f"\n{name} is not at {folder}: left out")


if __name__ == "__main__":
    main()
