"""Signals to store, and processes that store them; importing it costs little."""

from itertools import count
from math import nan

import pandas as pd

from pipeline.store.signal_store import SignalStore
from stages.signal import Lag, Reasons, Signal, WhyNot

START = pd.Timestamp("2022-03-01 21:00:00.000123", tz="UTC")
MINUTE = pd.Timedelta(minutes=1)
WHY = Reasons(
    side=1,
    baseline=0.125,
    margin=0.625,
    contributions={"momentum_20": 0.75, "rsi_14": -0.25},
    by_stage={"filter.lightgbm": 0.5},
    raw_gap=1e-9,
    references="ab12",
    text=("momentum_20 1.2 favours BUY (+0.750)",),
    lags=(Lag("momentum_20", 3, 0.25),),
)


def buy(asset="AAPL", minute=0, p=0.4, **changes):
    """A BUY, `minute` minutes after START, with probability `p`, that lives for a week."""
    time = START + minute * MINUTE
    values = {
        "asset": asset,
        "time": time,
        "side": 1,
        "status": "fired",
        "probabilities": {-1: 0.25, 0: 0.75 - p, 1: p},
        "confidence": p,
        "certainty": 0.85,
        "epistemic": 0.01,
        "aleatoric": 1.05,
        "expires": time + pd.Timedelta(days=7),
        "model": "m1",
        "strength": "strong",
        "stages": {"filter": 0.1, "refiner": None, "gate": True},
        "reasons": WHY,
        "prices": {"close": 163.2},
        "interval": {"low": -0.031, "high": 0.042, "level": 0.95},
        "sides": (0, 1),
    }
    return Signal(**values | changes)


def sell(asset="AAPL", minute=0, p=0.5, **changes):
    odds = {-1: p, 0: 0.9 - p, 1: 0.1}
    return buy(asset, minute, side=-1, probabilities=odds, confidence=p, **changes)


def abstention(asset="AAPL", minute=0, **changes):
    """The smallest signal there is."""
    time = START + minute * MINUTE
    values = {
        "asset": asset,
        "time": time,
        "side": None,
        "status": "abstain",
        "probabilities": {},
        "confidence": nan,
        "certainty": nan,
        "epistemic": nan,
        "aleatoric": nan,
        "expires": time + pd.Timedelta(days=7),
        "model": "m1",
        "why_not": (WhyNot.of("history: incomplete"),),
    }
    return Signal(**values | changes)


def batch(number, size=5, writer="w"):
    """The same signals for the same number, whoever asks."""
    return [abstention(f"{writer}{i}", number) for i in range(size)]


def append_until_killed(url, told):
    """Store batches 0, 1, … and tell the number of each once it is acknowledged."""
    told.send("opening")
    with SignalStore(url) as store:
        for number in count():
            store.append(batch(number), "c")
            told.send(number)


def append_own_and_shared(url, writer, numbers, together):
    """Store batches of one's own, and the same ones as everybody else."""
    together.wait(60)
    with SignalStore(url) as store:
        for number in numbers:
            store.append(batch(number, 2, writer), "c")
            store.append(batch(number, 2, "shared"), "c")
