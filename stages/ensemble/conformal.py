"""Sets of sides and intervals of returns that hold the outcome as often as they promise."""

from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
import pandas as pd
from safetensors.numpy import load, save

from stages.barriers import volatility
from stages.base import DataError, State
from stages.ensemble.quantile import AdaptiveConformal, ConformalPI, QuantileTracker
from stages.panel import asset_starts, check_panel, columns_of, settled
from stages.signal import ODDS, SIDES

Method = Literal["pi", "aci"]
KINDS = ("interval", "set")
COLUMNS = ["interval_low", "interval_high", *(f"set_{name}" for name in SIDES.values())]
PART = "coverage.safetensors"


@dataclass
class Coverage:
    """Conformal class sets and return intervals, kept at their level bar by bar.

    A side is in the set if one less its odds is at most a quantile; the return r over the
    horizon is in the interval if ``|r - centre| / (sigma * sqrt(horizon))`` is at most another,
    with ``centre = lean * sigma * sqrt(horizon) * (p_buy - p_sell)``. Sigma is the volatility
    known at the row. Both quantiles are tracked online: what is issued at a bar follows from
    labels that had matured by then, and an error counts when its label matures.

    Parameters
    ----------
    level : float in (0, 1), default=0.95
        Share of the outcomes to hold.
    method : {'pi', 'aci'}, default='pi'
        `ConformalPI`, or the baseline `AdaptiveConformal`.
    horizon, delay, entry
        Of the labels, see `stages.labels.TripleBarrier`.
    lean : float >= 0, default=1.0
        Return expected of a sure buy, in standard deviations over the horizon.
    decay : float in (0, 1), default=0.94
        Of the volatility, see `stages.barriers.volatility`.
    rate, budget
        See `ConformalPI`; `aci` ignores them.
    gamma
        See `AdaptiveConformal`; `pi` ignores it.
    window, start
        See `QuantileTracker`.
    memory : int > horizon + delay, default=5000
        Bars of quantiles and coverage that are kept.

    Attributes
    ----------
    trackers_ : dict of QuantileTracker
        For ``interval`` and ``set``.

    Notes
    -----
    What is issued is never empty: the likeliest side is in the set and the centre in the
    interval, whatever the quantile. That only adds coverage; the quantile itself is moved by
    whether it covered the score, so that an easy stretch is not saved up for a hard one.

    A pipeline calls, with `bars` and its labels `y`::

        panel["sigma"] = coverage.sigma(bars)             # in panel(), before the stages
        coverage_ = replace(coverage).fit(unseen, coverage.outcomes(bars, y))  # out-of-fold rows
        panel = panel.assign(**coverage_.predict(panel))  # after stage 3: p_* are needed
        coverage_.update(panel, coverage.outcomes(bars, new))  # newly matured labels, before
        # stage 3 learns from them; panel as stage 3 sees these rows then

    To judge later rows that had an update at every bar: ``update`` a copy with them, then
    ``predict`` them; each row gets the quantile of its own time.

    References
    ----------
    Angelopoulos, Candes & Tibshirani (2023), NeurIPS; Gibbs & Candes (2021), NeurIPS; Sadinle,
    Lei & Wasserman (2019), JASA 114 (sets of the classes that are likely enough).
    """

    level: float = 0.95
    method: Method = "pi"
    horizon: int = 5
    delay: int = 1
    entry: Literal["close", "open"] = "close"
    lean: float = 1.0
    decay: float = 0.94
    rate: float = 0.1
    budget: float | None = None
    gamma: float = 0.01
    window: int = 100
    start: int = 50
    memory: int = 5000

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(f"method must be one of {get_args(Method)}, got {self.method!r}")
        if self.horizon < 1 or self.delay < 0 or not self.memory > self.span:
            raise ValueError(
                "need horizon >= 1, delay >= 0 and memory > horizon + delay, got "
                f"{self.horizon}, {self.delay}, {self.memory}"
            )
        if self.entry not in ("close", "open") or (self.entry == "open" and self.delay < 1):
            raise ValueError(f"need entry='close', or 'open' and delay >= 1, got {self}")
        if not 0 < self.decay < 1 or not 0 <= self.lean < np.inf:
            raise ValueError(f"need decay in (0, 1) and lean >= 0, got {self.decay}, {self.lean}")
        self._reset()

    def _reset(self) -> None:
        self.trackers_ = {kind: self._tracker() for kind in KINDS}
        self._times: np.ndarray = np.empty(0, "int64")  # of maturity, microseconds since 1970
        self._path: np.ndarray = np.empty((0, len(KINDS), 3))  # coverage, rows, next quantile

    @property
    def span(self) -> int:
        """Bars from a row to the bar at which its outcome is known."""
        return self.horizon + self.delay

    @property
    def history_(self) -> pd.DataFrame:
        """Coverage over time: one row per bar at which labels matured, the last `memory` of them.

        Columns, for ``interval`` and ``set``: ``*_coverage`` (share of the maturing rows that
        was held; NaN where none had been issued), ``*_rows`` (how many had) and ``*_quantile``
        (in force from then on).
        """
        names = [f"{kind}_{name}" for kind in KINDS for name in ("coverage", "rows", "quantile")]
        times = pd.to_datetime(self._times, unit="us", utc=True)
        path = self._path.reshape(-1, len(names))
        return pd.DataFrame(path, pd.DatetimeIndex(times, name="time"), names)

    def realised(self, window: int = 250) -> dict[str, float]:
        """Share of the rows of `history_` that was held, and that of its worst `window` bars.

        Returns
        -------
        dict of str to float
            ``interval_coverage``, ``interval_worst``, ``set_coverage``, ``set_worst``; NaN where
            there are no rows, or fewer bars than `window`.
        """
        history, out = self.history_, {}
        for kind in KINDS:
            rows = history[f"{kind}_rows"][history[f"{kind}_rows"] > 0]
            held = (history[f"{kind}_coverage"] * rows).dropna()
            out[f"{kind}_coverage"] = float(held.sum() / rows.sum()) if len(rows) else np.nan
            worst = held.rolling(window).sum() / rows.rolling(window).sum()
            out[f"{kind}_worst"] = float(worst.min())
        return out

    def sigma(self, bars: pd.DataFrame) -> pd.Series:
        """Volatility per bar known at each row, fraction; NaN where there is none."""
        check_panel(bars)
        values = np.full(len(bars), np.nan)
        if "close" in bars:
            close = bars["close"].to_numpy(dtype="float64", copy=True)
            values = volatility(close, asset_starts(bars), self.decay)
        return pd.Series(values, bars.index, name="sigma")

    def outcomes(self, bars: pd.DataFrame, y: pd.DataFrame) -> pd.DataFrame:
        """What came of the rows of `y` whose whole horizon lies in `bars`.

        Returns
        -------
        DataFrame of shape (n, 3)
            `side` (float, of `y`), `forward_return` (fraction, from the entry to the end of the
            horizon, even where a barrier was touched before; NaN without those prices) and `end`
            (UTC, when both were known: no label counts before its horizon is over).
        """
        check_panel(y, ["side", "end"])
        row = check_panel(bars).index.get_indexer(y.index)
        starts = asset_starts(bars)
        last = np.append(np.repeat(starts[1:], np.diff(starts)), 0) - 1
        steps = self.span - (self.entry == "open")
        whole = (row >= 0) & (row + steps <= last[row])
        y, row = y[whole], row[whole]
        paid = np.full(len(row), np.nan)
        if {"close", self.entry} <= set(bars.columns):
            enter, leave = (bars[name].to_numpy(dtype="float64") for name in (self.entry, "close"))
            first, final = enter[row + self.delay], leave[row + steps]
            with np.errstate(divide="ignore", invalid="ignore"):
                paid = np.where((first > 0) & (final > 0), final / first - 1, np.nan)
        over = _microseconds(bars.index.get_level_values("time"))[row + steps]
        end = pd.to_datetime(np.maximum(_microseconds(settled(y)), over), unit="us", utc=True)
        columns = {"side": y["side"].astype("float64"), "forward_return": paid, "end": end}
        return pd.DataFrame(columns, y.index)

    def fit(self, panel: pd.DataFrame, outcomes: pd.DataFrame) -> Self:
        """Run the trackers through rows that no stage had seen, from the beginning.

        Parameters
        ----------
        panel, outcomes
            See `update`.
        """
        self._reset()
        return self.update(panel, outcomes)

    def predict(self, panel: pd.DataFrame) -> pd.DataFrame:
        """Set and interval of every row, by the quantiles that were in force at its time.

        Parameters
        ----------
        panel : DataFrame of shape (N, F)
            With `p_sell`, `p_hold`, `p_buy` and `sigma`.

        Returns
        -------
        DataFrame of shape (N, 5)
            `interval_low` (not below -1), `interval_high` (fractions; may be infinite) and
            `set_sell`, `set_hold`, `set_buy` (1 or 0). NaN where the odds, or for the interval
            sigma, are NaN, and at times before `start` bars had matured or older than `memory`.
        """
        p, centre, unit = self._read(panel)
        time = _microseconds(panel.index.get_level_values("time"))
        interval, reach = _in_force(self._times, self._path, time).T
        around = np.maximum(interval, 0.0) * unit
        low = np.maximum(centre - around, -1.0)  # a price does not fall below zero
        reach = np.maximum(reach, 1 - p.max(axis=1))[:, None]  # the likeliest side, at least
        inside = np.where(np.isnan(p + reach), np.nan, 1 - p <= reach)
        values = np.column_stack([low, centre + around, inside])
        return pd.DataFrame(values, panel.index, COLUMNS)

    def update(self, panel: pd.DataFrame, outcomes: pd.DataFrame) -> Self:
        """Move the quantiles through matured rows, in the order in which they matured.

        Rows with the same ``end`` are one bar and make one step; hand them over together, and
        once. The quantiles, and `history_`, do not depend on how the bars are cut into calls. A
        row counts with the quantile that was in force at its time, as one update per bar makes
        it: call at every bar if what users saw is to be what is counted.

        Parameters
        ----------
        panel : DataFrame of shape (N, F)
            With `p_sell`, `p_hold`, `p_buy` as said without knowledge of the outcome, and
            `sigma`.
        outcomes : DataFrame of shape (n, 3)
            `side` (-1, 0, 1 or NaN), `forward_return` (fraction or NaN) and `end`, see
            `outcomes`. Rows that `panel` lacks are passed over.

        Raises
        ------
        DataError
            SV-F25 for an outcome that was known no later than its row.
        """
        check_panel(outcomes, ["side", "forward_return", "end"])
        outcomes = outcomes[outcomes.index.isin(panel.index)]
        time = _microseconds(outcomes.index.get_level_values("time"))
        end = _microseconds(outcomes["end"])
        if (end <= time).any():
            asset, row = outcomes.index[int((end <= time).argmax())]
            raise DataError(
                f"the outcome of {asset} at {row} is said to be known no later than that",
                code="SV-F25",
                why="a set or interval may not learn from its own outcome",
                cure="use the outcomes that Coverage.outcomes makes of bars and labels",
            )
        score, least = self._scores(panel.loc[outcomes.index], outcomes)
        order = np.argsort(end, kind="stable")
        bars = np.split(order, np.flatnonzero(np.diff(end[order])) + 1) if len(order) else []
        times = np.concatenate([self._times, np.empty(len(bars), "int64")])
        path = np.concatenate([self._path, np.empty((len(bars), len(KINDS), 3))])
        for at, rows in enumerate(bars, start=len(self._times)):
            issued = _in_force(times[:at], path[:at], time[rows])
            path[at] = self._learn(score[rows], least[rows], issued)
            # rows of an asset whose bars came late count late
            times[at] = max([end[rows[0]], *times[max(at - 1, 0) : at]])
        self._times, self._path = times[-self.memory :], path[-self.memory :]
        return self

    def state(self) -> State:
        arrays = {"times": self._times, "path": self._path}
        for kind, tracker in self.trackers_.items():
            arrays |= {f"{kind}.{name}": array for name, array in tracker.state().items()}
        return State({}, {PART: save({n: np.ascontiguousarray(a) for n, a in arrays.items()})})

    def restore(self, state: State) -> Self:
        self._reset()
        arrays = {name: array.copy() for name, array in load(state.parts[PART]).items()}
        self._times, self._path = arrays["times"], arrays["path"]
        for kind, tracker in self.trackers_.items():
            own = {n.removeprefix(f"{kind}."): a for n, a in arrays.items() if n.startswith(kind)}
            tracker.restore(own)
        return self

    def _tracker(self) -> QuantileTracker:
        common = (self.level, self.span, self.window, self.start)
        if self.method == "aci":
            return AdaptiveConformal(*common, gamma=self.gamma)
        return ConformalPI(*common, rate=self.rate, budget=self.budget)

    def _read(self, panel: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Odds (N, K), centre of the interval and its unit, (N,) fractions each."""
        check_panel(panel, [*ODDS, "sigma"])
        p = columns_of(panel, ODDS)
        unit = panel["sigma"].to_numpy(dtype="float64") * np.sqrt(self.horizon)
        return p, self.lean * unit * (p[:, 2] - p[:, 0]), unit

    def _scores(self, panel: pd.DataFrame, outcomes: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Score of each row, and the least quantile that is ever issued for it: (n, 2) each."""
        p, centre, unit = self._read(panel)
        side = outcomes["side"].to_numpy(dtype="float64")
        known = np.isfinite(side)
        paid = p[np.arange(len(p)), np.where(known, side, 0).astype(int) + 1]
        away = np.abs(outcomes["forward_return"].to_numpy(dtype="float64") - centre) / unit
        score = np.column_stack([away, np.where(known, 1 - paid, np.nan)])
        return score, np.column_stack([np.zeros(len(p)), 1 - p.max(axis=1)])

    def _learn(self, score: np.ndarray, least: np.ndarray, issued: np.ndarray) -> np.ndarray:
        """One bar: coverage, rows and the new quantile of each kind, (2, 3)."""
        said = np.full((len(KINDS), 3), np.nan)
        for k, tracker in enumerate(self.trackers_.values()):
            known = np.isfinite(score[:, k])
            if known.any():
                tracker.learn(score[known, k], issued[known, k])
            promised = known & ~np.isnan(issued[:, k])
            held = score[promised, k] <= np.maximum(issued[promised, k], least[promised, k])
            said[k] = held.mean() if len(held) else np.nan, len(held), tracker.quantile_
        return said


def _in_force(times: np.ndarray, path: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Quantiles at the times `at`, (n, 2): those of the last bar that had matured by then."""
    if not len(times):
        return np.full((len(at), len(KINDS)), np.nan)
    place = np.searchsorted(times, at, side="right") - 1
    return np.where(place[:, None] >= 0, path[place, :, 2], np.nan)


def _microseconds(times: pd.Index | pd.Series) -> np.ndarray:
    return pd.DatetimeIndex(times).as_unit("us").asi8
