"""Which signals: the conditions of a query, pages that stay, what is active, how it went."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import pandas as pd
import sqlalchemy as sa

from pipeline.nearest import nearest
from pipeline.store.rows import WITH_OUTCOMES, Stored, check_text, micros
from pipeline.store.tables import EMISSIONS, OUTCOMES, SIGNALS
from stages.base import ConfigError
from stages.signal import SIDE_NUMBER

LAST = 2**63 - 1  # what an id can be
GROUPS = ("strategy", "asset", "strength", "model", "config", "side", "status")

_LATER = SIGNALS.alias("later")
_NEWER = (
    sa.select(sa.literal(1))
    .where(*(_LATER.c[name] == SIGNALS.c[name] for name in ("asset", "time", "model", "config")))
    .where(_LATER.c.revision > SIGNALS.c.revision)
    .correlate(SIGNALS)
)


class Where(TypedDict, total=False):
    """What narrows a query; a condition that is None does not.

    Attributes
    ----------
    asset, side, status, strength, model, config, strategy : str
        As in the record: a side is ``"BUY"``.
    since, until : Timestamp
        Of the time of the decision, both included.
    emitted : bool
        Whether it left; of signals stored without rules of emission neither is known.
    """

    asset: str | None
    side: str | None
    status: str | None
    strength: str | None
    model: str | None
    config: str | None
    strategy: str | None
    since: pd.Timestamp | None
    until: pd.Timestamp | None
    emitted: bool | None


def conditions(where: Where) -> list[sa.ColumnElement[bool]]:
    """The conditions of a query; ConfigError SV-F33 for one that is not known."""
    check_text(where)
    found = []
    for name, value in where.items():
        if name not in Where.__annotations__:
            raise ConfigError(
                f"signals are not chosen by {name!r}",
                code="SV-F33",
                where="store",
                cure=nearest(name, Where.__annotations__) or f"choose by {', '.join(GROUPS)}",
            )
        if value is None:
            continue
        if name == "since":
            found.append(SIGNALS.c.time >= micros(value))  # type: ignore[arg-type]
        elif name == "until":
            found.append(SIGNALS.c.time <= micros(value))  # type: ignore[arg-type]
        elif name == "emitted" and isinstance(value, bool):
            found.append(EMISSIONS.c.emitted == int(value))
        elif isinstance(value, str) and name != "emitted":
            found.append(SIGNALS.c[name] == value)
        else:
            raise ConfigError(
                f"{name}={value!r} is {'no truth value' if name == 'emitted' else 'no text'}",
                code="SV-F33",
                where="store",
                cure="as in the record, such as side='BUY'; emitted=True or False",
            )
    return found


def newest(last: int = LAST) -> sa.ColumnElement[bool]:
    """That no later revision of a signal is among the first `last` signals."""
    return ~sa.exists(_NEWER.where(_LATER.c.id <= last))


def select_page(n: int, last: int, below: tuple[int, int] | None, where: Where) -> sa.Select[Any]:
    """Newest signals among the first `last` stored; `below` is the time and id to go on under."""
    query = WITH_OUTCOMES.where(SIGNALS.c.id <= last, newest(last), *conditions(where))
    if below is not None:
        query = query.where(sa.tuple_(SIGNALS.c.time, SIGNALS.c.id) < sa.tuple_(*below))
    return query.order_by(SIGNALS.c.time.desc(), SIGNALS.c.id.desc()).limit(n)


def select_active(at: int, where: Where) -> sa.Select[Any]:
    """Signals that say something at a time, in no order."""
    # + 0, and no order: else SQLite reads all that was ever decided, by the index of the time
    known = SIGNALS.c.time + 0 <= at, SIGNALS.c.expires > at
    return WITH_OUTCOMES.where(*known, newest(), *conditions(where))


@dataclass(frozen=True)
class Page:
    """Some signals, newest first.

    Attributes
    ----------
    signals : list of Stored
    cursor : str or None
        Hand it back for the next page; None: this was the last.
    """

    signals: list[Stored]
    cursor: str | None


def cursor_text(last: int, below: tuple[int, int]) -> str:
    """What a page hands out so that the next one goes on where it ended."""
    return ".".join(map(str, (last, *below)))


def read_cursor(text: str) -> tuple[int, tuple[int, int]]:
    """`last` and `below` of `select_page`; ConfigError SV-F33 for what is no cursor."""
    parts = text.split(".")
    if len(parts) != 3 or not all(p.isascii() and p.isdigit() and len(p) < 19 for p in parts):
        raise ConfigError(
            f"{text[:80]!r} is no cursor of a page",
            code="SV-F33",
            where="cursor",
            cure="hand back the cursor of the page before, unchanged, or none",
        )
    last, time, number = map(int, parts)
    return last, (time, number)


def select_performance(by: Sequence[str], where: Where) -> sa.Select[Any]:
    """Outcomes of sides (SELL and BUY; a HOLD earns nothing), newest revisions only, by group."""
    for name in by:
        if name not in GROUPS:
            raise ConfigError(
                f"performance is not known by {name!r}",
                code="SV-F33",
                where="store",
                cure=nearest(name, GROUPS) or f"ask by {', '.join(GROUPS)}",
            )
    groups = [SIGNALS.c[name] for name in by]
    sign = sa.case((SIGNALS.c.side == "BUY", 1.0), else_=-1.0)
    hit = sa.case((SIGNALS.c.side == OUTCOMES.c.label, 1.0), else_=0.0)
    earned, miss = sign * OUTCOMES.c.ret, SIGNALS.c.confidence - hit
    return (
        sa.select(
            *groups,
            sa.func.count().label("signals"),
            sa.func.avg(hit).label("hit_rate"),
            sa.func.avg(SIGNALS.c.confidence).label("confidence"),
            sa.func.avg(miss * miss).label("brier"),
            sa.func.avg(earned).label("mean_return"),
            sa.func.avg(earned * earned).label("mean_square"),
            sa.func.avg(sign * OUTCOMES.c.excess).label("mean_excess"),
        )
        .select_from(
            SIGNALS.join(OUTCOMES, OUTCOMES.c.signal == SIGNALS.c.id).outerjoin(
                EMISSIONS, EMISSIONS.c.signal == SIGNALS.c.id
            )
        )
        .where(SIGNALS.c.side.in_(("SELL", "BUY")), newest(), *conditions(where))
        .group_by(*groups)
        .order_by(*groups)
    )


def performance_table(found: Sequence[Mapping[str, Any]], query: sa.Select[Any]) -> pd.DataFrame:
    """Rows of `select_performance` by their groups, the mean square made a deviation."""
    names = list(query.selected_columns.keys())
    table = pd.DataFrame(found, columns=names)
    spread = table["mean_square"].astype("float64") - table["mean_return"] ** 2
    table["deviation"] = np.sqrt(spread.clip(lower=0.0))
    return table.drop(columns="mean_square").set_index(names[: names.index("signals")])


def select_unsettled() -> sa.Select[Any]:
    """Signals with odds, newest revisions, whose outcome is not known."""
    short = [SIGNALS.c[name] for name in ("id", "asset", "time", "model")]
    settled = sa.select(OUTCOMES.c.signal).where(OUTCOMES.c.signal == SIGNALS.c.id)
    query = sa.select(*short).where(SIGNALS.c.status != "abstain", ~sa.exists(settled), newest())
    return query.order_by(SIGNALS.c.id)


def select_played(where: Where) -> sa.Select[Any]:
    """Signals with a side, newest revisions, beside their outcomes and their costs."""
    own = [SIGNALS.c[name] for name in ("id", "time", *GROUPS)]
    came = [OUTCOMES.c[name] for name in ("label", "ret", "excess")]
    return (
        sa.select(*own, *came, EMISSIONS.c.asset_class, EMISSIONS.c.cost)
        .select_from(
            SIGNALS.outerjoin(OUTCOMES, OUTCOMES.c.signal == SIGNALS.c.id).outerjoin(
                EMISSIONS, EMISSIONS.c.signal == SIGNALS.c.id
            )
        )
        .where(SIGNALS.c.side.in_(("SELL", "BUY")), newest(), *conditions(where))
        .order_by(SIGNALS.c.id)
    )


def played_table(found: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of `select_played` as positions: a SELL earns what the asset loses."""
    names = ["id", "time", *GROUPS, "label", "ret", "excess", "asset_class", "cost"]
    table = pd.DataFrame(found, columns=names).set_index("id")
    side, outcome = (
        pd.array([None if row[name] is None else SIDE_NUMBER[row[name]] for row in found], "Int8")
        for name in ("side", "label")
    )
    sign = np.asarray(side.astype("float64"))
    earned = sign * table.pop("ret").astype("float64")
    times = pd.to_datetime(table["time"], unit="us", utc=True)
    return table.drop(columns="label").assign(
        time=times,
        side=side,
        outcome=outcome,
        **{
            "return": earned,
            "excess": sign * table["excess"].astype("float64"),
            "net": earned - table.pop("cost").astype("float64"),
        },
    )


def at_least(least: int, number: int, what: str) -> int:
    """`number` as an int; ConfigError SV-F33 if it is below `least`."""
    if number < least:
        raise ConfigError(
            f"{what}={number} is below {least}",
            code="SV-F33",
            where="store",
            cure=f"{what}={least} or more",
        )
    return int(number)
