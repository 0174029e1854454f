"""Messages, a model that needs no training, and a source that a test fills."""

import math
from threading import Event

import numpy as np
import pandas as pd

from pipeline.streaming.messages import Message
from stages.signal import Signal

START = pd.Timestamp("2024-03-01 14:30", tz="UTC")
MINUTE = pd.Timedelta(minutes=1)
CLOCK = START + pd.Timedelta(days=1)


def fields(asset="A", minute=0, close=100.0, **more):
    """A bar as a message holds it: text."""
    return {"asset": asset, "time": (START + minute * MINUTE).isoformat()} | {
        name: str(value) for name, value in ({"close": close} | more).items()
    }


class Momentum:
    """Says BUY where the close has risen over the last two bars, else SELL; each by its own."""

    depth, across, beside = 3, False, None

    def __init__(self, broken=()):
        self.broken = set(broken)

    def signals(self, bars, time, assets):
        codes, times = bars.index.codes[0], bars.index.get_level_values("time")
        ends = np.append(np.flatnonzero(np.diff(codes)), len(codes) - 1)
        starts, out = np.append(0, ends[:-1] + 1), []
        closes, names = bars["close"].to_numpy(), bars.index.get_level_values("asset")[ends]
        newest = np.asarray(times[ends] == time)
        for asset, begin, end, now in zip(names, starts, ends, newest, strict=True):
            if asset in assets and now:
                if asset in self.broken:
                    raise ZeroDivisionError(f"the bars of {asset}")
                out.append(one(asset, time, closes[begin : end + 1]))
        return out

    def rules(self, signals):  # noqa: ARG002
        return None


def one(asset, time, closes):
    side = 1 if closes[-1] >= closes[0] else -1
    return Signal(
        asset=asset,
        time=time,
        side=side,
        status="fired",
        probabilities={side: 0.5, 0: 0.3, -side: 0.2},
        confidence=0.5,
        certainty=0.9,
        epistemic=0.01,
        aleatoric=1.0,
        expires=time + pd.Timedelta(hours=1),
        model="m",
        strength="strong",
        prices={"close": float(closes[-1])},
        novelty=math.nan,
    )


class Given:
    """A source of messages that a test puts in; it keeps what was acknowledged and left."""

    redelivers = True

    def __init__(self, *batches, name="given", passed=()):
        self.name, self.stop = name, Event()
        self.batches = [list(batch) for batch in batches]
        self.acked, self.left, self.forgotten = [], [], list(passed)

    def read(self, n):  # noqa: ARG002
        return self.batches.pop(0) if self.batches else None

    def ack(self, ids):
        self.acked += ids

    def leave(self, ids):
        self.left += ids

    def passed(self):
        return self.forgotten

    def gauges(self):
        return {"lag": 0, "pending": len(self.left)}


def messages(*rows, first=1):
    return [Message(f"{number}-0", row) for number, row in enumerate(rows, start=first)]
