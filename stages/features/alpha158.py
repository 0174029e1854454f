"""Alpha158: the 158 price and volume columns of Qlib, by their public definitions.

Nine shapes of the newest bar, four of its prices over the close, and 29 families over windows of
5, 10, 20, 30 and 60 bars; conf/features/alpha158.yaml names the columns as Qlib does. ``VWAP0``
needs a column `vwap`; bars without one leave it out, which makes 157 columns.

Where the public definition would say something that cannot be measured, these say NaN:

- A window that is not full, or spans a missing value, has no value. Qlib takes what part of the
  window there is (``min_periods=1``), so a first bar has a 60-bar mean there.
- A quotient whose denominator is 0 (a bar without range, a window without moves, a bar without
  volume). Qlib adds 1e-12 to these denominators: 0 / 0 becomes 0, 5 / 0 becomes 5e12, and the
  unit of the price matters.
- Fits and correlations of what stands still, within rounding. Qlib drops those with a standard
  deviation below 2e-5, in whatever unit the price has.

References
----------
Microsoft Qlib, ``qlib/contrib/data/loader.py`` (``Alpha158DL``) and ``qlib/data/ops.py``, 0.9.7.
"""

import numpy as np

from stages.features.kernels import (
    ratio,
    shifted,
    window_covariance,
    window_max,
    window_mean,
    window_min,
    window_sd,
    window_share_below,
    window_sum,
)
from stages.features.line import window_fit, window_residual, window_slope
from stages.features.order import window_place_of_max, window_place_of_min, window_quantile
from stages.panel import warms_up

# shapes of the newest bar


@warms_up(lambda **_: 0)
def kmid(open: np.ndarray, close: np.ndarray) -> np.ndarray:  # noqa: A002
    """Body of the bar over its open: shape (T,)."""
    return ratio(close - open, open)


@warms_up(lambda **_: 0)
def klen(open: np.ndarray, high: np.ndarray, low: np.ndarray) -> np.ndarray:  # noqa: A002
    """Range of the bar over its open: shape (T,)."""
    return ratio(high - low, open)


@warms_up(lambda **_: 0)
def kmid2(
    open: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,  # noqa: A002
) -> np.ndarray:
    """Body of the bar over its range: [-1, 1], shape (T,)."""
    return ratio(close - open, high - low)


@warms_up(lambda **_: 0)
def kup(open: np.ndarray, high: np.ndarray, close: np.ndarray) -> np.ndarray:  # noqa: A002
    """Upper shadow of the bar over its open: shape (T,)."""
    return ratio(high - np.maximum(open, close), open)


@warms_up(lambda **_: 0)
def kup2(
    open: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,  # noqa: A002
) -> np.ndarray:
    """Upper shadow of the bar over its range: [0, 1], shape (T,)."""
    return ratio(high - np.maximum(open, close), high - low)


@warms_up(lambda **_: 0)
def klow(open: np.ndarray, low: np.ndarray, close: np.ndarray) -> np.ndarray:  # noqa: A002
    """Lower shadow of the bar over its open: shape (T,)."""
    return ratio(np.minimum(open, close) - low, open)


@warms_up(lambda **_: 0)
def klow2(
    open: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,  # noqa: A002
) -> np.ndarray:
    """Lower shadow of the bar over its range: [0, 1], shape (T,)."""
    return ratio(np.minimum(open, close) - low, high - low)


@warms_up(lambda **_: 0)
def ksft(
    open: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,  # noqa: A002
) -> np.ndarray:
    """Twice the close's distance from the middle of the bar, over its open: shape (T,)."""
    return ratio(2 * close - high - low, open)


@warms_up(lambda **_: 0)
def ksft2(high: np.ndarray, low: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Twice the close's distance from the middle of the bar, over its range: [-1, 1]."""
    return ratio(2 * close - high - low, high - low)


@warms_up(lambda bars, **_: bars)
def past(price: np.ndarray, close: np.ndarray, bars: int = 0) -> np.ndarray:
    """A price `bars` bars ago over the newest close: OPEN0, HIGH0, LOW0, VWAP0, ROC: (T,)."""
    return ratio(shifted(price, bars), close)


# the close and its windows


@warms_up(lambda bars, **_: bars - 1)
def ma(close: np.ndarray, bars: int = 5) -> np.ndarray:
    """Mean close over the newest: shape (T,)."""
    return ratio(window_mean(close, bars), close)


@warms_up(lambda bars, **_: bars - 1)
def std(close: np.ndarray, bars: int = 5) -> np.ndarray:
    """Standard deviation of the closes over the newest: shape (T,)."""
    return ratio(window_sd(close, bars), close)


@warms_up(lambda bars, **_: bars - 1)
def beta(close: np.ndarray, bars: int = 5) -> np.ndarray:
    """Slope of the line through the closes, per bar, over the newest: shape (T,)."""
    return ratio(window_slope(close, bars), close)


@warms_up(lambda bars, **_: bars - 1)
def rsqr(close: np.ndarray, bars: int = 5) -> np.ndarray:
    """Share of the closes' variance that their line explains: [0, 1], shape (T,)."""
    return window_fit(close, bars)


@warms_up(lambda bars, **_: bars - 1)
def resi(close: np.ndarray, bars: int = 5) -> np.ndarray:
    """Newest close above the line through the closes, over the close: shape (T,)."""
    return ratio(window_residual(close, bars), close)


@warms_up(lambda bars, **_: bars - 1)
def highest(high: np.ndarray, close: np.ndarray, bars: int = 5) -> np.ndarray:
    """MAX: highest high over the newest close: shape (T,)."""
    return ratio(window_max(high, bars), close)


@warms_up(lambda bars, **_: bars - 1)
def lowest(low: np.ndarray, close: np.ndarray, bars: int = 5) -> np.ndarray:
    """MIN: lowest low over the newest close: shape (T,)."""
    return ratio(window_min(low, bars), close)


@warms_up(lambda bars, **_: bars - 1)
def quantile(close: np.ndarray, bars: int = 5, share: float = 0.8) -> np.ndarray:
    """QTLU (`share` 0.8), QTLD (0.2): quantile of the closes over the newest: shape (T,)."""
    return ratio(window_quantile(close, bars, share), close)


@warms_up(lambda bars, **_: bars - 1)
def rank(close: np.ndarray, bars: int = 5) -> np.ndarray:
    """Rank of the newest close among the closes, as a share, ties their mean: (0, 1]."""
    return window_share_below(close, bars) + 0.5 / bars


@warms_up(lambda bars, **_: bars - 1)
def rsv(high: np.ndarray, low: np.ndarray, close: np.ndarray, bars: int = 5) -> np.ndarray:
    """Place of the close between the lowest low and the highest high: [0, 1], shape (T,)."""
    bottom = window_min(low, bars)
    return ratio(close - bottom, window_max(high, bars) - bottom)


@warms_up(lambda bars, **_: bars - 1)
def imax(high: np.ndarray, bars: int = 5) -> np.ndarray:
    """Place of the highest high in the window, 1 / bars for its oldest bar: (0, 1]."""
    return window_place_of_max(high, bars) / bars


@warms_up(lambda bars, **_: bars - 1)
def imin(low: np.ndarray, bars: int = 5) -> np.ndarray:
    """Place of the lowest low in the window, 1 / bars for its oldest bar: (0, 1]."""
    return window_place_of_min(low, bars) / bars


@warms_up(lambda bars, **_: bars - 1)
def imxd(high: np.ndarray, low: np.ndarray, bars: int = 5) -> np.ndarray:
    """How much later the highest high came than the lowest low, over the window: (-1, 1)."""
    return (window_place_of_max(high, bars) - window_place_of_min(low, bars)) / bars


# the close and its volume


@warms_up(lambda bars, **_: bars - 1)
def corr(close: np.ndarray, volume: np.ndarray, bars: int = 5) -> np.ndarray:
    """Correlation of the closes with the log volumes: [-1, 1], shape (T,)."""
    return _correlation(close, np.log1p(volume), bars)


@warms_up(lambda bars, **_: bars)
def cord(close: np.ndarray, volume: np.ndarray, bars: int = 5) -> np.ndarray:
    """Correlation of the closes' changes with the log of 1 + the volumes' ratios: [-1, 1]."""
    change = ratio(close, shifted(close, 1))
    return _correlation(change, np.log1p(ratio(volume, shifted(volume, 1))), bars)


@warms_up(lambda bars, **_: bars)
def wvma(close: np.ndarray, volume: np.ndarray, bars: int = 5) -> np.ndarray:
    """Spread over mean of the absolute returns weighted by volume: shape (T,)."""
    weighted = np.abs(ratio(close, shifted(close, 1)) - 1) * volume
    return ratio(window_sd(weighted, bars), window_mean(weighted, bars))


@warms_up(lambda bars, **_: bars - 1)
def vma(volume: np.ndarray, bars: int = 5) -> np.ndarray:
    """Mean volume over the newest: shape (T,)."""
    return ratio(window_mean(volume, bars), volume)


@warms_up(lambda bars, **_: bars - 1)
def vstd(volume: np.ndarray, bars: int = 5) -> np.ndarray:
    """Standard deviation of the volumes over the newest: shape (T,)."""
    return ratio(window_sd(volume, bars), volume)


# ups against downs, of the close (CNT, SUM) or of the volume (VSUM)


@warms_up(lambda bars, **_: bars)
def share_up(of: np.ndarray, bars: int = 5) -> np.ndarray:
    """CNTP: share of the bars that rose: [0, 1], shape (T,)."""
    move = of - shifted(of, 1)
    return window_mean((move > 0) + 0.0 * move, bars)


@warms_up(lambda bars, **_: bars)
def share_down(of: np.ndarray, bars: int = 5) -> np.ndarray:
    """CNTN: share of the bars that fell: [0, 1], shape (T,)."""
    move = of - shifted(of, 1)
    return window_mean((move < 0) + 0.0 * move, bars)


@warms_up(lambda bars, **_: bars)
def share_up_less_down(of: np.ndarray, bars: int = 5) -> np.ndarray:
    """CNTD: share of the bars that rose less that of those that fell: [-1, 1], shape (T,)."""
    return window_mean(np.sign(of - shifted(of, 1)), bars)


@warms_up(lambda bars, **_: bars)
def gain(of: np.ndarray, bars: int = 5) -> np.ndarray:
    """SUMP, VSUMP: rises over all moves: [0, 1], shape (T,)."""
    move = of - shifted(of, 1)
    return ratio(window_sum(np.maximum(move, 0), bars), window_sum(np.abs(move), bars))


@warms_up(lambda bars, **_: bars)
def loss(of: np.ndarray, bars: int = 5) -> np.ndarray:
    """SUMN, VSUMN: falls over all moves: [0, 1], shape (T,)."""
    move = of - shifted(of, 1)
    return ratio(window_sum(np.maximum(-move, 0), bars), window_sum(np.abs(move), bars))


@warms_up(lambda bars, **_: bars)
def gain_less_loss(of: np.ndarray, bars: int = 5) -> np.ndarray:
    """SUMD, VSUMD: rises less falls over all moves: [-1, 1], shape (T,)."""
    move = of - shifted(of, 1)
    up, down = window_sum(np.maximum(move, 0), bars), window_sum(np.maximum(-move, 0), bars)
    return ratio(up - down, window_sum(np.abs(move), bars))


def _correlation(x: np.ndarray, y: np.ndarray, bars: int) -> np.ndarray:
    scale = window_sd(x, bars) * window_sd(y, bars) * ((bars - 1) / bars)
    return ratio(window_covariance(x, y, bars), scale)
