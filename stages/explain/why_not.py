"""What would have had to be different: the smallest change of inputs that turns a decision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from stages.base import Explanation
from stages.explain.memory import Memory, column_of
from stages.explain.smallest import COUNT, Asked, Search, smallest
from stages.explain.trials import UNDECIDED, Change, Target, Trials
from stages.explain.variants import Variants
from stages.signal import SIDE_TEXT, WhyNot

SET = {"cost", "repeat", "history", "inputs", "universe", "staleness"}  # no input changes these


@dataclass(frozen=True)
class Check:
    """Something that stood in the way of a signal, and how far off it was.

    Attributes
    ----------
    key, text : str
        See `stages.signal.WhyNot`.
    value, limit, distance : float or None
        Found, asked, and how much lay between; None where it is not a matter of figures.
    """

    key: str
    text: str
    value: float | None = None
    limit: float | None = None
    distance: float | None = None


@dataclass(frozen=True)
class Move:
    """An input at another value.

    Attributes
    ----------
    column, name : str
        Of the panel, and in words.
    start, end : float
        What it is, and what it would have to be.
    start_place, end_place : float in [0, 1]
        Share of the training below either.
    along : mapping of str to float
        Columns that this one settles, and their values then: they moved with it.
    along_names : tuple of str
        The same in words.
    companions : tuple of str
        Inputs that usually move with it (rank correlation of 0.7 or more), and were held.
    """

    column: str
    name: str
    start: float
    end: float
    start_place: float
    end_place: float
    along: Mapping[str, float] = field(default_factory=dict)
    along_names: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Counterfactual:
    """What stood in the way of a row, and the smallest change of its inputs that was found.

    Plain values: `dataclasses.asdict` gives what can be stored as JSON.

    Attributes
    ----------
    asset, time : str
        Time in ISO format, UTC.
    side : int or None
        As decided; None for an abstention.
    leads : int or None
        Side whose odds are better than the opposite side's.
    target : int or str or None
        What was asked for, see `why_not`.
    checks : tuple of Check
    moves : tuple of Move
        Empty where nothing was found, or nothing can be.
    becomes : int or None
        Side after the moves.
    status : str or None
        Status after the moves: a side is ``unproven`` while skill is.
    shift : float or None
        Shares of the training that the moves pass, summed.
    certainty, novelty : tuple of (float or None)
        Before, and after the moves; where there are none, after the change that came nearest.
    if_free : bool or None
        Whether a hold would be a side if trading cost nothing; None where nothing is asked: for
        a side, or where it costs nothing as it is.
    held : str
        What the moves leave as it is.
    tried : int
        Changes that the stages were asked about.
    text : str
        All of it in words.
    """

    asset: str
    time: str
    side: int | None
    leads: int | None
    target: int | str | None
    checks: tuple[Check, ...]
    moves: tuple[Move, ...]
    becomes: int | None
    status: str | None
    shift: float | None
    certainty: tuple[float | None, float | None]
    novelty: tuple[float | None, float | None]
    if_free: bool | None
    held: str
    tried: int
    text: str

    def applied(self, panel: pd.DataFrame) -> pd.DataFrame:
        """`panel` with the moves made at the row: predict and decide it to check the answer."""
        out = panel.copy()
        row = (self.asset, pd.Timestamp(self.time))
        for move in self.moves:
            for column, value in {move.column: move.end, **move.along}.items():
                out.loc[row, column] = np.float32(value)
        return out


def why_not(  # noqa: PLR0913  the row's model, the row, and how to look
    stack: Any,
    decide: Any,
    panel: pd.DataFrame,
    rows: pd.MultiIndex,
    memory: Memory,
    why: Explanation | None = None,
    search: Search | None = None,
    target: Target = None,
) -> list[Counterfactual]:
    """Find for each row what stood in its way, and the smallest change that turns the decision.

    One input alone is tried at every level; then pairs, then triples of those that come nearest,
    the most promising first. What is answered was predicted by `stack` and decided by `decide`,
    at the very values that are printed. Only inputs of the row itself move: the bars before are
    held, and so are all other inputs, but for those that a moved one settles (see
    `Memory.leader`). Of one input no smaller change exists on the levels tried; of two and three
    there may be smaller ones, and where none is found there may be one.

    Parameters
    ----------
    stack : Stack
        Fitted.
    decide : Decide
    panel : DataFrame of shape (N, F)
        Inputs of `rows` and of the bars their windows need, `ready`, and `cost`, `scale` and
        `floor` where there are. A column `why_not` adds what only the whole table shows.
    rows : MultiIndex of n rows
    memory : Memory
        Of the rows the stack was trained on: the range inputs may move in, and their names.
    why : Explanation, optional
        Of `rows`: which inputs to try first.
    search : Search, optional
    target : int or 'lean', optional
        Side to reach; ``lean`` asks what would make the opposite side lead, whatever is decided.
        By default any side of a hold, and any other decision of a side.

    Returns
    -------
    list of n Counterfactual

    References
    ----------
    Wachter, Mittelstadt & Russell (2018), "Counterfactual explanations without opening the black
    box", Harvard J. Law & Technology 31(2); Ustun, Spangher & Liu (2019), FAT*.
    """
    search = search or Search()
    out = []
    for row in rows:
        variants = Variants.of(stack, panel, row)
        trials = Trials.of(variants, decide, memory, target)
        also: Any = panel.at[row, "why_not"] if "why_not" in panel else ()
        weight = None if why is None else why.contributions.loc[row].abs()
        out.append(_answer(row, trials, also, _columns(trials, weight, search), search))
    return out


def _columns(trials: Trials, weight: pd.Series | None, search: Search) -> list[str]:
    """Inputs that may move, the weightiest first."""
    memory, known = trials.memory, set(trials.variants.columns)
    free = [
        c
        for c in memory.columns
        if c in known and c not in memory.leader and np.isfinite(trials.start(c))
    ]
    if weight is None:
        return free
    size = weight.rename(column_of).groupby(level=0).sum().reindex(free, fill_value=0.0)
    return list(size.sort_values(ascending=False, kind="stable").index[: search.columns])


def _answer(
    row: tuple[str, pd.Timestamp],
    trials: Trials,
    also: Sequence[WhyNot],
    columns: list[str],
    search: Search,
) -> Counterfactual:
    said = trials.table.iloc[0]
    reasons = [
        *said["why_not"],
        *(r for r in also if r.key not in {w.key for w in said["why_not"]}),
    ]
    checks = tuple(_check(trials, reason) for reason in reasons)
    asked = Asked(trials)
    change: Change | None = None
    target = trials.target
    if trials.now == target:
        change = {}
    elif trials.now != UNDECIDED and (
        target == "lean" or not SET & {check.key for check in checks}
    ):
        change = smallest(asked, columns, search)
    ends = change if change else asked.nearest
    after = trials.judge([ends]).table.iloc[0] if ends else said
    moves = tuple(_move(trials, c, v) for c, v in (change or {}).items())
    decided = trials.now != UNDECIDED
    found = Counterfactual(
        asset=str(row[0]),
        time=row[1].isoformat(),
        side=trials.now if decided else None,
        leads=trials.leads if decided else None,
        target=target,
        checks=checks,
        moves=moves,
        becomes=int(after["side"]) if moves else None,
        status=str(after["status"]) if moves else None,
        shift=trials.shift(change) if change else None,
        certainty=(_number(said["certainty"]), _number(after["certainty"])),
        novelty=(_number(said.get("novelty")), _number(after.get("novelty"))),
        if_free=_if_free(trials),
        held=_held(trials, moves),
        tried=asked.count,
        text="",
    )
    return replace(found, text=_text(found, search))


def _check(trials: Trials, reason: WhyNot) -> Check:
    value, limit = reason.value, reason.limit
    if reason.key == "gate":
        score, limit = trials.gate(trials.table)
        value = float(score[0])
    elif reason.key == "cost" and {"cost", "scale"} <= set(trials.variants.carried):
        value, limit = (trials.variants.carried[name] for name in ("cost", "scale"))
    value, limit = _number(value), _number(limit)
    distance = None if value is None or limit is None else abs(value - limit)
    return Check(reason.key, reason.text, value, limit, distance)


def _move(trials: Trials, column: str, end: float) -> Move:
    memory = trials.memory
    start = trials.start(column)
    places = memory.place(column, [start, end])
    along = {name: float(v[0]) for name, v in memory.follow(column, np.array([end])).items()}
    held = tuple(c for c in memory.companions(column) if c not in along)
    name, names = memory.word(column).name, tuple(memory.word(c).name for c in along)
    return Move(column, name, start, end, float(places[0]), float(places[1]), along, names, held)


def _if_free(trials: Trials) -> bool | None:
    carried = trials.variants.carried
    if trials.now != 0 or not carried.get("cost", 0.0) > 0:
        return None
    return trials.without_cost() in (-1, 1)


def _held(trials: Trials, moves: Sequence[Move]) -> str:
    bars = len(trials.variants.window) - 1
    others = len(trials.variants.columns) - sum(1 + len(move.along) for move in moves)
    text = f"{others} other inputs"
    return f"{text} and the {bars} bars before" if bars else text


def _text(found: Counterfactual, search: Search) -> str:
    if found.side is None:
        return "There is nothing to turn: " + "; ".join(c.text for c in found.checks) + "."
    now, wanted = f"this {SIDE_TEXT[found.side]}", found.target
    settled = [c.text for c in found.checks if c.key in SET and wanted != "lean"]
    if settled:
        return f"No change of inputs would make this a signal: {'; '.join(settled)}."
    if wanted == found.side:
        return f"It is a {SIDE_TEXT[found.side]} as it is."
    turn = f"turn {now}"
    if wanted == "lean":
        turn = f"make {SIDE_TEXT[-found.leads]} lead over {SIDE_TEXT[found.leads]}"  # type: ignore[operator,index]
    elif found.side == 0 or isinstance(wanted, int):
        turn = "make this a signal" if wanted is None else f"make this a {SIDE_TEXT[wanted]}"  # type: ignore[index]
    if not found.moves:
        inputs = f"up to {COUNT[search.most]}" if search.most > 1 else COUNT[1]
        text = f"No change of {inputs} within what training saw was found that would {turn}"
        asked = [c.limit for c in found.checks if c.key == "certainty" and c.limit is not None]
        if wanted is None and asked and found.certainty[1] is not None:
            text += f"; the nearest has certainty {found.certainty[1]:.2f} of {asked[0]:.2f}"
        return f"{text}."
    if wanted is None:
        becomes = SIDE_TEXT[found.becomes]  # type: ignore[index]
        turn = f"make this a {becomes}" if found.side == 0 else f"turn {now} into a {becomes}"
    parts = [f"{m.name} at {_pair(m)[1]} instead of {_pair(m)[0]}" for m in found.moves]
    both = " together" if len(parts) > 1 else ""
    names = {m.name for m in found.moves}
    along = [name for m in found.moves for name in m.along_names if name not in names]
    with_it = f", {_list(along)} moving along" if along else ""
    rest = ", as yet unproven" if found.status == "unproven" and wanted != "lean" else ""
    return f"{_capital(_list(parts))}{both} would {turn}{rest} ({found.held} held{with_it})."


def _pair(move: Move) -> tuple[str, str]:
    """Start and end with the digits that the end has, and as many as tell them apart."""
    end = f"{move.end:.9g}"
    digits = max(len(end.lstrip("-0.").replace(".", "").replace("-", "")), 2)
    while digits < 12 and f"{move.start:.{digits}g}" == end:
        digits += 1
    return f"{move.start:.{digits}g}", end


def _list(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _number(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
