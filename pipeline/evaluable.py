"""Which rows can be evaluated, and in which words the others abstain."""

import numpy as np
import pandas as pd

from stages.base import DataError
from stages.panel import age, last_rows, named
from stages.signal import ODDS, SIDES, WhyNot

MEASURES = (*ODDS, "epistemic", "aleatoric", "margin", "margin_sd", "disagreement", "novelty")
MEASURES += ("certainty", "certainty_sell", "certainty_buy")
PROMISES = ("interval_low", "interval_high", *(f"set_{name}" for name in SIDES.values()))
CURES = {
    "inputs": "bring the bars and columns that are missing or stale, in the units of the training "
    "bars, or raise max_missing, quality.stale or quality.broken before training",
    "universe": "bring more of the assets that the model was trained on, over the same dates",
}


def obstacles(
    panel: pd.DataFrame,
    covered: np.ndarray,
    warmup: int,
    max_missing: float,
    unfit: pd.Series | None = None,
) -> pd.Series:
    """Why each row is not evaluable, in words; empty where it is.

    Parameters
    ----------
    panel : DataFrame of shape (N, F)
        With its features and rules.
    covered : ndarray of bool, shape (N,)
        `FeatureSet.ready`: look-backs are whole, and enough of the universe is there.
    warmup : int
        Bars of its asset that a row needs, itself included.
    max_missing : float in [0, 1]
        Share of a row's inputs that may be missing.
    unfit : Series of N text, optional
        What else is wrong with the inputs, see `Quality.obstacles`.
    """
    why = np.full(len(panel), "", dtype=object) if unfit is None else unfit.to_numpy(copy=True)
    lacking = panel[named(panel, "feature", "rule")].isna().mean(axis=1).to_numpy()
    gaps = lacking > max_missing
    why[gaps] = [f"inputs: {x:.0%} missing > {max_missing:.0%}" for x in lacking[gaps]]
    why[~covered] = "universe: too few of the trained assets are there"  # hence the gaps
    short = warmup - 1 - age(panel)
    why[short > 0] = [f"history: {n} bars missing" for n in short[short > 0]]
    return pd.Series(why, panel.index, dtype=object, name="why")


def outdated(why: pd.Series, expires: pd.DatetimeIndex, as_of: pd.Timestamp | None) -> pd.Series:
    """`why`, and that the newest row of an asset is stale if its signal has expired by then.

    Parameters
    ----------
    why : Series of N text
    expires : DatetimeIndex of A times
        Of the newest row of each asset, in the order of `why`.
    as_of : Timestamp or None
        None takes the newest time of all rows.
    """
    now = why.index.get_level_values("time").max() if as_of is None else as_of
    newest = last_rows(why.to_frame()).index
    said = why.copy()
    late = np.flatnonzero(np.asarray(expires < now))
    for at in late.tolist():  # to walk through an index is dear
        said[newest[at]] = f"staleness: expired {expires[at]:%Y-%m-%d %H:%M} UTC"
    return said


def abstain(panel: pd.DataFrame, why: pd.Series) -> pd.DataFrame:
    """Blank the odds of decided rows that are not evaluable: an abstention is no opinion."""
    said = why.to_numpy() != ""
    out = said | (panel["status"].to_numpy() == "abstain")
    if not out.any():
        return panel
    promised = [name for name in PROMISES if name in panel]
    blank = {name: panel[name].mask(out) for name in (*MEASURES, *promised, "side", "strength")}
    whys = [
        (WhyNot.of(m),) if s else w for m, s, w in zip(why, said, panel["why_not"], strict=True)
    ]
    status = panel["status"].mask(out, "abstain")
    return panel.assign(**blank, status=status, why_not=pd.Series(whys, panel.index, dtype=object))


def too_short(bars: pd.DataFrame, warmup: int, window: int) -> DataError:
    """The error of `bars` in which no asset has `warmup` bars, of which `window` for stage 2."""
    counts = bars.groupby(level="asset", sort=False).size()
    return DataError(
        f"no asset has the {warmup} bars of history that this model needs",
        code="SV-F18",
        where=f"bars found: {', '.join(f'{a} {n}' for a, n in counts.items())}"[:300],
        why=f"features look back {warmup - window} bars, the refiner {window}",
        cure=f"bring at least {warmup} bars of each asset, up to and with the newest; "
        "training takes a few times as many",
    )


def none_evaluable(why: pd.Series) -> DataError:
    """The error of rows that have their history, yet no one is evaluable: the commonest reason."""
    late = why[(why != "") & ~why.str.startswith("history").to_numpy()]
    kind = late.str.partition(":")[0].mode()[0]
    of_kind = late[late.str.startswith(f"{kind}:").to_numpy()]
    asset, time = of_kind.index[-1]
    return DataError(
        f"no row can be evaluated; {of_kind.iloc[-1]}",
        code="SV-F18",
        where=f"{len(of_kind)} of {len(late)} rows with enough history, last {asset} at {time}",
        cure=CURES[kind],
    )
