"""Labels: the side that paid over the next bars, when that was known, and how much it counts."""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import pandas as pd

from stages.barriers import MIN_RETURNS, first_touch, uniqueness, volatility
from stages.base import DataError, State, fitted
from stages.panel import asset_starts, check_panel

MIN_ASSETS = 3  # a bar with fewer has no thirds


def forward_return(bars: pd.DataFrame, horizon: int, delay: int) -> pd.Series:
    """Return from the close `delay` bars on to the close `horizon` bars after that.

    Parameters
    ----------
    bars : DataFrame of shape (N, F)
        With `close`; the bars counted are the asset's own.
    horizon : int >= 1
    delay : int >= 0

    Returns
    -------
    Series of N floats
        Fraction; NaN where either close is missing or still to come.
    """
    close = check_panel(bars, ["close"])["close"].where(lambda price: price > 0)
    by_asset = close.groupby(level="asset", sort=False)
    return (by_asset.shift(-delay - horizon) / by_asset.shift(-delay) - 1).rename("forward_return")


@dataclass
class Labels:
    """What all labels share: a horizon in bars of the asset, a delay before it, a longest gap.

    Parameters
    ----------
    horizon : int >= 1, default=5
        Bars from the entry to the end of the label.
    delay : int >= 0, default=1
        Bars from the decision to the entry.
    max_gap : str, optional
        Longest time from the decision to the end of the horizon, e.g. ``"14D"``; beyond it the
        label is missing, however early it was decided.
    """

    horizon: int = 5
    delay: int = 1
    max_gap: str | None = None

    def __post_init__(self) -> None:
        if self.horizon < 1 or self.delay < 0:
            raise ValueError(
                f"need horizon >= 1 and delay >= 0, got horizon={self.horizon}, delay={self.delay}"
            )
        if self.max_gap is not None and not pd.Timedelta(self.max_gap) > pd.Timedelta(0):
            raise ValueError(f"need max_gap > 0, got {self}")

    @property
    def span(self) -> int:
        """Most bars from a decision to the end of its label."""
        return self.horizon + self.delay

    def fit(self, bars: pd.DataFrame, rows: pd.Index | None = None) -> Self:
        """Learn what the labels need from `bars`: nothing, unless a subclass says so."""
        check_panel(bars)
        return self

    def state(self) -> State:
        return State()

    def restore(self, state: State) -> Self:
        return self

    def _over_gap(self, time: pd.DatetimeIndex, final: np.ndarray) -> np.ndarray:
        """True where the horizon that ends at row `final` takes longer than `max_gap`."""
        if self.max_gap is None:
            return np.zeros(len(time), dtype=bool)
        return np.asarray(time[final] - time > pd.Timedelta(self.max_gap))


@dataclass
class TripleBarrier(Labels):
    """Buy if the upper barrier is touched first, sell if the lower, hold if neither.

    The barriers stand at ``entry * exp(+-width * sigma * sqrt(horizon))``, sigma the volatility
    known at the decision. They are watched on high and low where the panel has both, else on
    closes. A bar that touches both is a hold; one that opens beyond a barrier fills there. A
    label is missing while its horizon is incomplete, even if a barrier was touched: labels that
    are decided early are not the ones that hold.

    Parameters
    ----------
    horizon, delay, max_gap
        See `Labels`.
    width : float > 0, optional
        Barrier in standard deviations over the horizon; None fits it so that a third holds.
    decay : float in (0, 1), default=0.94
        Weight of a squared return against the next one's (RiskMetrics 1996).
    entry : {'close', 'open'}, default='close'
        Price at which the position starts, `delay` bars on. An open needs a delay of 1 or more,
        and its bar is the first of the horizon.

    Attributes
    ----------
    width_ : float
    roles_ : dict of str to MultiIndex
        Rows that `fit` set the width on, as ``calibrate``; none where the width was given.

    References
    ----------
    Lopez de Prado (2018), "Advances in Financial Machine Learning", ch. 3.
    """

    width: float | None = None
    decay: float = 0.94
    entry: Literal["close", "open"] = "close"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.width is not None and not self.width > 0) or not 0 < self.decay < 1:
            raise ValueError(f"need width > 0 and decay in (0, 1), got {self}")
        if self.entry not in ("close", "open") or (self.entry == "open" and self.delay < 1):
            raise ValueError(f"need entry='close', or 'open' and delay >= 1, got {self}")

    def fit(self, bars: pd.DataFrame, rows: pd.Index | None = None) -> Self:
        """Set `width_` so that one label in three is a hold; give bars of the training only.

        Parameters
        ----------
        bars : DataFrame of shape (N, F)
        rows : MultiIndex, optional
            Rows whose labels may be counted; default all whose whole horizon `bars` hold.

        Raises
        ------
        DataError
            If no row has both a volatility before it and a whole horizon after it.
        """
        self.roles_: dict[str, pd.Index] = {}
        if self.width is not None:
            self.width_ = float(self.width)
            return self
        unit = self._unit(bars)
        reach = self._walk(bars, unit)[3] / unit
        used = np.isfinite(reach) & ~self._over_gap(_times(bars), self._final(bars))
        if rows is not None:
            used &= bars.index.isin(rows)
        reach = reach[used]
        if not len(reach):
            raise DataError(
                f"no bar has a whole label of {self.span} bars",
                code="SV-F18",
                cure=f"bring more than {MIN_RETURNS + self.span} bars of an asset",
            )
        self.width_ = float(np.quantile(reach, 1 / 3))
        # a bar that touches both barriers holds as well: make room for those
        side = self.label(bars)["side"].reindex(bars.index[used])
        extra = float((side == 0).mean()) - 1 / 3
        self.width_ = float(np.quantile(reach, np.clip(1 / 3 - extra, 0, 1)))
        self.roles_ = {"calibrate": bars.index[used]}
        return self

    def label(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Labels of the rows of `bars` whose whole horizon is known: see `check_labels`."""
        side, last, ret, _ = self._walk(bars, self.scale(bars).to_numpy())
        time, final = _times(bars), self._final(bars)
        known = np.isfinite(ret) & ~self._over_gap(time, final)
        return _table(bars, known, side, time[last], last, ret, over=time[final])

    def scale(self, bars: pd.DataFrame) -> pd.Series:
        """Log distance of the barriers at each row: the return at stake, known at the row."""
        width = fitted(self, "width_") if self.width is None else self.width
        return pd.Series(width * self._unit(bars), bars.index, name="scale")

    def state(self) -> State:
        return State({"width": fitted(self, "width_")})

    def restore(self, state: State) -> Self:
        self.width_ = float(state.values["width"])
        return self

    def _unit(self, bars: pd.DataFrame) -> np.ndarray:
        return _sigma(bars, self.decay) * np.sqrt(self.horizon)

    def _walk(
        self, bars: pd.DataFrame, width: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        check_panel(bars, [self.entry])
        ranged = {"high", "low"} <= set(bars.columns)
        names = ["open", "high", "low", "close"] if ranged else ["", "close", "close", "close"]
        prices = np.full((4, len(bars)), np.nan)
        for row, name in zip(prices, names, strict=True):
            if name in bars.columns:
                row[:] = bars[name]
        first = self.delay + (self.entry == "close")
        steps = np.array([self.delay, first, first + self.horizon - 1])
        enter = bars[self.entry].to_numpy(dtype="float64", copy=True)
        return first_touch(prices, asset_starts(bars), width.copy(), enter, steps)

    def _final(self, bars: pd.DataFrame) -> np.ndarray:
        """Row number of the vertical barrier, as far as the bars reach."""
        return _ahead(bars, self.span - (self.entry == "open"))


@dataclass
class FixedHorizon(Labels):
    """Buy or sell if the return over the horizon passes its threshold.

    Parameters
    ----------
    horizon, delay, max_gap
        See `Labels`.
    up, down : float >= 0, default=0.43
        Thresholds of a buy and, below zero, of a sell; 0.43 standard deviations make thirds of a
        Gaussian. A return of exactly zero is neither.
    between : {'hold', 'drop'}, default='hold'
        Whether a return between them is a hold or no label.
    unit : {'vol', 'return'}, default='vol'
        Thresholds in standard deviations of the log return over the horizon, or as a fraction.
    decay : float in (0, 1), default=0.94
        Of the volatility, see `TripleBarrier`.
    """

    up: float = 0.43
    down: float = 0.43
    between: Literal["hold", "drop"] = "hold"
    unit: Literal["vol", "return"] = "vol"
    decay: float = 0.94

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.up >= 0 and self.down >= 0 and 0 < self.decay < 1):
            raise ValueError(f"need up >= 0, down >= 0 and decay in (0, 1), got {self}")
        if self.between not in ("hold", "drop") or self.unit not in ("vol", "return"):
            raise ValueError(f"between is 'hold' or 'drop', unit 'vol' or 'return', got {self}")

    def label(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Labels of the rows of `bars` whose return is known: see `check_labels`."""
        ret = forward_return(bars, self.horizon, self.delay).to_numpy()
        if self.unit == "vol":
            unit = _sigma(bars, self.decay) * np.sqrt(self.horizon)
            move = np.log1p(ret) / unit
        else:
            unit, move = np.ones(len(bars)), ret
        buy, sell = (move >= self.up) & (move > 0), (move <= -self.down) & (move < 0)
        final = _ahead(bars, self.span)
        time = _times(bars)
        known = np.isfinite(move) & ~self._over_gap(time, final)
        if self.between == "drop":
            known &= buy | sell
        last = np.where(np.isfinite(unit), final, np.arange(len(bars)))
        side = buy.astype("int8") - sell.astype("int8")
        return _table(bars, known, side, time[final], last, ret)

    def scale(self, bars: pd.DataFrame) -> pd.Series:
        """Mean threshold as a return; the volatility over the horizon where both are zero."""
        stake = (self.up + self.down) / 2
        at_stake = np.full(len(bars), stake)
        if self.unit == "vol" or not stake:
            at_stake = (stake or 1.0) * _sigma(bars, self.decay) * np.sqrt(self.horizon)
        return pd.Series(at_stake, bars.index, name="scale")


@dataclass
class Terciles(Labels):
    """Buy the third of the assets that returns most over the horizon, sell the last third.

    All assets of a bar are ranked together, as soon as the first of them has `span` more bars; one
    whose own horizon takes longer than that (it was halted) is left out, as are bars of fewer than
    `MIN_ASSETS`. Assets whose bars end at other times, as those of another exchange do, are ranked
    among themselves.

    Parameters
    ----------
    horizon, delay, max_gap
        See `Labels`.
    decay : float in (0, 1), default=0.94
        Of the volatility in `scale`, see `TripleBarrier`.
    """

    decay: float = 0.94

    def label(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Labels of the rows whose whole cross-section is known: see `check_labels`."""
        ret = forward_return(bars, self.horizon, self.delay).to_numpy()
        time, final = _times(bars), _ahead(bars, self.span)
        code, there = time.factorize()[0], final == np.arange(len(bars)) + self.span
        own = pd.Series(time[final], copy=False)
        end = pd.DatetimeIndex(own.where(there).groupby(code).transform("min"))
        known = np.isfinite(ret) & there & (time[final] <= end)
        known &= ~self._over_gap(time, final)
        rows = pd.Series(np.where(known, ret, np.nan)).groupby(code)
        rank, count = rows.rank().to_numpy(), rows.transform("count").to_numpy()
        place = (rank - 0.5) / np.maximum(count, 1)
        side = (place > 2 / 3).astype("int8") - (place < 1 / 3).astype("int8")
        return _table(bars, known & (count >= MIN_ASSETS), side, end, final, ret)

    def scale(self, bars: pd.DataFrame) -> pd.Series:
        """Volatility over the horizon."""
        at_stake = _sigma(bars, self.decay) * np.sqrt(self.horizon)
        return pd.Series(at_stake, bars.index, name="scale")


@dataclass
class Given(Labels):
    """Labels that come with the data, as those of the planted markets do."""

    horizon: int = 1
    delay: int = 0

    def label(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Refuse: there is nothing to compute."""
        raise DataError(
            "labels=given, but no labels came with the data",
            code="SV-F20",
            cure="hand over y, use a synthetic source, or choose labels=triple_barrier",
        )

    def scale(self, bars: pd.DataFrame) -> None:
        """Nothing is known of the return at stake."""


def _sigma(bars: pd.DataFrame, decay: float) -> np.ndarray:
    close = check_panel(bars, ["close"])["close"].to_numpy(dtype="float64", copy=True)
    return volatility(close, asset_starts(bars), decay)


def _ahead(bars: pd.DataFrame, steps: int) -> np.ndarray:
    """Row number of the asset's bar `steps` later, or of its last bar."""
    starts = asset_starts(bars)
    return np.minimum(np.arange(len(bars)) + steps, np.repeat(starts[1:], np.diff(starts)) - 1)


def _times(bars: pd.DataFrame) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(bars.index.get_level_values("time"))


def _table(
    bars: pd.DataFrame,
    known: np.ndarray,
    side: np.ndarray,
    end: pd.DatetimeIndex,
    last: np.ndarray,
    ret: np.ndarray,
    over: pd.DatetimeIndex | None = None,
) -> pd.DataFrame:
    columns = {
        "side": side.astype("int8"),
        "end": end,
        "weight": uniqueness(last),
        "ret": ret,
        "horizon_end": end if over is None else over,
    }
    return pd.DataFrame(columns, bars.index)[known]
