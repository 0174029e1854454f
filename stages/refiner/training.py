"""How one net of the refiner learns: Lightning, early stopping on a later tail, no files."""

import logging
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import EarlyStopping, RichProgressBar
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from stages.base import DataError
from stages.refiner.windows import Inputs

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Samples:
    """Labelled rows of a panel.

    Attributes
    ----------
    inputs : Inputs
    ends : int64 ndarray of shape (n,)
        Row numbers: the last bar of each window.
    bar : int64 ndarray of shape (n,)
        Number of the bar; the assets of one time share it.
    target : int64 ndarray of shape (n,)
        Side + 1.
    weight : float32 ndarray of shape (n,)
    """

    inputs: Inputs
    ends: np.ndarray
    bar: np.ndarray
    target: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, chosen: np.ndarray) -> "Samples":
        rest = (self.ends[chosen], self.bar[chosen], self.target[chosen], self.weight[chosen])
        return Samples(self.inputs, *rest)

    def batch(self, chosen: np.ndarray) -> Batch:
        """Windows, static inputs, targets and weights of the chosen samples."""
        ends = self.ends[chosen]
        arrays = (self.inputs.windows(ends), self.inputs.static[ends])
        answers = (self.target[chosen], self.weight[chosen])
        x_BLF, static_BS, target, weight = map(torch.from_numpy, (*arrays, *answers))
        return x_BLF, static_BS, target, weight


class Epochs:
    """Batches of samples; each pass over it is one epoch.

    Parameters
    ----------
    samples : Samples
    size : int
        Samples in a batch.
    stride : int
        An epoch uses every `stride`-th bar, the next one those beside it: neighbouring windows
        hold nearly the same bars.
    generator : Generator, optional
        Shuffles; without one the samples come in order and all at once per epoch.
    """

    def __init__(
        self,
        samples: Samples,
        size: int,
        stride: int = 1,
        generator: np.random.Generator | None = None,
    ) -> None:
        self.samples, self.size, self.stride, self.generator = samples, size, stride, generator
        phases = np.bincount(samples.bar % stride, minlength=stride)
        self.length = -(-int(phases[phases > 0].min()) // size)  # Lightning asks once
        self.epoch = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Batch]:
        rows = np.flatnonzero(self.samples.bar % self.stride == self.epoch % self.stride)
        self.epoch += 1
        if self.generator is not None:
            rows = self.generator.permutation(rows)
        for start in range(0, min(len(rows), self.length * self.size), self.size):
            yield self.samples.batch(rows[start : start + self.size])


@dataclass(frozen=True)
class Steps:
    """How the weights move: see `SequenceRefiner`."""

    rate: float
    decay: float
    average: float = 0.0


class Learner(lightning.LightningModule):
    """Weighted cross-entropy of a net's logit pair, hold being the reference at 0."""

    def __init__(self, net: nn.Module, steps: Steps, smoothing: float) -> None:
        super().__init__()
        self.net, self.steps, self.smoothing = net, steps, smoothing
        self.mean = AveragedModel(net, avg_fn=_running(steps.average)) if steps.average else None
        self.best = float("inf")
        self.best_state: dict[str, torch.Tensor] = {}
        self.tail: list[tuple[float, float]] = []

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """Mean loss of a batch; the weights have mean 1 over all samples."""
        return self._losses(self.net, batch, self.smoothing).mean()

    def on_train_batch_end(self, *_: object) -> None:
        """Let the running mean of the weights follow."""
        if self.mean is not None:
            self.mean.update_parameters(self.net)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Add up the loss of the tail, without smoothing."""
        self.tail.append((float(self._losses(self.kept, batch, 0).sum()), float(batch[3].sum())))

    def on_validation_epoch_end(self) -> None:
        """Report the loss of the tail and keep the best weights, in memory."""
        loss, weight = map(sum, zip(*self.tail, strict=True))
        self.tail = []
        self.log("tail_loss", loss / weight, prog_bar=True)
        if loss / weight < self.best:
            self.best = loss / weight
            self.best_state = {k: v.detach().clone() for k, v in self.kept.state_dict().items()}

    @property
    def kept(self) -> nn.Module:
        """The net that is judged on the tail and kept: the running mean, or the net itself."""
        return self.net if self.mean is None else self.mean.module

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW: Loshchilov & Hutter (2019), "Decoupled Weight Decay Regularization"."""
        steps = self.steps
        return torch.optim.AdamW(self.net.parameters(), lr=steps.rate, weight_decay=steps.decay)

    def _losses(self, net: nn.Module, batch: Batch, smoothing: float) -> torch.Tensor:
        x_BLF, static_BS, target, weight = batch
        logits_B2 = net(x_BLF, static_BS)
        sell, buy = logits_B2.unbind(dim=1)
        logits_BK = torch.stack([sell, torch.zeros_like(sell), buy], dim=1)
        return weight * functional.cross_entropy(
            logits_BK, target, reduction="none", label_smoothing=smoothing
        )


@dataclass(frozen=True)
class Schedule:
    """How long a net learns, and where: see `SequenceRefiner`."""

    epochs: int
    patience: int
    accelerator: str
    progress: bool


def train(learner: Learner, epochs: Epochs, tail: Epochs | None, schedule: Schedule) -> nn.Module:
    """Fit the net of `learner` and return it on the CPU, frozen and in evaluation mode.

    Parameters
    ----------
    learner : Learner
    epochs, tail : Epochs
        What to learn from, and the later samples that say when to stop.
    schedule : Schedule

    Raises
    ------
    DataError
        If the weights leave the finite numbers (SV-X201).
    KeyboardInterrupt
        Passed on; Lightning alone would end the process.
    """
    with _quiet():
        trainer = lightning.Trainer(
            accelerator=schedule.accelerator,
            devices=1,
            max_epochs=schedule.epochs,
            callbacks=_callbacks(schedule, tail is not None),
            gradient_clip_val=1.0,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=schedule.progress,
            num_sanity_val_steps=0,
        )
        interrupt = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(learner, epochs, tail)
        except SystemExit as stop:
            if not trainer.interrupted:
                raise
            signal.signal(signal.SIGINT, interrupt)  # Lightning leaves Ctrl-C without effect
            raise KeyboardInterrupt from stop
    net = learner.kept
    if learner.best_state:
        net.load_state_dict(learner.best_state)
    if not all(weights.isfinite().all() for weights in net.parameters()):
        raise DataError(
            "training diverged: a net's weights are not finite",
            code="SV-X201",
            cure=f"lower refiner.learning_rate={learner.steps.rate}",
        )
    return net.cpu().eval().requires_grad_(False)


def _running(decay: float) -> Callable[..., torch.Tensor]:
    """Running mean of weights; at first a plain mean, so that it forgets where the net began.

    Polyak & Juditsky (1992), "Acceleration of Stochastic Approximation by Averaging".
    """

    def follow(mean: torch.Tensor, now: torch.Tensor, steps: torch.Tensor | int) -> torch.Tensor:
        n = int(steps)
        return mean.lerp(now, 1 - min(decay, (1 + n) / (10 + n)))

    return follow


def _callbacks(schedule: Schedule, stops: bool) -> list[lightning.Callback]:
    callbacks: list[lightning.Callback] = []
    if stops:
        callbacks.append(EarlyStopping("tail_loss", patience=schedule.patience))
    if schedule.progress:
        callbacks.append(RichProgressBar(console_kwargs={"stderr": True}))  # results are on stdout
    return callbacks


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's lines on the devices there are, and on torch's names, at each fit."""
    log = logging.getLogger("pytorch_lightning")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for known in (".*LeafSpec", "You defined a `validation_step`"):
                warnings.filterwarnings("ignore", message=known)
            yield
    finally:
        log.setLevel(level)
