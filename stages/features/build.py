"""From bars to a panel: run the configured features, rules and context, say what is left out."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd

from stages.base import DataError, State
from stages.features.columns import Columns
from stages.features.feeds import find_market, unfed
from stages.features.functions import across_assets, forgets, reads
from stages.features.rows import Rows
from stages.panel import age, check_panel, warmup

log = logging.getLogger(__name__)

Feature = Callable[..., np.ndarray]


@dataclass
class FeatureSet:
    """Add ``feature.*``, ``rule.*`` and ``context.*`` columns to bars.

    A function reads the columns that its parameters without a default name: of the bars, or of
    a feature listed above it. A partial that binds such a parameter to a text reads that column:
    ``{_target_: stages.features.returns.log_return, _partial_: true, close: market}``. What the
    bars cannot feed is left out, with a logged line, and never filled. Bars without a `market`
    take the equal-weight index of their assets for it.

    Parameters
    ----------
    columns, context, rules : mapping of str to callable
        By the name of their column: functions of one asset's bars (see `warms_up`), or of the
        assets of one time (see `cross_section`).
    inner : sequence of str
        Names among `columns` that are only there to be read by others, and are not kept.
    min_coverage : float in (0, 1], default=0.5
        Share of the assets listed by then that a time must hold for its cross-section, or the
        equal-weight market, to stand for the universe. An asset counts from its first bar on:
        where many are delisted, or trade on other calendars, set it lower.

    Attributes
    ----------
    left_out_ : dict of str to str
        Columns that the last bars could not feed, and why.
    universe_ : dict of str to str
        First time of each asset that `fit` saw (ISO, UTC).
    market_ : {'given', 'equal weight', 'absent'}
        Where the market came from in `fit`; later bars are held to it.
    built_ : list of str
        Columns that the bars of `fit` could feed; later bars are held to them.
    dropped_ : list of str
        Columns that `drop` has taken out since: they are computed only to be read by others.
    """

    columns: Mapping[str, Feature]
    context: Mapping[str, Feature] = field(default_factory=dict)
    rules: Mapping[str, Feature] = field(default_factory=dict)
    min_coverage: float = 0.5
    inner: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not 0 < self.min_coverage <= 1:
            raise ValueError(f"min_coverage must lie in (0, 1], got {self.min_coverage}")
        if not self.columns:
            raise ValueError("columns must name at least one feature")
        strange = [name for name in self.inner if name not in self.columns]
        if strange or len(set(self.inner)) == len(self.columns):
            raise ValueError(f"inner must name some of the columns, got {strange or 'all of them'}")
        self.dropped_: list[str] = []
        self.left_out_: dict[str, str] = {}
        self._said: set[str] = set()

    @property
    def warmups(self) -> dict[str, int]:
        """Bars of an asset before the first value of each column, those it reads included."""
        bars: dict[str, int] = {}
        for name, function in self.functions():
            above = [bars.get(f"feature.{column}", 0) for column in reads(function).values()]
            bars[name] = warmup(function) + max(above, default=0)
        return bars

    @property
    def warmup(self) -> int:
        """Bars of an asset before its first complete row, over the columns not left out."""
        bars = self.warmups
        built = getattr(self, "built_", [name for name in bars if name not in self.left_out_])
        return max(bars[name] for name in built)

    def fit(self, bars: pd.DataFrame) -> Self:
        """Remember what the training bars held, so that later bars are held to the same.

        Parameters
        ----------
        bars : DataFrame of shape (N, ...)
        """
        for name in ("universe_", "market_", "built_"):
            self.__dict__.pop(name, None)
        self.dropped_ = []
        rows, market, wanted = self._prepare(bars)
        self.universe_ = {asset: first.isoformat() for asset, first in rows.listed().items()}
        self.market_, self.built_ = market, list(wanted)
        return self

    def drop(self, names: Iterable[str]) -> Self:
        """Leave features out from now on, as training found nothing in them: see `Quality`."""
        self.dropped_ = [*self.dropped_, *names]
        return self

    @property
    def hidden(self) -> set[str]:
        """Columns that are computed where others read them, and not kept."""
        return {f"feature.{name}" for name in self.inner} | set(self.dropped_)

    @property
    def reads_bars(self) -> bool:
        """Whether the columns are made of the bars."""
        return True

    def sources(self, bars: pd.DataFrame) -> list[str]:
        """Columns of `bars` that the functions read."""
        read = {column for _, f in self.functions() for column in reads(f).values()}
        return [str(name) for name in bars.columns if name in read]

    def build(self, bars: pd.DataFrame, threads: int = 1) -> pd.DataFrame:
        """Return `bars` with the columns of every feature, rule and context they can feed.

        Parameters
        ----------
        bars : DataFrame of shape (N, ...)
            A panel of bars, see `stages.panel`.
        threads : int >= 1, default=1
            Assets that are computed at a time: the same bits.

        Returns
        -------
        DataFrame
            The bars, then float32 columns: NaN until warm, and where a window lacks a bar.

        Raises
        ------
        DataError
            If the bars lack what `fit` had, feed nothing, or a column comes out infinite.
        """
        return joined(bars, self.table(bars, threads=threads))

    def table(
        self,
        bars: pd.DataFrame,
        rows: np.ndarray | None = None,
        given: Mapping[str, np.ndarray] | None = None,
        threads: int = 1,
    ) -> pd.DataFrame:
        """The columns that `build` adds.

        Parameters
        ----------
        bars : DataFrame of shape (N, ...)
        rows : ndarray of bool, shape (N,), optional
            The newest rows of each asset that are wanted, of a set that `extends`: no more is
            computed than they look back on.
        given : mapping of str to float64 ndarray of shape (N,), optional
            Columns that were computed elsewhere: across assets of which `bars` hold a part.
        threads : int >= 1, default=1

        Returns
        -------
        DataFrame of shape (N, F), or of shape (rows.sum(), F)
        """
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        return self._made(bars, "float32", rows, given, threads)

    @property
    def extends(self) -> bool:
        """Whether `table` can be asked for the newest rows alone, and gives the same bits.

        TA-Lib keeps running sums, so that its columns are made of all history. That cannot be
        had of a column that looks back on others, or across the assets.
        """
        made = {name.removeprefix("feature.") for name, _ in self.functions()}
        return all(
            forgets(f) or not (across_assets(f) or made & set(reads(f).values()))
            for _, f in self.functions()
        )

    def values(
        self, bars: pd.DataFrame, given: Mapping[str, np.ndarray] | None = None
    ) -> pd.DataFrame:
        """The columns that `build` adds, in the float64 in which they are computed."""
        return self._made(bars, "float64", None, given)

    def _made(
        self,
        bars: pd.DataFrame,
        dtype: str,
        newest: np.ndarray | None,
        given: Mapping[str, np.ndarray] | None,
        threads: int = 1,
    ) -> pd.DataFrame:
        rows, _, wanted = self._prepare(bars)
        known, index = dict(given or {}), bars.index
        compared = any(across_assets(f) for f in wanted.values())
        covered = self._covered(rows) if compared else np.ones(len(bars), bool)
        if newest is not None:
            bars_of = self.warmups
            kept = rows.back(newest, max(bars_of[name] for name in wanted))
            known = {n: rows.run(f)[kept] for n, f in wanted.items() if not forgets(f)} | known
            rows = rows.of_rows(kept)
            covered, newest, index = covered[kept], newest[kept], index[kept]
        names = [name for name in wanted if name not in self.hidden]
        # whole columns are written: column-major, else this costs several times as much
        table = np.empty((len(index), len(names)), dtype, order="F")
        places = {name: number for number, name in enumerate(names)}
        Columns(rows, wanted, table, places, covered, known, threads).fill()
        if newest is not None:
            table, index = table[newest], index[newest]
        return pd.DataFrame(table, index, names, copy=False)

    def ready(self, bars: pd.DataFrame) -> np.ndarray:
        """Rows whose every look-back is complete, and whose time stands for the universe: (N,)."""
        rows, market, wanted = self._prepare(bars)
        old = age(bars) >= self.warmup
        index = market == "equal weight" and self.reads_market
        if index or any(across_assets(f) for f in wanted.values()):
            return old & self._covered(rows)
        return old

    def state(self) -> State:
        """What `fit` remembered, as JSON values, with the bars that each column needs."""
        values = {"universe": self.universe_, "market": self.market_, "built": self.built_}
        bars = self.warmups
        warmups = {name: bars[name] for name in self.built_}
        return State(values | {"dropped": self.dropped_, "warmups": warmups})

    def restore(self, state: State) -> Self:
        """Take back what `state` gave."""
        self.universe_ = dict(state.values["universe"])
        self.market_ = state.values["market"]
        self.built_ = list(state.values["built"])
        self.dropped_ = list(state.values["dropped"])
        return self

    def functions(self) -> Iterator[tuple[str, Feature]]:
        """Every feature, rule and context under the name of its column, in order."""
        for family, functions in (
            ("feature", self.columns),
            ("rule", self.rules),
            ("context", self.context),
        ):
            for name, function in functions.items():
                yield f"{family}.{name}", function

    @property
    def reads_market(self) -> bool:
        """Whether any function reads the market."""
        return any("market" in reads(function).values() for _, function in self.functions())

    def _prepare(self, bars: pd.DataFrame) -> tuple[Rows, str, dict[str, Feature]]:
        """The bars as arrays, where their market comes from, and the functions they can feed."""
        read = {column for _, f in self.functions() for column in reads(f).values()}
        rows = Rows.of(check_panel(bars), read | {"close"})  # of which a market can be made
        market = find_market(rows, getattr(self, "market_", None), self.reads_market)
        left_out = unfed(dict(self.functions()), rows, getattr(self, "built_", None))
        self._say(left_out, market)
        wanted = {name: f for name, f in self.functions() if name not in left_out}
        if not any(name.startswith("feature.") for name in wanted):
            raise DataError(
                "the bars feed none of the features",
                code="SV-F20",
                where=f"columns present: {sorted(map(str, bars.columns))[:40]}",
                why=f"the features read {sorted(read)}",
                cure="map the columns with data.columns",
            )
        return rows, market, wanted

    def _covered(self, rows: Rows) -> np.ndarray:
        trained = getattr(self, "universe_", None)
        if trained is None:
            return rows.coverage(rows.listed()) >= self.min_coverage
        listed = {asset: pd.Timestamp(time) for asset, time in trained.items()}
        return rows.coverage(listed) >= self.min_coverage

    def _say(self, left_out: dict[str, str], market: str) -> None:
        """Log what is left out and what stands in, each line once."""
        by_reason: dict[str, list[str]] = {}
        for name, reason in left_out.items():
            by_reason.setdefault(reason, []).append(name)
        lines = [f"left out, because {why}: {', '.join(who)}" for why, who in by_reason.items()]
        if market == "equal weight" and self.reads_market:
            lines.append("no market column: the equal-weight index of the assets stands in for it")
        for line in lines:
            if line not in self._said:
                log.info(line)
        self._said |= set(lines)
        self.left_out_ = left_out


def joined(bars: pd.DataFrame, made: pd.DataFrame) -> pd.DataFrame:
    """Bars with the columns that were made of them; refuses a name that is there already."""
    twice: list[Any] = [name for name in made.columns if name in bars.columns]
    if twice:
        raise DataError(
            f"the bars already have a column {twice[0]}",
            code="SV-F20",
            where=f"{len(twice)} columns",
            cure="features=given takes the columns the data came with, or rename them",
        )
    return pd.concat([bars, made], axis=1)
