"""Alpha360: the last 60 bars as they are, over the newest close or volume; Qlib's public set.

Six inputs (close, open, high, low, vwap, volume) times 60 bars, named as Qlib names them:
``CLOSE59`` … ``CLOSE0``. Bars without `vwap` leave its 60 columns out, which makes 300. As in
`stages.features.alpha158` a value is NaN, not a quotient by 1e-12, where the newest volume is 0,
and where the bars do not reach back far enough.

References
----------
Microsoft Qlib, ``qlib/contrib/data/loader.py`` (``Alpha360DL``), 0.9.7.
"""

from functools import partial

import numpy as np

from stages.features.alpha158 import past

PRICES = ("close", "open", "high", "low", "vwap")


def columns(bars: int = 60) -> dict[str, partial[np.ndarray]]:
    """The columns by name: each input at the last `bars` bars, oldest first.

    Parameters
    ----------
    bars : int >= 1, default=60
        60 makes Alpha360; fewer make a shorter set of the same kind.

    Returns
    -------
    dict of str to partial
        6 x `bars` columns of `stages.features.alpha158.past`.
    """
    if bars < 1:
        raise ValueError(f"bars must be at least 1, got {bars}")
    over = {name: "close" for name in PRICES} | {"volume": "volume"}
    return {
        # texts name the columns that are read in their place
        f"{name.upper()}{lag}": partial(past, price=name, close=newest, bars=lag)  # type: ignore[arg-type]
        for name, newest in over.items()
        for lag in range(bars - 1, -1, -1)
    }
