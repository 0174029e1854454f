"""Markets where nothing can be found: whoever finds something is wrong, or has seen the future."""

from dataclasses import replace

import numpy as np
import pandas as pd

from stages.markets.market import TICK, Market, Moves, check_size, clustered, plant, third
from stages.markets.planted import mixed
from stages.panel import asset_starts, check_labels, check_panel, named
from stages.signal import ODDS

TICKS = 8  # steps of one bar; the first is the move overnight
SPAN = 40  # bars; beyond the window and the horizon of the planted experiments


def noise_garch(seed: int, times: int = 4000, assets: int = 20, features: int = 8) -> Market:
    """Bars of driftless prices whose volatility clusters, and features that say nothing.

    The panel has `open`, `high`, `low`, `close` and `volume`, so that technical features and
    barriers can be computed on it. A bar is a walk of 8 ticks: the first is the gap to its open,
    its high and low are those of the rest. Volume follows the volatility. The label's cut moves
    with the volatility too: the odds are thirds for whoever knows all of the past. Labels that are
    cut by a rougher volatility, such as barriers, leave a hold to be foreseen, and no direction.

    Parameters
    ----------
    seed, times, assets, features
        As `stages.markets.planted.tabular`.
    """
    check_size(times, assets, features)
    rng = np.random.default_rng(seed)
    x_ATF = rng.standard_normal((assets, times, features)).astype("float32")
    ticks = rng.standard_normal((TICKS, assets, times)) / np.sqrt(TICKS)
    bar_AT = ticks.sum(axis=0)
    volatility_AT = clustered(bar_AT)
    path = TICK * (volatility_AT * ticks).cumsum(axis=0)
    before_AT = np.cumsum(path[-1], axis=1) - path[-1]
    price = 100 * np.exp(before_AT + path)
    bars = {"open": price[0], "high": price.max(axis=0), "low": price.min(axis=0)}
    volume_AT = 1e6 * volatility_AT * np.exp(0.3 * rng.standard_normal((assets, times)))
    bars |= {"close": price[-1], "volume": volume_AT}
    # a row's move is the next bar; the last row has none, and no label
    after_AT, soon_AT = (np.roll(t, -1, axis=1) for t in (bar_AT, volatility_AT))
    nothing_AT = np.zeros((assets, times))
    moves = Moves(nothing_AT, after_AT, third(nothing_AT), volatility=soon_AT)
    return plant(x_ATF, moves, [], bars=bars)


def noise_shifted(
    seed: int, times: int = 4000, assets: int = 20, snr: float = 1.0, features: int = 8
) -> Market:
    """The market `mixed` with its labels `shifted`: every part looks real, the link is gone.

    The odds are thirds. Parameters as `stages.markets.planted.tabular`.
    """
    source = mixed(seed, times, assets, snr, features)
    return _without_odds(shifted(source.panel, source.y, seed))


def noise_permuted(
    seed: int, times: int = 4000, assets: int = 20, snr: float = 1.0, features: int = 8
) -> Market:
    """The market `mixed` with its labels `permuted`: every part looks real, the link is gone.

    The odds are thirds. Parameters as `stages.markets.planted.tabular`.
    """
    source = mixed(seed, times, assets, snr, features)
    return _without_odds(permuted(source.panel, source.y, seed))


def shifted(panel: pd.DataFrame, y: pd.DataFrame, seed: int, span: int = SPAN) -> Market:
    """Any panel, with the labels of each asset turned around in time, all by the same step.

    What came of a row is that of another row more than `span` labels away: features keep their
    habits, labels keep theirs and those they share across assets, and neither tells of the other.

    Parameters
    ----------
    panel : DataFrame of shape (N, F)
        Real or planted; taken as it is.
    y : DataFrame of shape (n, 4)
        Its labels, see `check_labels`. `side` and `ret` move; `end` and `weight` belong to the row.
    seed : int
    span : int >= 0, default=40
        Must exceed the horizon and the look-back of every feature and window together.

    Returns
    -------
    Market
        The odds are the shares of the sides in `y`, on the rows of `panel`.

    Raises
    ------
    ValueError
        For an asset of fewer than ``2 * span + 3`` labels.
    """
    sizes = _sizes(panel, y, span)
    step = int(np.random.default_rng(seed).integers(span + 1, sizes.min() - span))
    starts = asset_starts(y)
    order = [a + (np.arange(n) + step) % n for a, n in zip(starts[:-1], sizes, strict=True)]
    return _relabelled(panel, y, np.concatenate(order), np.arange(len(y)))


def permuted(panel: pd.DataFrame, y: pd.DataFrame, seed: int, span: int = SPAN) -> Market:
    """Any panel, with the labels of each asset cut into blocks that change places.

    A block is ``span + 1`` labels long, and none stays where it was. Labels after the last whole
    block are dropped. Parameters, odds and refusals as `shifted`.
    """
    sizes, block = _sizes(panel, y, span), span + 1
    order, kept = [], []
    for start, n in zip(asset_starts(y)[:-1], sizes, strict=True):
        # the same seed for each asset, so that what assets share at a time stays shared
        place = _elsewhere(np.random.default_rng(seed), n // block)
        order.append(start + (place[:, None] * block + np.arange(block)).ravel())
        kept.append(start + np.arange(n // block * block))
    return _relabelled(panel, y, np.concatenate(order), np.concatenate(kept))


def _sizes(panel: pd.DataFrame, y: pd.DataFrame, span: int) -> np.ndarray:
    """Labels of each asset, (A,), if each has enough of them."""
    check_panel(panel)
    check_labels(y)
    sizes = np.diff(asset_starts(y))
    if span < 0 or not len(sizes) or sizes.min() < 2 * span + 3:
        shortest = y.index[asset_starts(y)[sizes.argmin()]][0] if len(sizes) else "no asset"
        raise ValueError(
            f"need span >= 0 and at least 2 * span + 3 labels of each asset, got span={span} and "
            f"{sizes.min() if len(sizes) else 0} labels of {shortest}"
        )
    return sizes


def _elsewhere(rng: np.random.Generator, n: int) -> np.ndarray:
    """A permutation of n that leaves nothing in its place: one in e of all is one."""
    while True:
        place = rng.permutation(n)
        if (place != np.arange(n)).all():
            return place


def _relabelled(
    panel: pd.DataFrame, y: pd.DataFrame, order: np.ndarray, kept: np.ndarray
) -> Market:
    """`panel` with the labels ``y[order]`` on the rows ``y[kept]``."""
    moved = [name for name in ("side", "ret") if name in y]
    other = y.iloc[kept].assign(**{name: y[name].to_numpy()[order] for name in moved})
    share = y["side"].value_counts(normalize=True).reindex([-1, 0, 1], fill_value=0.0)
    inputs = named(panel, "feature", "context")
    return Market(
        panel,
        other,
        pd.DataFrame(np.tile(share.to_numpy(), (len(panel), 1)), panel.index, ODDS),
        pd.Series(np.zeros(len(panel), dtype="int8"), panel.index, name="regime"),
        pd.DataFrame(np.zeros((len(panel), len(inputs))), panel.index, inputs),
    )


def _without_odds(noise: Market) -> Market:
    """Thirds, as the market that the labels come from makes them, and not as they turned out."""
    return replace(noise, posterior=noise.posterior.assign(**dict.fromkeys(ODDS, 1 / 3)))
