"""The daily run and the backtest: ``python -m experiments.benchmarks.backtest.replay path=FILE``.

Runs `pipeline.rebalance` for each session with ``fills=simulated`` and a book that is kept, then
`pipeline.backtest` over the same sessions, and compares every order and the last book. Words:
``set=m6`` (50 ETFs of the M6 competition) or ``set=cn`` (20 Chinese ETFs), ``path=FILE`` (the
bars), ``days=250``, ``last=YYYY-MM-DD`` (the last of them), ``break=100`` (a session after which
the backtest is stopped and goes on from its state; 0: none), ``command=false`` (each session is
planned on the bars known by then, without the command and its files: seconds instead of minutes).
"""

import os
import sys

from pipeline.cli import THREADS

for name in THREADS:  # before numpy and numba are imported and count the cores
    os.environ.setdefault(name, "1")

import contextlib  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402
from dataclasses import dataclass, replace  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from hydra import compose, initialize_config_module  # noqa: E402
from hydra.core.hydra_config import HydraConfig  # noqa: E402

from pipeline import rebalance  # noqa: E402
from pipeline.assemble import assemble, load_source  # noqa: E402
from pipeline.backtested import costs_of  # noqa: E402
from stages.backtest.simulate import simulate  # noqa: E402
from stages.panel import until  # noqa: E402

WORDS = {"set": "m6", "path": "", "days": "250", "last": "", "break": "100", "command": "true"}
FUNDS = (  # of the hundred assets of M6, the fifty funds
    "EWA,EWC,EWG,EWH,EWJ,EWL,EWQ,EWT,EWU,EWY,EWZ,GSG,HIGH.L,HYG,IAU,ICLN,IEAA.L,IEF,IEFM.L,IEMG,"
    "IEUS,IEVL.L,IGF,INDA,IUMO.L,IUVL.L,IVV,IWM,IXN,JPEA.L,LQD,MCHI,MVEU.L,REET,SEGA.L,SHY,SLV,"
    "SPMV.L,TLT,VXX,XLB,XLC,XLE,XLF,XLI,XLK,XLP,XLU,XLV,XLY"
)
SETS = {
    "m6": (
        *("data.columns.adj_close=adj_close", "data.calendar=instruments", "data.market=IVV"),
        f"data.assets=[{FUNDS}]",
    ),
    "cn": ("data.calendar=XSHG", "data.market=510300", "portfolio.sizes.lot=100"),
}


def composed(command, *more):
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose(command, list(more), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return cfg


def daily(words, folder, day):
    """What the command says of one session, and its seconds."""
    kept = (f"book={folder}/books", f"root={folder}/root", "keep=9999", "fills=simulated")
    asked = (*words, *kept, "dry_run=false", "json=true", f"as_of={day:%Y-%m-%d}")
    out, began = io.StringIO(), time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        rebalance.main(composed("rebalance", *asked))
    return json.loads(out.getvalue()), time.perf_counter() - began


@dataclass(frozen=True)
class Known:
    """The policy as the daily run has it: every plan is prepared from the bars known by then."""

    policy: object
    bars: pd.DataFrame

    @property
    def warmup(self):
        return self.policy.warmup

    def prepare(self, bars):
        return self.policy.prepare(bars)

    def plan(self, prepared, at, book):
        return self.policy.plan(self.policy.prepare(until(self.bars, at)), at, book)


def at_once(words, first, last, stop, known):
    """The simulation of the same sessions, stopped and resumed after `stop` of them."""
    cfg = composed("backtest", *words)
    source, policy = load_source(cfg), assemble(cfg, "portfolio")
    assets = source.bars.index.unique("asset").tolist()
    costs, _ = costs_of(dict(cfg.costs), assemble(cfg, "instruments"), assets)
    terms = replace(assemble(cfg, "terms"), lot=policy.sizes.lot)
    times = policy.prepare(source.bars).times
    rows = times[(times.tz_localize(None).normalize() >= first)]
    rows = rows[rows.tz_localize(None).normalize() <= last]
    run = simulate(source.bars, policy, costs=costs, terms=terms, start=rows[0], end=rows[-1])
    if stop:
        cut = rows[stop]
        part = simulate(source.bars, policy, costs=costs, terms=terms, start=rows[0], end=cut)
        rest = simulate(
            source.bars, policy, costs=costs, terms=terms, begin=part.state, end=rows[-1]
        )
        both = pd.concat([part.orders, rest.orders], ignore_index=True)
        print(f"stopped after {stop} sessions and resumed: same orders {both.equals(run.orders)}")
        print(f"same book {rest.state == run.state}")
    if known:
        settings = {"costs": costs, "terms": terms, "start": rows[0], "end": rows[-1]}
        other = simulate(source.bars, Known(policy, source.bars), **settings)
        same, book = other.orders.equals(run.orders), other.state == run.state
        print(f"each session on the bars known by then: same orders {same}, same book {book}")
    return run


def main(words):
    given = WORDS | dict(word.split("=", 1) for word in words)
    base = ("data=parquet", f"data.path={given['path']}", "data.columns.asset=symbol")
    base += ("data.columns.time=date", "terms.volume_cap=null", *SETS[given["set"]])
    sessions = load_source(composed("rebalance", *base)).bars["session"]
    days = pd.DatetimeIndex(sessions).unique().sort_values()
    days = days[days <= (given["last"] or days[-1])][-int(given["days"]) :]
    known = given["command"] != "true"
    if known:
        run = at_once(base, days[0], days[-1], int(given["break"]), known)
        print(f"{len(days)} sessions, {days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}, ", end="")
        print(f"{len(run.orders)} orders")
        return
    with tempfile.TemporaryDirectory() as folder:
        told, seconds = zip(*(daily(base, folder, day) for day in days), strict=True)
    run = at_once(base, days[0], days[-1], int(given["break"]), known)
    mine = [
        (o["asset"], o["action"], o["shares"], o["reason"])
        for day in told[:-1]  # the last ones meet the market after the end
        for o in day["orders"]
    ]
    asked = ("asset", "action", "shares", "reason")
    theirs = list(zip(*(run.orders[name] for name in asked), strict=True))
    print(f"{len(days)} sessions, {days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}, {len(mine)} orders")
    print(f"same orders in the same order: {mine == theirs}")
    same = float(told[-1]["total_value"]) == run.days["equity"].iloc[-1]
    print(f"same value to the cent: {same} ({told[-1]['total_value']})")
    print(f"seconds a day: {np.median(seconds):.2f} in the middle, {max(seconds):.2f} at most")
    print("reasons", Counter(opening(order[3]) for order in mine).most_common())
    print("alerts", Counter(opening(text) for day in told for text in day["alerts"]).most_common())


def opening(text):
    return text.partition(":")[0] if ":" in text else " ".join(text.split()[:2])


if __name__ == "__main__":
    main(sys.argv[1:])
