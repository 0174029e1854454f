"""CORD and WVMA of Alpha158 in long double, to see whose rounding a difference is."""

import numpy as np
import pandas as pd

from experiments.benchmarks.features import drawn

KNOWN = ("CORD", "WVMA")


def exact(name: str, bars: pd.DataFrame) -> np.ndarray:
    """A column such as CORD5, each window on its own: long double of shape (N,)."""
    family, length = name[:4], int(name[4:])
    out = np.full(len(bars), np.nan, "longdouble")
    starts = np.flatnonzero(np.diff(bars.index.codes[0], prepend=-1, append=-1))
    for first, stop in zip(starts[:-1], starts[1:], strict=True):
        close, volume = (
            bars[c].to_numpy()[first:stop].astype("longdouble") for c in ("close", "volume")
        )
        moved = close[1:] / close[:-1]
        windows = np.lib.stride_tricks.sliding_window_view
        if family == "CORD":
            x, y = windows(moved, length), windows(np.log(volume[1:] / volume[:-1] + 1), length)
            dx, dy = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
            values = (dx * dy).sum(axis=1) / np.sqrt((dx**2).sum(axis=1) * (dy**2).sum(axis=1))
        else:
            x = windows(np.abs(moved - 1) * volume[1:], length)
            values = x.std(axis=1, ddof=1) / x.mean(axis=1)
        out[first + length : stop] = values
    return out


def whose(name: str, bars: pd.DataFrame, ours: np.ndarray, theirs: np.ndarray) -> str:
    """How many of the values that differ are the exact ones: of Sieve, of Qlib."""
    truth = exact(name, bars)
    apart = np.abs(ours - theirs) > 1e-5 + 1e-4 * np.abs(theirs)
    allowed = 1e-5 + 1e-4 * np.abs(truth)
    right = [int((np.abs(x - truth) <= allowed)[apart].sum()) for x in (ours, theirs)]
    return f"of {apart.sum()} that differ Sieve has {right[0]} exact, Qlib {right[1]}"


def single(name: str, bars: pd.DataFrame) -> np.ndarray:
    """The same in steps of single precision and with running sums, as Qlib 0.9.7 computes."""
    family, length = name[:4], int(name[4:])
    close, volume = (bars[c].astype("float32") for c in ("close", "volume"))
    before = {
        c: bars[c].astype("float32").groupby(level="asset").shift(1) for c in ("close", "volume")
    }
    moved = close / before["close"]
    if family == "WVMA":
        weighed = ((moved - 1).abs() * volume).groupby(level="asset", sort=False).rolling(length)
        return (weighed.std() / (weighed.mean() + 1e-12)).droplevel(0).to_numpy()
    traded = np.log(volume / before["volume"] + 1)
    found = []
    for asset, own in moved.groupby(level="asset", sort=False):
        found.append(own.rolling(length).corr(traded.loc[[asset]]))
    return pd.concat(found).to_numpy()


def main() -> None:
    """Count the values of drawn bars that single precision moves beyond the tolerance."""
    bars = drawn.bars(100, 2520).astype("float32").astype("float64")
    made = drawn.only(drawn.feature_set("alpha158"), [f"{family}5" for family in KNOWN]).values(
        bars
    )
    late = bars.groupby("asset").cumcount().to_numpy() >= 60
    for name in (f"{family}5" for family in KNOWN):
        truth = exact(name, bars)
        allowed = 1e-5 + 1e-4 * np.abs(truth)
        for who, values in (("Sieve", made[f"feature.{name}"]), ("single", single(name, bars))):
            far = (np.abs(np.asarray(values) - truth) > allowed)[late]
            print(f"{name}, {who}: {far.sum()} of {late.sum():,} values are not the exact ones")


if __name__ == "__main__":
    main()
