"""What risk scores come to, and what checks cost: ``python experiments/benchmarks/risk/run.py``.

Bars without a direction whose volatility clusters, and real daily bars at $SIEVE_DATA or
../shared/data. Sides are drawn at random on the former, those of 60-bar momentum on the latter.
"""

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_module

from pipeline.assemble import assemble
from stages.features.returns import momentum
from stages.markets.noise import noise_garch
from stages.risk.factors import risk_factors, worst_loss
from stages.risk.levels import Levels
from stages.risk.score import RiskScore, calibration_error, risk_calibration
from stages.signal import Signal

SPAN, MONTH, MEMORY = 5, 21, 20_000  # bars, bars, rows
REAL = {
    "m6_assets_daily_100_2018_2022.parquet": None,  # assets taken; None takes all
    "us_equity_daily_296_1990_2006.parquet": 40,
}
BONDS = ("HYG", "IEF", "LQD", "SHY", "TLT")
PARTS = (0.4, 0.5, 0.6, 0.7)  # of the bars, that the score is fitted on


def equities(assets):
    return ["equity"] * len(assets)


def parts():
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose("config")
    return assemble(cfg, "risk"), assemble(cfg, "assets")


def with_market(panel):
    """The panel with an equal-weight index."""
    moves = np.log(panel["close"]).groupby(level="asset").diff().groupby(level="time").mean()
    market = np.exp(moves.fillna(0).cumsum())
    return panel.assign(market=market.reindex(panel.index.get_level_values("time")).to_numpy())


def planted(seed):
    panel = with_market(noise_garch(seed, times=1200, assets=10).panel)
    rng = np.random.default_rng(seed)
    panel["epistemic"] = rng.gamma(2, 0.01, len(panel))
    return panel, rng.choice([-1, 1], len(panel)), np.full(len(panel), "equity")


def real(path, count):
    rows = pd.read_parquet(path).rename(columns={"symbol": "asset", "date": "time"})
    rows = rows[(rows["low"] > 0) & (rows["close"] > 0) & (rows["volume"] > 0)]
    rows = rows[rows["asset"].isin(sorted(rows["asset"].unique())[:count])]
    rows["time"] = pd.to_datetime(rows["time"], utc=True)
    rows = rows.drop_duplicates(["asset", "time"]).set_index(["asset", "time"]).sort_index()
    panel = with_market(rows[["high", "low", "close", "volume"]].astype("float64"))
    by_asset = panel["close"].groupby(level="asset", sort=False)
    lean = by_asset.transform(lambda close: momentum(close.to_numpy(), 60)).fillna(0)
    classes = np.where(panel.index.get_level_values("asset").isin(BONDS), "bond", "equity")
    return panel, np.sign(lean).to_numpy("int64"), classes


def came_to(assets, panel, side, classes, part):
    """Calibration errors on the bars after `part`: raw, frozen, and learning on each month."""
    factors, loss = risk_factors(panel), worst_loss(panel, side, SPAN)
    times = panel.index.get_level_values("time")
    bars = times.unique().sort_values()
    bar = bars.get_indexer(times)
    cut = int(part * len(bars))
    past, later = bar < cut - SPAN, bar >= cut

    def fitted():
        score = RiskScore(assets, memory=MEMORY)
        return score.fit(factors[past], loss[past], classes[past])

    score, learner = fitted(), fitted()
    told = score.predict(factors[later], classes[later])
    learnt = np.full(len(panel), np.nan)
    for start in range(cut, len(bars), MONTH):
        rows = (bar >= start) & (bar < start + MONTH)
        learnt[rows] = learner.predict(factors[rows], classes[rows])["calibrated"]
        over = (bar >= start - SPAN) & (bar < start + MONTH - SPAN)  # known when the month ends
        learner.update(factors[over], loss[over], classes[over])
    came = score.loss_place(loss[later], classes[later])
    said = {"raw": told["raw"], "frozen": told["calibrated"], "learning": learnt[later]}
    tables = {name: risk_calibration(np.asarray(values), came) for name, values in said.items()}
    spread = tables["learning"]["came"].iloc[[0, -1]]
    return {name: calibration_error(table) for name, table in tables.items()} | {
        "calmest tenth": spread.iloc[0],
        "worst tenth": spread.iloc[1],
        "rows": int(later.sum()),
    }


def cost_of(appraiser, assets):
    """What is timed, and of how many signals."""
    checks = appraiser.checks
    panel, side, classes = planted(0)
    one = panel.loc["A0"].iloc[:200].assign(open=lambda t: t["close"])
    price = float(one["close"].iloc[-1])
    signal = Signal(
        asset="A0",
        time=one.index[-1],
        expires=one.index[-1] + pd.Timedelta("6D"),
        side=1,
        status="fired",
        probabilities={-1: 0.25, 0: 0.3, 1: 0.45},
        confidence=0.45,
        certainty=0.86,
        epistemic=0.02,
        aleatoric=1.03,
        model="example",
        prices={"close": price, "target": price * 1.02, "stop": price * 0.97},
    )
    context = {"now": signal.time, "step": pd.Timedelta("1D"), "cost": 0.001, "scale": 0.02}
    context |= {"atr": 0.015 * price, "span": 6, "market_open": True, "last_price": price}
    factors = risk_factors(panel)
    score = RiskScore(assets).fit(factors, worst_loss(panel, side, SPAN), classes)
    last = factors.iloc[[-1]]
    ran = checks.examine(signal, one, context)
    named = f"{len(ran.passed) + len(ran.findings)} checks"
    yield named, 1, lambda: checks.examine(signal, one, context)
    yield "risk score, one row", 1, lambda: score.predict(last, classes[-1:])
    yield "target, stop, size", 1, lambda: Levels().plan(signal, 0.02, 0.015, 0.001)
    said = pd.DataFrame({"p_sell": 0.3, "p_buy": 0.3 + 0.01 * side}, panel.index)
    whole = appraiser.fit(said.assign(epistemic=panel["epistemic"]), panel, equities, SPAN)
    recent = panel.groupby(level="asset", sort=False).tail(250)
    newest = recent.groupby(level="asset", sort=False).tail(1)
    many = [
        replace(
            signal,
            asset=asset,
            time=time,
            expires=time + pd.Timedelta("6D"),
            prices={"close": close},
        )
        for (asset, time), close in newest["close"].items()
    ]
    known = [context | {"now": s.time, "last_price": s.prices["close"]} for s in many]
    for count in (1, len(many)):
        given = (many[:count], recent, ["equity"] * count, known[:count])
        yield f"all of it, {count} at once", count, lambda g=given: whole.appraise(*g)


def main():
    appraiser, assets = parts()
    print("| bars | fitted on | raw | frozen | learning | calmest tenth | worst tenth | rows |")
    print("|---|---|---|---|---|---|---|---|")
    folder = Path(os.environ.get("SIEVE_DATA", Path(__file__).parents[4] / "shared" / "data"))
    made = {f"planted {seed}": (planted(seed), (0.6,)) for seed in range(5)}
    here = {name: n for name, n in REAL.items() if (folder / name).is_file()}
    made |= {name[:15]: (real(folder / name, n), PARTS) for name, n in here.items()}
    for name, (bars, shares) in made.items():
        for part in shares:
            found = came_to(assets, *bars, part)
            cells = [f"{v:.1f}" for k, v in found.items() if k != "rows"]
            print(f"| {name} | {part:.0%} | {' | '.join(cells)} | {found['rows']:,} |")
    print("\n| one signal | ms |\n|---|---|")
    for name, count, run in cost_of(appraiser, assets):
        run()
        start, rounds = time.process_time(), 300 // count
        for _ in range(rounds):
            run()
        print(f"| {name} | {1e3 * (time.process_time() - start) / rounds / count:.3f} |")


if __name__ == "__main__":
    main()
