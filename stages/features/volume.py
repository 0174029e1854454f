"""What trades beside the price: pressure, unusual volume, liquidity."""

import numpy as np

from stages.features.candles import typical_price
from stages.features.kernels import change, log_ratio, ratio, window_mean, window_sd, window_sum
from stages.features.returns import log_return
from stages.panel import warms_up


@warms_up(lambda bars, **_: bars)
def on_balance_volume(close: np.ndarray, volume: np.ndarray, bars: int = 20) -> np.ndarray:
    """Change of on-balance volume over `bars` bars, over what traded: [-1, 1], shape (T,).

    References
    ----------
    Granville (1963), "Granville's New Key to Stock Market Profits".
    """
    move = change(close)
    signed = np.sign(move) * volume
    traded = volume + 0.0 * move  # of the same bars: unknown where the move is
    return ratio(window_sum(signed, bars), window_sum(traded, bars))


@warms_up(lambda bars, **_: bars)
def money_flow(
    high: np.ndarray, low: np.ndarray, close: np.ndarray, volume: np.ndarray, bars: int = 14
) -> np.ndarray:
    """MFI: share of the money that flowed into rising bars, 0 to 100: shape (T,).

    TA-Lib's own answers 0 where less than one unit of money flowed, so it is not used.

    References
    ----------
    Quong & Soudack (1989), "Volume-weighted RSI: Money Flow", Technical Analysis of Stocks &
    Commodities 7(3).
    """
    typical = typical_price(high, low, close)
    move = change(typical)
    flow = typical * volume
    into = window_sum(np.where(move > 0, flow, 0.0 * move * flow), bars)
    out_of = window_sum(np.where(move < 0, flow, 0.0 * move * flow), bars)
    return 100 * ratio(into, into + out_of)


@warms_up(lambda bars, **_: bars - 1)
def volume_score(volume: np.ndarray, bars: int = 60) -> np.ndarray:
    """Volume in standard deviations from its average over `bars` bars: shape (T,)."""
    return ratio(volume - window_mean(volume, bars), window_sd(volume, bars))


@warms_up(lambda bars, **_: bars - 1)
def turnover_score(close: np.ndarray, volume: np.ndarray, bars: int = 60) -> np.ndarray:
    """Money traded in standard deviations from its average over `bars` bars: shape (T,)."""
    return volume_score(close * volume, bars)


@warms_up(lambda slow, **_: slow)
def illiquidity(
    close: np.ndarray, volume: np.ndarray, fast: int = 20, slow: int = 120
) -> np.ndarray:
    """Log of price impact per money traded, fast window over slow: shape (T,).

    Amihud's measure, with sums over sums so that a bar without trades does not divide by 0.

    References
    ----------
    Amihud (2002), "Illiquidity and stock returns", J. Financial Markets 5(1).
    """
    if not 0 < fast < slow:
        raise ValueError(f"need 0 < fast < slow, got fast={fast}, slow={slow}")
    impact = np.abs(log_return(close))
    money = close * volume + 0.0 * impact
    return log_ratio(
        ratio(window_sum(impact, fast), window_sum(money, fast)),
        ratio(window_sum(impact, slow), window_sum(money, slow)),
    )
