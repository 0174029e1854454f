"""A bounded, seeded memory of matured samples, so that learning the new need not forget the old."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from safetensors.numpy import load, save

from stages.base import DataError, State
from stages.online.draws import Policy, Remembered
from stages.panel import age, check_labels, check_panel, named, settled
from stages.signal import SIDES

FAMILIES = ("feature", "rule", "context", "filter", "refiner")
PART = "replay.safetensors"
LOGITS = (".z_sell", ".z_buy")
ROW = {
    "time": "int64",  # microseconds since 1970, UTC, of each of the L bars
    "asset": "int64",
    "side": "int8",
    "end": "int64",
    "weight": "float64",
    "ret": "float64",
}


@dataclass
class ReplayBuffer:
    """Reservoir over a stream of labelled rows, kept even over sides and regimes.

    While there is room every row is kept. Then a row of a stratum that has ever been the largest
    enters with the chance that keeps its stratum a fair sample of all its rows; any other row
    takes the place of a random row of the largest stratum. What is kept is a function of the
    stream and the seed, however the stream is cut into calls.

    Parameters
    ----------
    capacity : int, default=20000
        Most rows.
    max_bytes : int, default=16 MiB
        Most bytes of content; lowers `capacity` where windows are wide.
    window : int, default=32
        Look-back bars L kept with each row.
    regime : str, default='context.regime'
        Column of whole numbers that splits each side into strata; NaN is one of its own. Where
        the first panel lacks the column, sides alone are the strata.
    seed : int, default=0
    policy : Policy, optional
        How `sample` draws, see `stages.online.draws`; default a fair draw. What is kept does not
        depend on it.

    Attributes
    ----------
    columns_ : tuple of F str
        Columns kept, fixed by the first panel.
    seen_ : dict of str to int
        Rows of each stratum ``side/regime`` in the stream so far.
    short_ : int
        Rows passed over because fewer than L bars led up to them.

    References
    ----------
    Chrysakis & Moens (2020), "Online continual learning from imbalanced data", algorithm 1;
    Vitter (1985), "Random sampling with a reservoir", algorithm R.
    """

    capacity: int = 20_000
    max_bytes: int = 16 * 2**20
    window: int = 32
    regime: str = "context.regime"
    seed: int = 0
    policy: Policy | None = None

    def __post_init__(self) -> None:
        if min(self.capacity, self.max_bytes, self.window) < 1 or self.seed < 0:
            raise ValueError(
                f"need capacity, max_bytes, window >= 1 and seed >= 0, got {self.capacity}, "
                f"{self.max_bytes}, {self.window}, {self.seed}"
            )
        self.columns_: tuple[str, ...] = ()
        self.assets_: list[str] = []
        self.seen_: dict[str, int] = {}
        self.short_ = 0
        self._slots: dict[str, list[int]] = {}  # stratum to the slots it holds
        self._full: set[str] = set()  # strata that have been the largest of a full buffer
        self._rows = self._room(0)
        self._by_regime = False

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    def add(self, panel: pd.DataFrame, y: pd.DataFrame) -> Self:
        """Stream the rows of `y` in, in the order in which their labels became known.

        Parameters
        ----------
        panel : DataFrame of shape (N, F)
            Holds the L bars up to each row, and the logits of the stages where known.
        y : DataFrame of shape (n <= N, 3 or 4)

        Raises
        ------
        DataError
            If a column that is kept is missing, or one row does not fit `max_bytes`.
        """
        check_panel(panel, self.columns_)
        y = check_labels(y)
        if not self.columns_:
            self.columns_ = tuple(named(panel, *FAMILIES))
            self._by_regime = self.regime in panel
            self._rows = self._room(0)
        position = panel.index.get_indexer(y.index)
        if (position < 0).any():
            missing = y.index[int((position < 0).argmax())]
            raise DataError(
                f"{missing[0]} at {missing[1]} has a label, but no row in the panel",
                code="SV-F20",
                cure="hand over the panel that the labels were made from",
            )
        asset, time = (y.index.get_level_values(level) for level in ("asset", "time"))
        order = np.lexsort((asset.factorize(sort=True)[0], time, settled(y)))
        held = age(panel)[position] >= self.window - 1
        self.short_ += int((~held).sum())
        order = order[held[order]]
        strata = self._strata(panel, position, y)
        taken = dict(self._admit(strata[order]))
        if taken:
            slots = np.array(list(taken))
            chosen = order[np.array(list(taken.values()))]
            self._write(slots, panel, position[chosen], y.iloc[chosen])
        return self

    def sample(self, n: int, seed: int, weighed: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Draw `n` rows without replacement; all of them, if there are fewer.

        Parameters
        ----------
        n : int >= 0
        seed : int
        weighed : bool, default=False
            Whether labels count as much as their stratum did in the stream: sides that the
            memory holds more of than there were would else pass for likelier than they are.

        Returns
        -------
        panel : DataFrame of shape (n * L, F)
            A mini-panel: one pseudo-asset per row drawn, with its L bars; the last is the row,
            and the only one with the logits of the stages.
        y : DataFrame of shape (n, 4)
        """
        drawn = self._drawn(n, np.random.default_rng(seed))
        rows = {name: values[drawn] for name, values in self._rows.items()}
        names = [f"{i:06d} {self.assets_[a]}" for i, a in enumerate(rows["asset"])]
        L = self.window
        index = pd.MultiIndex.from_arrays(
            [pd.Index(names, dtype="str").repeat(L), _utc(rows["time"].ravel())],
            names=["asset", "time"],
        )
        windows = rows["window"].reshape(-1, len(self.columns_))
        panel = pd.DataFrame(windows, index, list(self.columns_))
        y = pd.DataFrame(
            {name: rows[name] for name in ("side", "weight", "ret")}, index[L - 1 :: L]
        )
        y.insert(1, "end", _utc(rows["end"]))
        if weighed:
            y["weight"] *= self._standing()[drawn]
        return panel, y

    @property
    def loss(self) -> np.ndarray:
        """Cross-entropy of what the members said of each row in its time, nats, (N,).

        Their logits are averaged; NaN where none had spoken.
        """
        at = {s: [i for i, c in enumerate(self.columns_) if c.endswith(s)] for s in LOGITS}
        last = self._rows["window"][: len(self), -1].astype("float64")
        pairs = [last[:, at[side]] for side in LOGITS]
        spoke = [np.isfinite(pair).sum(axis=1) for pair in pairs]
        with np.errstate(invalid="ignore"):
            sell, buy = (np.nansum(p, axis=1) / k for p, k in zip(pairs, spoke, strict=True))
        logits = np.stack([sell, np.zeros(len(self)), buy])
        right = logits[self._rows["side"][: len(self)] + 1, np.arange(len(self))]
        return np.asarray(np.logaddexp.reduce(logits, axis=0) - right)

    def summary(self) -> dict[str, Any]:
        """Policy, size, capacity, span, hash and strata: what a signal carries along."""
        times = self._rows["time"][: len(self), -1]
        span = (
            [_utc(t).isoformat() for t in (times.min(), times.max())] if len(self) else [None] * 2
        )
        return {
            "policy": "fair" if self.policy is None else type(self.policy).__name__,
            "size": len(self),
            "capacity": self._limit,
            "oldest": span[0],
            "newest": span[1],
            "hash": self._digest(),
            "strata": {name: len(slots) for name, slots in sorted(self._slots.items())},
        }

    def state(self) -> State:
        values = {
            "columns": list(self.columns_),
            "assets": self.assets_,
            "seen": dict(sorted(self.seen_.items())),
            "short": self.short_,
            "slots": dict(sorted(self._slots.items())),
            "full": sorted(self._full),
            "by_regime": self._by_regime,
        }
        content = {name: array[: len(self)] for name, array in self._rows.items()}
        return State(json.loads(json.dumps(values)), {PART: save(content)})

    def restore(self, state: State) -> Self:
        values = state.values
        self.columns_, self.assets_ = tuple(values["columns"]), list(values["assets"])
        self.seen_, self.short_ = dict(values["seen"]), values["short"]
        self._slots = {name: list(slots) for name, slots in values["slots"].items()}
        self._full, self._by_regime = set(values["full"]), values["by_regime"]
        self._rows = {name: array.copy() for name, array in load(state.parts[PART]).items()}
        return self

    @property
    def _limit(self) -> int:
        """Rows that fit both `capacity` and `max_bytes`."""
        row = sum(array[:1].nbytes for array in self._room(1).values())
        if row > self.max_bytes:
            raise DataError(
                f"one row of the replay buffer takes {row} bytes, more than {self.max_bytes}",
                code="SV-X103",
                cure="raise online.replay.max_bytes or shorten its window",
            )
        return min(self.capacity, self.max_bytes // row)

    def _drawn(self, n: int, generator: np.random.Generator) -> np.ndarray:
        if self.policy is None:
            return generator.permutation(len(self))[:n]
        rows = Remembered(self._rows["time"][: len(self), -1], self.loss)
        return self.policy.draw(rows, n, generator)

    def _standing(self) -> np.ndarray:
        """Share of each row's stratum in the stream over its share in the memory, (N,)."""
        weight, total = np.ones(len(self)), sum(self.seen_.values())
        for name, slots in self._slots.items():
            if slots:
                weight[slots] = self.seen_[name] / total * len(self) / len(slots)
        return weight

    def _room(self, rows: int) -> dict[str, np.ndarray]:
        L, F = self.window, len(self.columns_)
        shapes = {"time": (rows, L)}
        arrays = {name: np.zeros(shapes.get(name, (rows,)), kind) for name, kind in ROW.items()}
        return {**arrays, "window": np.zeros((rows, L, F), "float32")}

    def _strata(self, panel: pd.DataFrame, position: np.ndarray, y: pd.DataFrame) -> np.ndarray:
        sides = y["side"].map(SIDES).to_numpy(dtype="object")
        if not self._by_regime:
            return sides
        regime = panel[self.regime].to_numpy(dtype="float64")[position]
        names = ["nan" if np.isnan(r) else f"{round(r):d}" for r in regime]
        return np.array([f"{s}/{r}" for s, r in zip(sides, names, strict=True)], dtype="object")

    def _admit(self, strata: np.ndarray) -> Iterator[tuple[int, int]]:
        """Yield (slot, row) in order for each row that enters; a later pair overrides."""
        limit, size = self._limit, len(self)
        # two draws a row, from its place in the stream: chunks of any length see the same ones
        bits = np.random.PCG64(self.seed).advance(2 * sum(self.seen_.values()))
        draws = np.random.Generator(bits).random((len(strata), 2)).tolist()
        for row, (stratum, (luck, place)) in enumerate(zip(strata, draws, strict=True)):
            self.seen_[stratum] = self.seen_.get(stratum, 0) + 1
            own = self._slots.setdefault(stratum, [])
            if size < limit:
                own.append(size)
                size += 1
            else:
                largest = max(map(len, self._slots.values()))
                self._full |= {s for s, held in self._slots.items() if len(held) == largest}
                if stratum in self._full:
                    if luck * self.seen_[stratum] >= len(own):
                        continue
                    own.append(_take(own, place))
                else:
                    biggest = max(self._slots, key=lambda s: (len(self._slots[s]), s))
                    own.append(_take(self._slots[biggest], place))
            yield own[-1], row

    def _write(
        self, slots: np.ndarray, panel: pd.DataFrame, position: np.ndarray, y: pd.DataFrame
    ) -> None:
        size, held = len(self), len(self._rows["side"])
        if size > held:
            more = self._room(size - held)
            self._rows = {n: np.concatenate([a, more[n]]) for n, a in self._rows.items()}
        back = position[:, None] + np.arange(1 - self.window, 1)
        windows = panel[list(self.columns_)].to_numpy(dtype="float32")[back]
        # logits count at the row itself only; those of the bars before depend on how far back
        # the panel reaches, which must not show
        said = [name.split(".")[0] in ("filter", "refiner") for name in self.columns_]
        windows[:, :-1, said] = np.nan
        time = _microseconds(panel.index.get_level_values("time"))
        new = {
            "window": windows,
            "time": time[back],
            "asset": self._asset_numbers(y.index.get_level_values("asset").astype(str).tolist()),
            "side": y["side"].to_numpy(),
            "end": _microseconds(y["end"]),
            "weight": y["weight"].to_numpy(dtype="float64"),
            "ret": y["ret"].to_numpy(dtype="float64") if "ret" in y else np.nan,
        }
        for name, array in new.items():
            self._rows[name][slots] = array
        held_names, numbers = np.unique(self.assets_, return_inverse=True)
        kept = np.unique(numbers[self._rows["asset"]])  # names must not tell of rows that left
        self.assets_ = held_names[kept].tolist()
        self._rows["asset"] = np.searchsorted(kept, numbers[self._rows["asset"]])

    def _asset_numbers(self, assets: Sequence[str]) -> np.ndarray:
        number = {name: i for i, name in enumerate(self.assets_)}
        numbers = np.array([number.setdefault(name, len(number)) for name in assets])
        self.assets_ = list(number)
        return numbers

    def _digest(self) -> str:
        said = [list(self.columns_), self.assets_]
        content = hashlib.sha256(json.dumps(said).encode())
        for name in sorted(self._rows):
            content.update(np.ascontiguousarray(self._rows[name][: len(self)]).tobytes())
        return content.hexdigest()


def _take(slots: list[int], place: float) -> int:
    """Remove and return the slot at the share `place` of the list."""
    i = int(place * len(slots))
    slots[i], slots[-1] = slots[-1], slots[i]
    return slots.pop()


def _microseconds(times: pd.Index | pd.Series) -> np.ndarray:
    return pd.DatetimeIndex(times).as_unit("us").asi8


def _utc(microseconds: Any) -> Any:
    return pd.to_datetime(microseconds, unit="us", utc=True)
