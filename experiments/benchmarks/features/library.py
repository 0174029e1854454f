"""65 columns of TA-Lib: in a bare loop over the assets, and as features behind the guard."""

from collections.abc import Callable
from functools import partial
from inspect import Parameter, Signature

import numpy as np
import pandas as pd
import talib
from talib import abstract

from stages.features.build import FeatureSet
from stages.features.guarded import on_clean_runs
from stages.panel import warms_up

HLC, OHLC, HLCV = (
    ("high", "low", "close"),
    ("open", "high", "low", "close"),
    ("high", "low", "close", "volume"),
)
BY_PERIOD = {  # function: inputs, periods
    "SMA": (("close",), (10, 20, 50)),
    "EMA": (("close",), (10, 20, 50)),
    "WMA": (("close",), (10, 20, 50)),
    "DEMA": (("close",), (10, 20)),
    "TEMA": (("close",), (10, 20)),
    "KAMA": (("close",), (10, 30)),
    "TRIX": (("close",), (10, 15)),
    "RSI": (("close",), (7, 14, 30)),
    "CMO": (("close",), (14,)),
    "MOM": (("close",), (10, 20)),
    "ROC": (("close",), (5, 10, 20)),
    "LINEARREG_SLOPE": (("close",), (14, 30)),
    "LINEARREG_ANGLE": (("close",), (14,)),
    "TSF": (("close",), (14,)),
    "STDDEV": (("close",), (10, 20)),
    "VAR": (("close",), (20,)),
    "MAX": (("close",), (20, 60)),
    "MIN": (("close",), (20, 60)),
    "MIDPOINT": (("close",), (14,)),
    "ATR": (HLC, (7, 14)),
    "NATR": (HLC, (14,)),
    "ADX": (HLC, (14,)),
    "ADXR": (HLC, (14,)),
    "DX": (HLC, (14,)),
    "PLUS_DI": (HLC, (14,)),
    "MINUS_DI": (HLC, (14,)),
    "CCI": (HLC, (14, 20)),
    "WILLR": (HLC, (14,)),
    "MFI": (HLCV, (14,)),
    "AROONOSC": (("high", "low"), (14, 25)),
}
PLAIN = {  # function: inputs
    "OBV": ("close", "volume"),
    "AD": HLCV,
    "ADOSC": HLCV,
    "BOP": OHLC,
    "TRANGE": HLC,
    "ULTOSC": HLC,
    "SAR": ("high", "low"),
    "PPO": ("close",),
    "APO": ("close",),
    "AVGPRICE": OHLC,
    "MEDPRICE": ("high", "low"),
    "TYPPRICE": HLC,
    "HT_TRENDLINE": ("close",),
}


def calls() -> dict[str, tuple[Callable[..., np.ndarray], tuple[str, ...], int]]:
    """Function with its settings, its inputs and its look-back, by name of column."""
    found = {}
    for name, (inputs, periods) in BY_PERIOD.items():
        for period in periods:
            back = abstract.Function(name, timeperiod=period).lookback
            call = partial(getattr(talib, name), timeperiod=period)
            found[f"{name}_{period}"] = call, inputs, back
    for name, inputs in PLAIN.items():
        found[name] = getattr(talib, name), inputs, abstract.Function(name).lookback
    return found


def bare(bars: pd.DataFrame) -> np.ndarray:
    """The loop that anybody would write: shape (N, 65), float32."""
    starts = np.flatnonzero(np.diff(bars.index.codes[0], prepend=-1, append=-1))
    columns = {name: bars[name].to_numpy() for name in ("open", *HLCV)}
    functions = calls()
    out = np.empty((len(bars), len(functions)), "float32", order="F")
    for number, (call, inputs, _) in enumerate(functions.values()):
        for first, stop in zip(starts[:-1], starts[1:], strict=True):
            out[first:stop, number] = call(*(columns[name][first:stop] for name in inputs))
    return out


def features() -> FeatureSet:
    """The same columns as a feature set."""
    return FeatureSet({name: _feature(*call) for name, call in calls().items()})


def _feature(
    call: Callable[..., np.ndarray], inputs: tuple[str, ...], back: int
) -> Callable[..., np.ndarray]:
    @warms_up(lambda **_: back)
    def feature(*columns: np.ndarray) -> np.ndarray:
        return on_clean_runs(call, back, *columns)

    # a feature says what it reads by the names of its parameters
    named = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in inputs]
    feature.__signature__ = Signature(named)
    return feature
