"""What trades say beside the price: who asked for them, their sizes, what they cost.

A row is a trade or a bar. Where a trade needs the quote that it met, it is that of the row before;
see `stages.features.microstructure` for what counts as a quote.

Columns beside those of bars, as `stages.features.bars` makes them:
  value trades                money traded and number of trades
  buy_volume sell_volume      units that buyers and that sellers asked for
  signed_volume signed_value  units and money of buyers less those of sellers
  small_volume large_volume   units in trades below and from the bounds of the classes
  size_squares                sum of squared trade sizes
  cost                        twice what takers paid beyond the mid, money
"""

import numpy as np
from numba import njit

from stages.features.kernels import log_ratio, ratio, shifted, window_sum
from stages.features.microstructure import mid
from stages.features.shared import shared
from stages.panel import warms_up

# who asked for a trade


@warms_up(lambda memory, **_: memory)
@shared
def tick_rule(close: np.ndarray, memory: int = 100) -> np.ndarray:
    """1 for a buyer, -1 for a seller, by the last change of the price: shape (T,).

    0 where the price stood still for `memory` rows: nothing shows a side.

    References
    ----------
    Lee & Ready (1991), "Inferring trade direction from intraday data", J. Finance 46(2).
    """
    if memory < 1:
        raise ValueError(f"need memory >= 1 rows, got {memory}")
    return _last_change(np.require(close, "float64", ["C", "W"]), memory)


@warms_up(lambda memory, **_: memory)
@shared
def lee_ready(close: np.ndarray, bid: np.ndarray, ask: np.ndarray, memory: int = 100) -> np.ndarray:
    """1 for a trade above the mid that it met, -1 below; at the mid by `tick_rule`: shape (T,).

    The quote is that of the row before. The five seconds by which Lee & Ready let quotes wait
    mended the clocks of 1988.

    References
    ----------
    Lee & Ready (1991), "Inferring trade direction from intraday data", J. Finance 46(2).
    """
    beyond = np.sign(close - shifted(mid(bid, ask), 1))
    by_tick = tick_rule(close, memory)
    return np.where(beyond == 0, by_tick, beyond + 0.0 * by_tick)


@warms_up(lambda bars, memory, **_: bars - 1 + memory)
def tick_pressure(
    close: np.ndarray, volume: np.ndarray, bars: int = 20, memory: int = 100
) -> np.ndarray:
    """Volume bought less sold over volume, sides by the tick rule, [-1, 1]: shape (T,)."""
    return _pressure(tick_rule(close, memory), volume, bars)


@warms_up(lambda bars, memory, **_: bars - 1 + memory)
def quote_pressure(
    close: np.ndarray,
    volume: np.ndarray,
    bid: np.ndarray,
    ask: np.ndarray,
    bars: int = 20,
    memory: int = 100,
) -> np.ndarray:
    """Volume bought less sold over volume, sides by Lee & Ready, [-1, 1]: shape (T,)."""
    return _pressure(lee_ready(close, bid, ask, memory), volume, bars)


@warms_up(lambda bars, **_: bars - 1)
def net_bought(buy_volume: np.ndarray, sell_volume: np.ndarray, bars: int = 20) -> np.ndarray:
    """What buyers asked for less what sellers did, over both, [-1, 1]: shape (T,).

    References
    ----------
    Chordia, Roll & Subrahmanyam (2002), "Order imbalance, liquidity, and market returns", J.
    Financial Economics 65(1).
    """
    net, both = buy_volume - sell_volume, buy_volume + sell_volume
    return ratio(window_sum(net, bars), window_sum(both, bars))


# sizes of trades


@warms_up(lambda bars, **_: bars - 1)
def size_share(size_volume: np.ndarray, volume: np.ndarray, bars: int = 20) -> np.ndarray:
    """Share of the volume that traded in sizes of one class, [0, 1]: shape (T,).

    A partial binds the class: ``size_volume: large_volume``.

    References
    ----------
    Barclay & Warner (1993), "Stealth trading and volatility", J. Financial Economics 34(3).
    """
    traded = window_sum(volume + 0.0 * size_volume, bars)
    return ratio(window_sum(size_volume, bars), traded)


@warms_up(lambda bars, **_: bars - 1)
def size_concentration(size_squares: np.ndarray, volume: np.ndarray, bars: int = 20) -> np.ndarray:
    """Herfindahl index of the trades of `bars` bars: 1 where one trade made all, (0, 1]: (T,)."""
    traded = window_sum(volume + 0.0 * size_squares, bars)
    return ratio(window_sum(size_squares, bars), traded**2)


@warms_up(lambda slow, **_: slow - 1)
def trade_size(
    volume: np.ndarray, trades: np.ndarray, fast: int = 10, slow: int = 60
) -> np.ndarray:
    """Log of the mean trade of `fast` bars over that of `slow` bars: shape (T,)."""
    if not 0 < fast < slow:
        raise ValueError(f"need 0 < fast < slow, got fast={fast}, slow={slow}")
    now, usual = (
        ratio(window_sum(volume, n), window_sum(trades, n)) + 0.0 * window_sum(volume, slow)
        for n in (fast, slow)
    )
    return log_ratio(now, usual)


# what trading costs


@warms_up(lambda bars, **_: bars - 1)
def vwap_deviation(
    close: np.ndarray, value: np.ndarray, volume: np.ndarray, bars: int = 20
) -> np.ndarray:
    """Log of the price over what was paid on average in `bars` rows, fraction: shape (T,).

    References
    ----------
    Berkowitz, Logue & Noser (1988), "The total cost of transactions on the NYSE", J. Finance
    43(1).
    """
    paid = ratio(window_sum(value, bars), window_sum(volume + 0.0 * value, bars))
    return log_ratio(close, paid)


@warms_up(lambda **_: 1)
def effective_spread(close: np.ndarray, bid: np.ndarray, ask: np.ndarray) -> np.ndarray:
    """Twice the distance of a trade from the mid that it met, over the mid, >= 0: shape (T,).

    References
    ----------
    Huang & Stoll (1996), "Dealer versus auction markets", J. Financial Economics 41(3).
    """
    met = shifted(mid(bid, ask), 1)
    return 2 * ratio(np.abs(close - met), met)


@warms_up(lambda horizon, memory, **_: memory + horizon)
def realised_spread(
    close: np.ndarray, bid: np.ndarray, ask: np.ndarray, horizon: int = 10, memory: int = 100
) -> np.ndarray:
    """What the maker of the trade `horizon` rows ago has kept of the spread: shape (T,).

    Twice the signed distance of that trade from the mid of now, over the mid that it met. It is
    known after the horizon alone: the row of now tells of the trade of then.

    References
    ----------
    Huang & Stoll (1996), "Dealer versus auction markets", J. Financial Economics 41(3).
    """
    now = mid(bid, ask)
    side, price = (shifted(x, horizon) for x in (lee_ready(close, bid, ask, memory), close))
    return 2 * side * ratio(price - now, shifted(now, horizon + 1))


@warms_up(lambda bars, **_: bars - 1)
def effective_cost(cost: np.ndarray, value: np.ndarray, bars: int = 20) -> np.ndarray:
    """Effective spread of `bars` bars, weighted with the money traded, fraction: shape (T,)."""
    return ratio(window_sum(cost, bars), window_sum(value + 0.0 * cost, bars))


@warms_up(lambda bars, horizon, **_: bars - 1 + horizon)
def realised_cost(
    bid: np.ndarray,
    ask: np.ndarray,
    signed_volume: np.ndarray,
    signed_value: np.ndarray,
    value: np.ndarray,
    bars: int = 20,
    horizon: int = 5,
) -> np.ndarray:
    """Realised spread of `bars` bars that ended `horizon` bars ago, fraction: shape (T,).

    The trades of each bar are held against the mid `horizon` bars after it: it is known then.
    """
    units, money = shifted(signed_volume, horizon), shifted(signed_value, horizon)
    kept = 2 * (money - units * mid(bid, ask))
    traded = shifted(value, horizon) + 0.0 * kept
    return ratio(window_sum(kept, bars), window_sum(traded, bars))


def _pressure(side: np.ndarray, volume: np.ndarray, bars: int) -> np.ndarray:
    return ratio(window_sum(side * volume, bars), window_sum(volume + 0.0 * side, bars))


@njit(cache=True, nogil=True)
def _last_change(price: np.ndarray, memory: int) -> np.ndarray:
    out = np.full(len(price), np.nan)
    changed, unknown, side = -memory, -1, 0.0
    for i in range(len(price)):
        if np.isnan(price[i]):
            unknown = i
        elif i > 0 and price[i] > price[i - 1]:
            changed, side = i, 1.0
        elif i > 0 and price[i] < price[i - 1]:
            changed, side = i, -1.0
        if i - memory > unknown:
            out[i] = side if i - changed < memory else 0.0
    return out
