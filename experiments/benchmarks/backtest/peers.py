"""What vectorbt and backtesting.py take for the same work; run in an environment of theirs.

``python peers.py FILE WORK`` reads the market of an npz file and prints JSON: processor seconds of
the first call in the process, the median of later ones, and what came out. `run.py` starts it.
"""

import json
import sys
import time
import warnings

import numpy as np
import pandas as pd

warnings.simplefilter("ignore")
CHUNK = 50


def timed(work, repeats):
    """Seconds of the first call and the median of later ones, and what the last returned."""
    seconds = []
    for _ in range(repeats + 1):
        began = time.process_time()
        result = work()
        seconds.append(time.process_time() - began)
    later = float(np.median(seconds[1:])) if repeats else None
    return {"first": seconds[0], "warm": later, "result": result}


def tables(file):
    with np.load(file) as given:
        arrays = {name: given[name] for name in given.files}
    times = pd.date_range("2010-01-01", periods=len(arrays["close"]), freq="B")
    return {
        name: pd.DataFrame(arrays[name], times) for name in ("open", "high", "low", "close")
    }, arrays


def crossing(prices, fast, slow, fee):
    """Final value of each column of N pairs of windows: decided at a close, filled at the open."""
    import vectorbt as vbt

    quick = vbt.MA.run(prices["close"], fast, short_name="quick")
    calm = vbt.MA.run(prices["close"], slow, short_name="calm")
    long = (quick.ma_above(calm)).to_numpy()
    entries = np.zeros_like(long)
    entries[1:] = long[:-1]
    pairs = len(fast)
    close = prices["close"].to_numpy() if pairs == 1 else np.tile(prices["close"], pairs)
    opened = prices["open"].to_numpy() if pairs == 1 else np.tile(prices["open"], pairs)
    made = vbt.Portfolio.from_signals(
        pd.DataFrame(close),
        pd.DataFrame(entries),
        pd.DataFrame(~entries),
        price=pd.DataFrame(opened),
        fees=fee,
        init_cash=1.0,
        freq="1D",
    )
    return made.final_value().to_numpy().reshape(pairs, -1).mean(axis=1)


def swept(prices, fast, slow, fee):
    """Many pairs, so many at once as fit into memory: 1,000 ended a process with 20 GB."""
    parts = range(0, len(fast), CHUNK)
    found = [crossing(prices, fast[k : k + CHUNK], slow[k : k + CHUNK], fee) for k in parts]
    return np.concatenate(found).tolist()


def weighted(prices, months, weights, fee):
    """Final value of monthly target weights, filled at the close."""
    import vectorbt as vbt

    sizes = np.full(prices["close"].shape, np.nan)
    sizes[months] = weights
    made = vbt.Portfolio.from_orders(
        prices["close"],
        pd.DataFrame(sizes, prices["close"].index),
        size_type="targetpercent",
        group_by=True,
        cash_sharing=True,
        call_seq="auto",
        fees=fee,
        init_cash=1.0,
        freq="1D",
    )
    return float(made.final_value())


def backtested(prices, fast, slow, fee):
    """The crossing of one pair in backtesting.py, one asset after another: mean final value."""
    from backtesting import Backtest, Strategy

    class Crossing(Strategy):
        def init(self):
            close = pd.Series(self.data.Close)
            self.quick = self.I(lambda: close.rolling(fast).mean())
            self.calm = self.I(lambda: close.rolling(slow).mean())

        def next(self):
            if self.quick[-1] > self.calm[-1]:
                if not self.position:
                    self.buy()
            elif self.position:
                self.position.close()

    ends = []
    for asset in prices["close"]:
        bars = pd.DataFrame(
            {name.capitalize(): prices[name][asset] for name in ("open", "high", "low", "close")}
        )
        test = Backtest(bars, Crossing, cash=1e6, commission=fee, finalize_trades=True)
        ends.append(float(test.run()["Equity Final [$]"]) / 1e6)
    return float(np.mean(ends))


def main(file, name):
    prices, given = tables(file)
    fee = float(given["fee"])
    few = {name: table.iloc[:, :10] for name, table in prices.items()}
    fast, slow = given["fast"].tolist(), given["slow"].tolist()
    work, repeats = {
        "crossing": (lambda: float(crossing(prices, [20], [50], fee)[0]), 5),
        "weights": (lambda: weighted(prices, given["months"], given["weights"], fee), 5),
        "sweep": (lambda: swept(prices, fast, slow, fee), 1),
        "backtesting": (lambda: backtested(few, 20, 50, fee), 0),
    }[name]
    print(json.dumps(timed(work, repeats)))


if __name__ == "__main__":
    main(*sys.argv[1:])
