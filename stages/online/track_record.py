"""What a model said of rows it had not seen and what came of them: its skill, and its coverage."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd
from safetensors.numpy import load, save

from stages.base import State, fitted
from stages.ensemble.conformal import Coverage
from stages.ensemble.skill import SkillTest
from stages.panel import check_labels, check_panel, settled
from stages.signal import ODDS

PART = "rows.safetensors"
OUTCOME = ["side", "end"]  # of a row, as floats: NaN, and microseconds, until they are known


@dataclass
class TrackRecord:
    """The tests that a deployed model is under: its words are kept until their outcome is known.

    Parameters
    ----------
    skill : SkillTest
    coverage : Coverage or None
        None promises neither sets nor intervals.

    Attributes
    ----------
    skill_, coverage_
        As they stand after all outcomes so far.
    rows_ : DataFrame
        What was said of the last bars, whose labels may still be open: `p_sell`, `p_hold`,
        `p_buy`, `sigma` (NaN without coverage), and `side` and `end` where they are known.
    """

    skill: SkillTest
    coverage: Coverage | None = None

    def fit(self, said: pd.DataFrame, y: pd.DataFrame, bars: pd.DataFrame, span: int) -> Self:
        """Begin with rows that no stage had seen when it spoke of them.

        Parameters
        ----------
        said, y, bars
            See `update`.
        span : int
            Bars from a row to the bar at which its label is known.
        """
        self.rows_ = said.iloc[:0].reindex(columns=[*ODDS, "sigma", *OUTCOME]).astype("float64")
        self.skill_ = replace(self.skill).fit(self.rows_, y, span)
        self.coverage_ = None if self.coverage is None else replace(self.coverage)
        return self.update(said, y, bars)

    def update(self, said: pd.DataFrame, y: pd.DataFrame, bars: pd.DataFrame) -> Self:
        """Note what was said of new rows, and judge the rows whose labels are known by now.

        Parameters
        ----------
        said : DataFrame of shape (N, F)
            `p_sell`, `p_hold`, `p_buy` (and `sigma`) of rows of bars that are newer than all
            before, by a model that knew no label which was settled after the row.
        y : DataFrame of shape (n, 3 to 5)
            Labels; those of rows that are not, or no longer, in `rows_` are passed over.
        bars : DataFrame
            Up to the newest bar of all: returns over the whole horizon are read off them.
        """
        new = said.reindex(columns=[*ODDS, "sigma"]).astype("float64").dropna(subset=ODDS)
        rows = pd.concat([fitted(self, "rows_"), new.reindex(columns=self.rows_.columns)])
        rows = check_panel(rows.sort_index())
        at = check_labels(y).index.get_indexer(rows.index)
        news = (at >= 0) & rows["side"].isna().to_numpy()
        y = y.iloc[at[news]]
        rows.loc[news, "side"] = y["side"].to_numpy("float64")
        rows.loc[news, "end"] = _us(settled(y)).astype("float64")
        now = bars.index.get_level_values("time").max()
        self.skill_.update(rows, _labels(rows), now)
        if self.coverage_ is not None:
            self.coverage_.update(rows, self.coverage_.outcomes(bars, y))
        times = rows.index.unique("time").sort_values()
        kept = 2 * self.skill_.span_ + 1
        recent = rows.index.get_level_values("time") >= times[-min(kept, len(times))]
        self.rows_ = rows[recent] if len(times) else rows
        return self

    def predict(self, panel: pd.DataFrame) -> pd.DataFrame:
        """What was known at the time of each row: ``skill.*``, and the columns of `Coverage`.

        Parameters
        ----------
        panel : DataFrame of shape (N, F)
            With `p_sell`, `p_hold`, `p_buy`, and with coverage `sigma`.
        """
        known = fitted(self, "skill_").at(panel.index.get_level_values("time"))
        columns = {f"skill.{name}": column.to_numpy() for name, column in known.items()}
        if self.coverage_ is not None:
            promised = self.coverage_.predict(panel)
            columns |= {str(name): column.to_numpy() for name, column in promised.items()}
        return pd.DataFrame(columns, panel.index)

    def state(self) -> State:
        parts: dict[str, bytes] = {}
        values: dict[str, object] = {}
        for name, judge in (("skill", fitted(self, "skill_")), ("coverage", self.coverage_)):
            if judge is not None:
                state = judge.state()
                values[name] = dict(state.values)
                parts |= {f"{name}.{part}": content for part, content in state.parts.items()}
        asset, time = (self.rows_.index.get_level_values(name) for name in ("asset", "time"))
        codes, names = asset.factorize()
        table = {"asset": codes.astype("int64"), "time": _us(time)}
        table["values"] = np.ascontiguousarray(self.rows_.to_numpy("float64"))
        parts[PART] = save(table)
        return State(values | {"assets": [str(name) for name in names]}, parts)

    def restore(self, state: State) -> Self:
        def of(name: str) -> State:
            own = {n.removeprefix(f"{name}."): p for n, p in state.parts.items()}
            return State(state.values[name], own)

        self.skill_ = replace(self.skill).restore(of("skill"))
        self.coverage_ = None
        if self.coverage is not None:
            self.coverage_ = replace(self.coverage).restore(of("coverage"))
        table = load(state.parts[PART])
        assets = pd.Index(state.values["assets"], dtype="str")[table["asset"]]
        times = pd.to_datetime(table["time"], unit="us", utc=True)
        index = pd.MultiIndex.from_arrays([assets, times], names=["asset", "time"])
        self.rows_ = pd.DataFrame(table["values"], index, [*ODDS, "sigma", *OUTCOME])
        return self


def _labels(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose labels are known, as labels."""
    known = rows.loc[rows["side"].notna(), OUTCOME]
    return known.assign(end=pd.to_datetime(known["end"].astype("int64"), unit="us", utc=True))


def _us(times: pd.Index | pd.Series) -> np.ndarray:
    return pd.DatetimeIndex(times).as_unit("us").asi8
