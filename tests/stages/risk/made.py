"""A signal of which nothing bad can be said, its bars, and what else is known then."""

import numpy as np
import pandas as pd

from stages.signal import Reasons, Signal

STEP = pd.Timedelta("1D")
TIMES = pd.date_range("2024-01-01", periods=200, freq="D", tz="UTC", name="time").as_unit("us")
WHY = Reasons(
    side=1,
    baseline=0.1,
    margin=0.6,
    contributions={"feature.flow": 0.25, "feature.value": 0.2, "rule.cross": 0.05},
    by_stage={"filter.lightgbm": 0.5},
    raw_gap=1e-4,
    references="b3f1",
    text=("flow is high",),
    by_family={"volume": 0.25, "returns": 0.25},
)


def made_bars() -> pd.DataFrame:
    """Daily bars that rise a little, the last of them on high volume."""
    rng = np.random.default_rng(5)
    moves = 0.001 + 0.01 * rng.standard_normal(len(TIMES))
    moves[-1] = 0.01
    close = 100 * np.exp(np.cumsum(moves))
    open_ = close / np.exp(moves)
    high, low = np.maximum(open_, close) * 1.004, np.minimum(open_, close) * 0.996
    volume = np.full(len(TIMES), 1e6)
    volume[-1] = 2e6
    columns = {"open": open_, "high": high, "low": low, "close": close, "volume": volume}
    return pd.DataFrame(columns, TIMES)


BARS = made_bars()
PRICE = float(BARS["close"].iloc[-1])
BUY = Signal(
    asset="A",
    time=TIMES[-1],
    side=1,
    status="fired",
    probabilities={-1: 0.1, 0: 0.2, 1: 0.7},
    confidence=0.7,
    certainty=0.9,
    epistemic=0.02,
    aleatoric=0.78,
    expires=TIMES[-1] + 6 * STEP,
    model="example",
    strength="strong",
    stages={"filter": 0.3, "refiner": 0.2, "ensemble": 0.6, "gate": True},
    reasons=WHY,
    prices={"close": PRICE, "target": PRICE * 1.03, "stop": PRICE * 0.97},
    novelty=1.1,
    interval={"low": -0.03, "high": 0.05, "level": 0.95},
    skill={"progress": 1.0, "proven": True},
)
CONTEXT = {
    "now": TIMES[-1] + STEP / 2,
    "step": STEP,
    "cost": 0.001,
    "scale": 0.03,
    "atr": 0.015 * PRICE,
    "span": 6,
    "risk": 55.0,
    "band": (30.0, 80.0),
    "size": 0.2,
    "spread": 0.01,
    "next_event": TIMES[-1] + 30 * STEP,
    "last_price": PRICE * 1.001,
    "market_open": True,
}
