"""What quotes and books say beside the price: spreads, queues, order flow.

A row is a tick or a bar; functions take the quote at its end. A quote whose ask lies below its
bid, or whose bid is not above 0, is no quote: every value that needs it is NaN. What trades say
stands in `stages.features.trades`.

Columns beside those of bars, as `stages.features.bars` makes them:
  bid ask bid_size ask_size   best quote, price and units
  ofi depth                   order flow of the row and mean size of a queue, units
"""

import numpy as np

from stages.features.kernels import log_ratio, ratio, shifted, window_mean, window_sum
from stages.features.shared import shared
from stages.panel import warms_up

# quotes


@warms_up(lambda **_: 0)
def spread(bid: np.ndarray, ask: np.ndarray) -> np.ndarray:
    """Ask less bid, in units of the price, >= 0: shape (T,)."""
    bid, ask = quoted(bid, ask)
    return ask - bid


@warms_up(lambda **_: 0)
def relative_spread(bid: np.ndarray, ask: np.ndarray) -> np.ndarray:
    """Spread over the mid, fraction in [0, 2): shape (T,)."""
    return ratio(spread(bid, ask), mid(bid, ask))


@warms_up(lambda bars, **_: bars - 1)
def spread_beside_usual(bid: np.ndarray, ask: np.ndarray, bars: int = 60) -> np.ndarray:
    """Relative spread over its mean of `bars` rows, 1 where it is as usual: shape (T,)."""
    own = relative_spread(bid, ask)
    return ratio(own, window_mean(own, bars))


@warms_up(lambda **_: 0)
@shared
def mid(bid: np.ndarray, ask: np.ndarray) -> np.ndarray:
    """Middle of bid and ask, in units of the price: shape (T,)."""
    bid, ask = quoted(bid, ask)
    return (bid + ask) / 2


@warms_up(lambda bars, **_: bars)
def mid_return(bid: np.ndarray, ask: np.ndarray, bars: int = 1) -> np.ndarray:
    """Log return of the mid over the last `bars` rows, fraction: shape (T,)."""
    now = mid(bid, ask)
    return log_ratio(now, shifted(now, bars))


@warms_up(lambda **_: 0)
def microprice(
    bid: np.ndarray, ask: np.ndarray, bid_size: np.ndarray, ask_size: np.ndarray
) -> np.ndarray:
    """Mid weighted with the opposite queues: it leans to the side that is thinner: shape (T,).

    References
    ----------
    Gatheral & Oomen (2010), "Zero-intelligence realized variance estimation", Finance and
    Stochastics 14. Stoikov (2018), "The micro-price", Quantitative Finance 18(12), takes it as
    the first step of his own, which has to be fitted.
    """
    bid, ask = quoted(bid, ask)
    lean = (1 + queue_imbalance(bid_size, ask_size)) / 2
    return ask * lean + bid * (1 - lean)


@warms_up(lambda **_: 0)
def microprice_lean(
    bid: np.ndarray, ask: np.ndarray, bid_size: np.ndarray, ask_size: np.ndarray
) -> np.ndarray:
    """Log distance of the microprice from the mid, fraction: shape (T,)."""
    return log_ratio(microprice(bid, ask, bid_size, ask_size), mid(bid, ask))


@warms_up(lambda **_: 0)
@shared
def queue_imbalance(bid_size: np.ndarray, ask_size: np.ndarray) -> np.ndarray:
    """Bid queue less ask queue over their sum, [-1, 1]; NaN where both are empty: shape (T,).

    References
    ----------
    Gould & Bonart (2016), "Queue imbalance as a one-tick-ahead price predictor in a limit order
    book", Market Microstructure and Liquidity 2(2).
    """
    bids = np.where(bid_size >= 0, bid_size, np.nan)
    asks = np.where(ask_size >= 0, ask_size, np.nan)
    return ratio(bids - asks, bids + asks)


@warms_up(lambda bars, **_: bars - 1)
def mean_queue_imbalance(bid_size: np.ndarray, ask_size: np.ndarray, bars: int = 20) -> np.ndarray:
    """Mean of `queue_imbalance` over `bars` rows, [-1, 1]: shape (T,)."""
    return window_mean(queue_imbalance(bid_size, ask_size), bars)


@warms_up(lambda **_: 1)
@shared
def order_flow(
    bid: np.ndarray, ask: np.ndarray, bid_size: np.ndarray, ask_size: np.ndarray
) -> np.ndarray:
    """What one change of the best quote adds to demand less supply, units: shape (T,).

    References
    ----------
    Cont, Kukanov & Stoikov (2014), "The price impact of order book events", J. Financial
    Econometrics 12(1): the contribution e_n of section 2.2.
    """
    bid, ask = quoted(bid, ask)
    b, a = shifted(bid, 1), shifted(ask, 1)
    flow = (bid >= b) * bid_size - (bid <= b) * shifted(bid_size, 1)
    flow = flow - (ask <= a) * ask_size + (ask >= a) * shifted(ask_size, 1)
    return np.where(np.isfinite(bid + ask + b + a), flow, np.nan)  # NaN compares as False


@warms_up(lambda bars, **_: bars)
def order_flow_imbalance(
    bid: np.ndarray,
    ask: np.ndarray,
    bid_size: np.ndarray,
    ask_size: np.ndarray,
    bars: int = 20,
) -> np.ndarray:
    """Order flow of the last `bars` quotes over what the queues held: shape (T,).

    The rows are quotes: of bars, it sees the change from end to end alone; see `flow_imbalance`.

    References
    ----------
    Cont, Kukanov & Stoikov (2014): the price moves by the flow over the depth.
    """
    flow = order_flow(bid, ask, bid_size, ask_size)
    return flow_imbalance(flow, (bid_size + ask_size) / 2, bars)


@warms_up(lambda bars, **_: bars - 1)
def flow_imbalance(ofi: np.ndarray, depth: np.ndarray, bars: int = 20) -> np.ndarray:
    """Order flow of `bars` bars, each the sum of its own quotes', over their depth: shape (T,)."""
    return ratio(window_sum(ofi, bars), window_sum(depth + 0.0 * ofi, bars))


@shared
def quoted(bid: np.ndarray, ask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both prices where they are a quote: a crossed one is NaN, a locked one stands."""
    sound = (ask >= bid) & (bid > 0)
    return np.where(sound, bid, np.nan), np.where(sound, ask, np.nan)
