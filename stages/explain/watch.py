"""Whether reasons are still those of the training, asked after every bar without raising alarms."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from stages.base import DataError, Explanation
from stages.evaluate.bootstrap import autocovariance, block_length

LONGER = 1.5  # blocks that do not depend on each other are longer than those that err least
LEAST = 20  # blocks of the training: below, a new one cannot be rare
STAKES = np.array([[-1.0], [0.0], [1.0]])  # on smaller, on nothing, on larger
JUMP = 0.01  # share of each stake's capital that is dealt out anew at every bet


@dataclass(frozen=True)
class Watch:
    """The capital of bets that reasons have changed since the training.

    Attributes
    ----------
    path : Series of floats
        Capital after each block of bars, indexed by the time of its last bar; it began at 1.
    by_input : Series of floats
        Capital of the bets on each input, the largest first; `path` ends at their mean.
    block : int
        Bars whose mean is one bet.
    level : float in (0, 1)
        Probability that the capital ever reaches ``1 / level`` while reasons stay as they were.
    alarm : Timestamp or None
        When it first did.
    text : str
        What was found, in words.
    """

    path: pd.Series
    by_input: pd.Series
    block: int
    level: float
    alarm: pd.Timestamp | None
    text: str

    def record(self) -> dict[str, Any]:
        """Plain values, such as a run stores as JSON."""
        times = pd.DatetimeIndex(self.path.index)
        path = [[at.isoformat(), float(held)] for at, held in zip(times, self.path, strict=True)]
        return {
            "level": self.level,
            "block": self.block,
            "alarm": None if self.alarm is None else self.alarm.isoformat(),
            "path": path,
            "by_input": {str(name): float(value) for name, value in self.by_input.items()},
            "text": self.text,
        }


def watch(  # noqa: PLR0913  what is compared, and how sure to be
    training: Explanation,
    later: Explanation,
    groups: Mapping[str, str] | None = None,
    level: float = 0.05,
    span: int = 1,
    seed: int = 0,
) -> Watch:
    """Bet, block by block, that inputs push more or less than they did at the training.

    A block's mean absolute push of an input is ranked among those of the training and of all
    blocks since. While nothing changes any rank is as likely, so no bet on it gains in the mean,
    and a capital that begins at 1 ever reaches ``1 / level`` with probability `level` at most,
    however often it is looked at. More bars add to the path, and change nothing that was said.

    Parameters
    ----------
    training, later : Explanation
        Of the rows of the training, or of its end, and of rows after all of them, by one model.
    groups : mapping of str to str, optional
        Input to group, such as `stages.explain.families.families`: fewer bets, sooner seen.
    level : float in (0, 1), default=0.05
    span : int >= 1, default=1
        Bars that a label covers: the least length of a block.
    seed : int, default=0
        Of the draws between equal ranks.

    Raises
    ------
    DataError
        SV-F18 where the training holds fewer than 20 blocks, or later rows are not later.

    Notes
    -----
    Blocks are as long as the training shows that pushes depend on their past, and taken to be
    independent. A regime that is longer than a block is a change to it, and to its reader: the
    alarm says that the reasons are others, not that the model is wrong.

    References
    ----------
    Vovk, Gammerman & Shafer (2022), "Algorithmic Learning in a Random World", 2nd ed., ch. 8
    (conformal test martingales); Vovk et al. (2021), "Retrain or not retrain: conformal test
    martingales for change-point detection", PMLR 152 (the jumper); Ville (1939).
    """
    if not 0 < level < 1 or span < 1:
        raise ValueError(f"need level in (0, 1) and span >= 1, got {level} and {span}")
    before, after = (_sizes(why, groups) for why in (training, later))
    after = after.reindex(columns=before.columns, fill_value=0.0)
    if not len(after) or after.index.min() <= before.index.max():
        raise DataError(
            "the rows to watch do not come after those of the training",
            code="SV-F18",
            where=f"the training ends at {before.index.max()}",
            cure="explain bars that the training had not seen",
        )
    block = _block(before.to_numpy(), span)
    known, new = _means(before.to_numpy()[::-1], block)[::-1], _means(after.to_numpy(), block)
    if len(known) < LEAST:
        raise DataError(
            f"the training holds {len(known)} blocks of {block} bars",
            code="SV-F18",
            why=f"with fewer than {LEAST} none that comes later can be rare",
            cure="explain more bars of the training",
        )
    capital = _capital(_ranks(known, new, seed))
    ends = after.index[block - 1 :: block][: len(new)]
    path = pd.Series(capital.mean(axis=1), ends, name="capital")
    last = capital[-1] if len(capital) else np.ones(before.shape[1])
    by_input = pd.Series(last, before.columns).sort_values(ascending=False, kind="stable")
    reached = path.index[path.to_numpy() >= 1 / level]
    alarm = reached[0] if len(reached) else None
    return Watch(path, by_input, block, level, alarm, _text(path, by_input, level, alarm))


def _sizes(why: Explanation, groups: Mapping[str, str] | None) -> pd.DataFrame:
    """Mean absolute push of each input or group at each bar, in order of time."""
    pushes = why.contributions
    if groups is not None:
        names = [groups.get(str(name), str(name)) for name in pushes]
        pushes = pushes.T.groupby(names, sort=False).sum().T
    return pushes.abs().groupby(level="time", sort=True).mean()


def _block(sizes: np.ndarray, span: int) -> int:
    """Bars after which most of the inputs have forgotten their past."""
    reach = [_reach(column) for column in sizes.T if np.ptp(column) > 0]
    return max(int(np.ceil(np.median(reach or [1.0]))), span)


def _reach(series: np.ndarray) -> float:
    return LONGER * block_length(autocovariance(series), len(series))


def _means(sizes: np.ndarray, block: int) -> np.ndarray:
    """Means over whole blocks, (blocks, inputs); the bars of one that is not yet full wait."""
    whole = len(sizes) // block * block
    return np.asarray(sizes[:whole].reshape(-1, block, sizes.shape[1]).mean(axis=1))


def _ranks(known: np.ndarray, new: np.ndarray, seed: int) -> np.ndarray:
    """Place in (0, 1) of each new block among all before it and itself, ties drawn."""
    rng = np.random.default_rng(seed)
    bag, out = known, np.empty(new.shape)
    for i, row in enumerate(new):
        bag = np.vstack([bag, row])
        below, equal = (bag < row).sum(axis=0), (bag == row).sum(axis=0)
        out[i] = (below + rng.random(len(row)) * equal) / len(bag)
    return out


def _capital(ranks: np.ndarray) -> np.ndarray:
    """Capital of the bets on each input after each block, (blocks, inputs)."""
    held, out = np.full((len(STAKES), ranks.shape[1]), 1 / len(STAKES)), np.empty(ranks.shape)
    for i, rank in enumerate(ranks):
        held = (1 - JUMP) * held + JUMP * held.mean(axis=0)
        held = held * (1 + STAKES * (rank - 0.5))
        out[i] = held.sum(axis=0)
    return out


def _text(path: pd.Series, by_input: pd.Series, level: float, alarm: pd.Timestamp | None) -> str:
    promise = f"at most {level:.0%} false alarms however often one looks"
    if not len(path):
        return "No block of bars is full yet."
    if alarm is None:
        return f"Reasons are as at the training, as far as {len(path)} blocks show ({promise})."
    first = ", ".join(str(name) for name in by_input.index[:3][by_input[:3] >= 1])
    return f"Reasons are others than at the training since {alarm:%Y-%m-%d}: {first} ({promise})."
