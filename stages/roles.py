"""Which rows did what in which fit, so that nothing is judged on rows it had a part in making."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd

from stages.base import LeakError

TEST, HELD_OUT = "test", "held out"
ROLES = ("unused", "train", "stop", "calibrate", "reference", TEST, HELD_OUT)
EVERY, DEPLOYED = "every", "deployed"  # fold of a fit that all folds share; of what is deployed


class Roles:
    """The role of every row in every fit; a row with two roles that exclude each other is refused.

    A *part* is what is fitted: a stage, the gate, the labels, the references. A *fold* is named
    by the first bar of its test block; all parts share the blocks. Roles are

    ========= ====================================================================
    train     weights, scales, selections
    stop      says when training stops
    calibrate sets a threshold, a width, a temperature or a coverage
    reference what explanations compare with
    unused    handed to a fit, which passed it over: unreadable, or purged within
    test      the part speaks of it in this fold, having never seen it
    held out  reported on an outer split: no part has seen it in any fold
    ========= ====================================================================

    Parameters
    ----------
    rows : MultiIndex of N rows
        All rows of the panel that is learnt from.

    Notes
    -----
    One byte a row for each part and fold. Only `table` outlives a stored model.
    """

    def __init__(self, rows: pd.Index) -> None:
        self.rows = rows
        self._codes: dict[tuple[str, str], np.ndarray] = {}
        self._table: list[dict[str, Any]] = []

    @classmethod
    def of(cls, table: Sequence[Mapping[str, Any]]) -> Self:
        """What a stored model remembers: the table, and no rows."""
        roles = cls(pd.MultiIndex.from_arrays([[], []], names=["asset", "time"]))
        roles._table = [dict(line) for line in table]
        return roles

    def record(
        self, part: str, fold: str, used: Mapping[str, pd.Index], hears: Sequence[str] = ()
    ) -> Self:
        """Note what rows did in one fit, and refuse what must not be.

        Parameters
        ----------
        part, fold : str
        used : mapping of str to MultiIndex
            Rows by role.
        hears : sequence of str
            Parts whose words this one learns from: they must have been said of rows unseen.

        Raises
        ------
        LeakError
            SV-F26 when, in this fold, a row has two roles in one part, or is tested by one part
            and learnt from by another; when a part learns from words of a part that had seen the
            row; or when a row is not among those that were to be learnt from.
        """
        own = self._codes.setdefault((part, fold), np.zeros(len(self.rows), "int8"))
        for role, rows in used.items():
            at = self._places(part, role, rows)
            code = ROLES.index(role) + 1
            self._refuse(at, (own[at] > 0) & (own[at] != code), role, part, fold, own)
            for (other, its_fold), codes in self._codes.items():
                theirs = codes[at]
                if its_fold == fold or EVERY in (fold, its_fold):
                    crossed = (theirs == _code(TEST)) != (role == TEST)
                    self._refuse(at, (theirs > 0) & crossed, role, other, its_fold, codes)
                self._refuse(at, theirs == _code(HELD_OUT), role, other, its_fold, codes)
            if role != TEST:
                self._refuse_hearsay(at, role, part, fold, hears)
            own[at] = code
            self._note(part, fold, role, rows)
        return self

    def hold_out(self, part: str, rows: pd.Index) -> Self:
        """Note rows that an outer split reports; no fit may have touched them in any role.

        Raises
        ------
        LeakError
            SV-F26
        """
        at = self.rows.get_indexer(rows)
        at = at[at >= 0]  # later than all that was learnt from
        for (other, fold), codes in self._codes.items():
            seen = (codes[at] > 0) & (codes[at] != _code(HELD_OUT))
            self._refuse(at, seen, HELD_OUT, other, fold, codes)
        own = self._codes.setdefault((part, EVERY), np.zeros(len(self.rows), "int8"))
        own[at] = _code(HELD_OUT)
        self._note(part, EVERY, HELD_OUT, rows)
        return self

    def table(self) -> list[dict[str, Any]]:
        """Part, fold, role, number of rows, first and last time: plain JSON, a line an entry."""
        return [dict(line) for line in self._table]

    def _places(self, part: str, role: str, rows: pd.Index) -> np.ndarray:
        at = self.rows.get_indexer(rows)
        if (at < 0).any():
            asset, time = rows[int((at < 0).argmax())]
            raise LeakError(
                f"{part} has {asset} at {time} as {role}, which is none of its rows",
                code="SV-F26",
                where=f"{(at < 0).sum()} of {len(rows)} rows",
                why="a fit may use the rows that were handed to it, and no others",
                cure="choose such rows from the labels that fit is given",
            )
        return at

    def _refuse(
        self,
        at: np.ndarray,
        clash: np.ndarray,
        role: str,
        other: str,
        fold: str,
        codes: np.ndarray,
    ) -> None:
        if clash.any():
            row = at[int(clash.argmax())]
            asset, time = self.rows[row]
            raise LeakError(
                f"{asset} at {time} would be {role}, and is {ROLES[codes[row] - 1]} for {other}",
                code="SV-F26",
                where=f"{clash.sum()} rows, fold {fold}",
                why="what is learnt from, or chosen by, cannot tell how good the choice was",
                cure="use other rows for one of the two: cut the folds anew, or hold a part back",
            )

    def _refuse_hearsay(
        self, at: np.ndarray, role: str, part: str, fold: str, hears: Sequence[str]
    ) -> None:
        for other in hears:
            unseen = np.zeros(len(self.rows), dtype=bool)
            for codes in self._of(other):
                unseen |= codes == _code(TEST)
            if not unseen[at].all():
                asset, time = self.rows[at[int((~unseen[at]).argmax())]]
                raise LeakError(
                    f"{part} would {role} on {asset} at {time} with words of {other}, "
                    "which had seen that row",
                    code="SV-F26",
                    where=f"{(~unseen[at]).sum()} rows, fold {fold}",
                    why="of rows it knows by heart a model sounds surer than it is",
                    cure="learn from out-of-fold words only",
                )

    def _of(self, part: str) -> Iterator[np.ndarray]:
        return (codes for (name, _), codes in self._codes.items() if name == part)

    def _note(self, part: str, fold: str, role: str, rows: pd.Index) -> None:
        line: dict[str, Any] = {"part": part, "fold": fold, "role": role, "rows": len(rows)}
        times = rows.get_level_values("time")
        if len(rows):
            line |= {"first": times.min().isoformat(), "last": times.max().isoformat()}
        self._table.append(line)


def roles_in(fitted: Any, y: pd.DataFrame) -> dict[str, pd.Index]:
    """What the rows of `y` did in the fit of a stage.

    A stage that does more than train tells it as ``roles_``, a mapping of role to rows, after
    `fit`; of one that does not, all rows are ``train``. Rows it does not name are ``unused``.

    Raises
    ------
    LeakError
        SV-F26 when it names rows that it was not given.
    """
    told = getattr(fitted, "roles_", None)
    if told is None:
        return {"train": y.index}
    left = np.ones(len(y), dtype=bool)
    for role, rows in told.items():
        at = y.index.get_indexer(rows)
        if (at < 0).any():
            asset, time = rows[int((at < 0).argmax())]
            raise LeakError(
                f"{type(fitted).__name__} has {asset} at {time} as {role}, and was not given it",
                code="SV-F26",
                where=f"{(at < 0).sum()} of {len(rows)} rows",
                why="rows that are not handed to a fit are those it will be judged on",
                cure="choose rows from the labels that fit is given",
            )
        left[at] = False
    return {**told, "unused": y.index[left]}


def fold_of(rows: pd.Index) -> str:
    """Name of the fold that tests `rows`: its first bar, ISO, UTC."""
    return str(rows.get_level_values("time").min().isoformat())


def _code(role: str) -> int:
    return ROLES.index(role) + 1
