"""Stage 2: sequence models that look again, bar by bar, at what the filter let through."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd

from stages.base import ArtifactError, Attribution, DataError, Pull, State, fitted
from stages.folds import cut_tail
from stages.panel import check_labels, check_panel
from stages.refiner.windows import Reader, learnable, passed, rows_of
from stages.signal import SIDES

if TYPE_CHECKING:
    from torch import nn

    from stages.explain.gradients import Points
    from stages.refiner.relearn import NetLearning
    from stages.refiner.training import Samples

ACCELERATORS = ("auto", "cpu", "gpu")


@dataclass
class SequenceRefiner:
    """Refine each row the gate let through, from its window of features and its stage-1 logits.

    A net reads the last `window` bars of all ``feature.*`` columns, and the mean logit pair of
    the filter's members at the row itself, as `static` inputs if it is to. Features are scaled
    by median and interquartile range of the training rows and clipped; a missing value is read
    as the training median. Rows with a shorter past, without the logits it reads, not ``ready``
    or stopped by ``filter.gate`` get NaN.

    Parameters
    ----------
    members : mapping of str to callable
        Name to network: called with ``n_features, n_static, window``.
    window : int, default=32
        Bars L a net looks back, the row's own included.
    static : bool, default=True
        Whether the nets read the filter's logits. If so they can only learn from rows that the
        filter had not seen; if not, from all, and they leave it to stage 3 to bring both together.
    epochs : int, default=30
        At most this many passes over the training rows.
    patience : int, default=5
        Passes without gain on the tail before training stops.
    batch : int, default=512
    learning_rate, weight_decay : float, default=1e-3
        Of AdamW.
    average : float in [0, 1), default=0
        Decay, per step, of the running mean of the weights that is kept instead of the last.
    label_smoothing : float in [0, 1), default=0.02
    seeds : sequence of int, default=(0,)
        One net per member and seed; their logits are averaged.
    clip : float, default=5
        Bound of the scaled features.
    tail : float in [0, 1), default=0.15
        Last share of the training bars, kept to stop early; 0 trains all `epochs`.
    stride : int, default=1
        Use the rows of every `stride`-th bar in a pass, the next ones in the next.
    below_gate : float in [0, 1], default=0.25
        Training weight of rows the gate stopped.
    accelerator : str, default='auto'
        Lightning's: ``auto``, ``cpu``, ``gpu``. Bits repeat on a CPU only.
    progress : bool, default=False
        Show Lightning's progress bar.

    Attributes
    ----------
    reader_ : Reader
        Columns read, and their scales.
    nets_ : dict of str to list of Module
        Trained nets of each member, one per seed.
    roles_ : dict of str to MultiIndex
        Rows that `fit` learnt from (``train``) and stopped by (``stop``).

    References
    ----------
    Lakshminarayanan et al. (2017), "Deep Ensembles" (one net per seed).
    """

    members: Mapping[str, Callable[..., "nn.Module"]]
    window: int = 32
    static: bool = True
    epochs: int = 30
    patience: int = 5
    batch: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    average: float = 0.0
    label_smoothing: float = 0.02
    seeds: Sequence[int] = (0,)
    clip: float = 5.0
    tail: float = 0.15
    stride: int = 1
    below_gate: float = 0.25
    accelerator: str = "auto"
    progress: bool = False

    def __post_init__(self) -> None:
        lettered = all(re.fullmatch("[a-z0-9_]+", name) for name in self.members)
        self._require("members", len(self.members) > 0 and lettered, "names of a-z, 0-9 and _")
        for name, network in self.members.items():
            if not callable(network):  # settings of a member that the configuration lacks
                raise ValueError(f"members.{name} names no network, only {network!r}")
        distinct = len(set(self.seeds)) == len(self.seeds) > 0 and min(self.seeds) >= 0
        self._require("seeds", distinct, "distinct numbers from 0")
        for name in ("window", "epochs", "patience", "batch", "stride"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("learning_rate", "clip"):
            self._require(name, getattr(self, name) > 0, "above 0")
        for name in ("label_smoothing", "tail", "average"):
            self._require(name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        self._require("weight_decay", self.weight_decay >= 0, "at least 0")
        self._require("below_gate", 0 <= self.below_gate <= 1, "in [0, 1]")
        self._require("accelerator", self.accelerator in ACCELERATORS, f"one of {ACCELERATORS}")

    def _require(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise ValueError(f"{name} must be {wanted}, got {getattr(self, name)!r}")

    def fit(self, panel: pd.DataFrame, y: pd.DataFrame) -> Self:
        """Train every member with every seed on the rows of `y` that can be read.

        Parameters
        ----------
        panel : DataFrame of shape (N, F)
            Holds ``feature.*`` and, where there is a filter, its out-of-fold columns.
        y : DataFrame of shape (n <= N, 3)
            See `check_labels`. Labels still open in the tail are purged from training.

        Raises
        ------
        DataError
            Without features (SV-F20), without enough readable rows (SV-F18), or without one
            of the K sides (SV-F44).
        """
        from stages.refiner.training import Samples

        rows = rows_of(check_panel(panel), check_labels(y).index)
        weight = y["weight"].to_numpy("float64") * np.where(passed(panel)[rows], 1, self.below_gate)
        used = learnable(panel, self.window, rows, self.static) & (weight > 0)
        y, rows, weight = y[used], rows[used], weight[used]
        early, late = self._parts(y)
        # not on the tail as well: it would then judge nets by scales that it helped to set
        self.reader_ = Reader.fit(panel, y.iloc[early], self.window, self.clip, self.static)
        self.roles_ = {"train": y.index[early], "stop": y.index[late]}
        samples = Samples(
            inputs=self.reader_.read(panel),
            ends=rows,
            bar=np.asarray(y.index.get_level_values("time").factorize(sort=True)[0]),
            target=y["side"].to_numpy("int64") + 1,
            weight=(weight / weight[early].mean()).astype("float32"),
        )
        self.nets_ = {
            name: [self._train(name, seed, samples[early], samples[late]) for seed in self.seeds]
            for name in self.members
        }
        return self

    def predict(self, panel: pd.DataFrame) -> pd.DataFrame:
        """Return ``refiner.<member>.z_sell`` and ``.z_buy`` (log-odds against hold), N rows."""
        from stages.refiner.nets import device_of, mean_logits

        nets = fitted(self, "nets_")
        rows = np.flatnonzero(self.reader_.readable(panel) & passed(panel))
        out = np.full((len(panel), 2 * len(nets)), np.nan)
        inputs, device = self.reader_.read(panel), device_of(self.accelerator)
        for m, trained in enumerate(nets.values()):
            out[rows, 2 * m : 2 * m + 2] = mean_logits(trained, inputs, rows, device)
        return pd.DataFrame(out, panel.index, list(self._outputs()))

    def update(self, panel: pd.DataFrame, y: pd.DataFrame) -> Self:
        """Leave the nets as they are; `relearn` moves them, where that is asked for."""
        fitted(self, "nets_")
        return self

    def relearn(
        self,
        panel: pd.DataFrame,
        y: pd.DataFrame,
        replayed: np.ndarray,
        how: "NetLearning",
        seed: int = 0,
    ) -> Self:
        """Let every net take a few steps on the rows of `y` that can be read.

        Parameters
        ----------
        panel : DataFrame of shape (N, F)
            With the logits of both stages as they were said in the rows' time.
        y : DataFrame of shape (n <= N, 3 to 5)
            Matured labels.
        replayed : bool ndarray of shape (n,)
            Which of them come from the memory; the others are new.
        how : NetLearning
        seed : int, default=0
            Of the order of the rows and of dropout.

        Raises
        ------
        DataError
            SV-X201 if the weights leave the finite numbers.
        """
        from stages.refiner.finetune import Lesson, finetuned
        from stages.refiner.nets import seeded
        from stages.refiner.training import Samples

        nets = fitted(self, "nets_")
        rows = rows_of(check_panel(panel), check_labels(y).index)
        weight = y["weight"].to_numpy("float64") * np.where(passed(panel)[rows], 1, self.below_gate)
        used = self.reader_.readable(panel)[rows] & (weight > 0)
        if not used.any():
            return self
        samples = Samples(
            inputs=self.reader_.read(panel),
            ends=rows[used],
            bar=np.zeros(used.sum(), dtype="int64"),
            target=y["side"].to_numpy("int64")[used] + 1,
            weight=(weight[used] / weight[used].mean()).astype("float32"),
        )
        for m, (name, trained) in enumerate(nets.items()):
            pair = list(self._outputs()[2 * m : 2 * m + 2])
            said = panel[pair].to_numpy("float32")[samples.ends]
            lesson = Lesson(samples, replayed[used], said)
            taught = []
            for own, net in zip(self.seeds, trained, strict=True):
                with seeded(seed + own):
                    taught.append(finetuned(net, lesson, how, self.label_smoothing))
            self.nets_ = {**self.nets_, name: taught}  # a copy keeps the old ones
        return self

    def attribute(
        self,
        panel: pd.DataFrame,
        rows: pd.MultiIndex,
        references: pd.DataFrame,
        pull: Pull | None = None,
    ) -> Attribution:
        """Integrated gradients of each logit over ``feature.*`` and the filter's logits.

        The path runs straight from the reference to the row, window and static inputs
        together, in scaled units; shares are summed over the L bars. A value that was clipped
        or missing counts as the scaled value the nets read.

        Parameters
        ----------
        panel : DataFrame
            Holds the N rows and their past.
        rows : MultiIndex of length N
        references : DataFrame
            A panel in which the last row of each of R assets is the reference point.
        pull : Pull, optional
            What is explained is then each member's weighted sum, at the price of one backward
            pass; both tables hold what `predict` said.

        Returns
        -------
        Attribution
            NaN for a row or a reference that has no output.
        """
        nets = fitted(self, "nets_")
        last = ~references.index.get_level_values("asset").duplicated(keep="last")
        x, has_x = self._points(panel, rows_of(panel, rows))
        r, has_r = self._points(references, np.flatnonzero(last))
        if pull is not None:
            said = panel.loc[rows, list(self._outputs())], references.loc[last, [*self._outputs()]]
            rise = said[0].to_numpy()[:, None] - said[1].to_numpy()[None]
            return self._pulled(pull, rise, (x, has_x), (r, has_r))
        shape = (len(has_x), len(has_r), 2 * len(nets))
        values = np.full((*shape, len(self.reader_.features)), np.nan)
        slopes = np.full((*shape, len(self.reader_.logits)), np.nan)
        if has_x.any() and has_r.any():
            known = np.ix_(has_x, has_r)
            values[known], slopes[known] = self._shares(x, r)
        return Attribution(
            self._outputs(), self.reader_.features, values, self.reader_.logits, slopes
        )

    def state(self) -> State:
        """Reader and settings as JSON, the weights of each net as safetensors."""
        from stages.refiner.nets import weights_of

        parts = {
            _part(name, seed): weights_of(net)
            for name, nets in fitted(self, "nets_").items()
            for seed, net in zip(self.seeds, nets, strict=True)
        }
        return State({"reader": self.reader_.to_json()}, parts)

    def restore(self, state: State) -> Self:
        """Take back what `state` gave.

        Raises
        ------
        ArtifactError
            If a part is missing, or holds other weights than the networks have (SV-F29).
        """
        from stages.refiner.nets import seeded, with_weights

        self.reader_ = Reader.from_json(state.values["reader"])
        self.nets_ = {name: [] for name in self.members}
        for name, seed in product(self.members, self.seeds):
            part = _part(name, seed)
            if part not in state.parts:
                raise ArtifactError(
                    f"the refiner's {part} is missing",
                    code="SV-F29",
                    where=f"parts: {sorted(state.parts)}",
                    cure="load the model with the configuration it was saved with",
                )
            with seeded(seed):  # the first weights are drawn, and then replaced
                net = self._network(name)
            self.nets_[name].append(with_weights(net, state.parts[part], part))
        return self

    def _parts(self, y: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers of `y` to learn from, and of the later tail that says when to stop."""
        early, late = cut_tail(y, self.tail)
        if not len(early):
            raise DataError(
                f"no label ends before the tail of the {y.index.unique('time').size} training bars",
                code="SV-F18",
                cure=f"bring more history, or lower refiner.tail={self.tail}",
            )
        sides, time = y["side"].to_numpy()[early], y.index.get_level_values("time")[early]
        absent = [name for side, name in SIDES.items() if side not in sides]
        if absent:
            raise DataError(
                f"the refiner's training rows hold no {' and no '.join(absent)}",
                code="SV-F44",
                where=f"{len(early)} rows from {time.min()} to {time.max()}",
                cure="train on a longer period, or change the labels",
            )
        return early, late

    def _train(self, name: str, seed: int, early: "Samples", late: "Samples") -> "nn.Module":
        from stages.refiner.nets import seeded
        from stages.refiner.training import Epochs, Learner, Schedule, Steps, train

        shuffle = np.random.default_rng(seed)
        with seeded(seed):
            steps = Steps(self.learning_rate, self.weight_decay, self.average)
            learner = Learner(self._network(name), steps, self.label_smoothing)
            return train(
                learner,
                Epochs(early, self.batch, self.stride, shuffle),
                Epochs(late, 4 * self.batch) if len(late) else None,
                Schedule(self.epochs, self.patience, self.accelerator, self.progress),
            )

    def _network(self, name: str) -> "nn.Module":
        reader = self.reader_
        return self.members[name](
            n_features=len(reader.features), n_static=len(reader.centre), window=reader.window
        )

    def _points(self, panel: pd.DataFrame, rows: np.ndarray) -> tuple["Points", np.ndarray]:
        """Inputs of those of `rows` that have an output, and which of them have."""
        from stages.explain.gradients import Points

        has = (self.reader_.readable(panel) & passed(panel))[rows]
        inputs = self.reader_.read(panel)
        return Points(inputs.windows(rows[has]), inputs.static[rows[has]]), has

    def _shares(self, x: "Points", r: "Points") -> tuple[np.ndarray, np.ndarray]:
        """Contributions (N, R, O, F) and slopes (N, R, O, U) of points that have outputs."""
        from stages.explain.gradients import integrated_gradients

        members = max(len(self.reader_.logits) // 2, 1)
        # from a logit to the scaled mean of its side over the members
        step = np.tile(np.diag(self.reader_.gain), members) / members
        values, slopes = [], []
        for nets in self.nets_.values():
            found = [integrated_gradients(net, x, r, getattr(net, "nodes", 16)) for net in nets]
            values.append(sum(each.window for each in found) / len(nets))
            slopes.append(sum(each.slope for each in found) / len(nets) @ step)
        return np.concatenate(values, axis=2), np.concatenate(slopes, axis=2)

    def _pulled(
        self,
        pull: Pull,
        rise: np.ndarray,
        rows: tuple["Points", np.ndarray],
        references: tuple["Points", np.ndarray],
    ) -> Attribution:
        """Weighted contributions of each member; `rise` (N, R, O) is what they should sum to."""
        from stages.explain.gradients import explained

        (x, has_x), (r, has_r) = rows, references
        members = [f"refiner.{name}" for name in self.nets_]
        shape, F = (len(has_x), len(has_r), len(members)), len(self.reader_.features)
        values = np.full((*shape, F), np.nan)
        slopes = np.full((*shape, len(self.reader_.logits)), np.nan)
        lags = np.full((len(has_x), self.window, F), np.nan)
        if has_x.any() and has_r.any():
            known = np.ix_(has_x, has_r)
            weights, rise = pull.weights[known], rise[known]
            per = max(len(self.reader_.logits) // 2, 1)
            step = np.tile(np.diag(self.reader_.gain), per) / per
            lags[has_x] = 0.0
            for m, nets in enumerate(self.nets_.values()):
                pair = slice(2 * m, 2 * m + 2)
                part = Pull(weights[..., pair], pull.share, pull.tolerance)
                found = explained(nets, x, r, part, rise[..., pair])
                values[:, :, m][known] = found.window[:, :, 0]
                slopes[:, :, m][known] = found.slope[:, :, 0] @ step
                lags[has_x] += found.lags
        return Attribution(
            tuple(members), self.reader_.features, values, self.reader_.logits, slopes, lags
        )

    def _outputs(self) -> tuple[str, ...]:
        return tuple(f"refiner.{m}.{side}" for m in self.members for side in ("z_sell", "z_buy"))


def _part(member: str, seed: int) -> str:
    return f"{member}.{seed}.safetensors"
