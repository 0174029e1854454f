"""The steps of `NetLearning`: cross-entropy, distillation and anchor, by seed and data alone."""

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from stages.base import DataError
from stages.refiner.relearn import NetLearning
from stages.refiner.training import Samples


@dataclass(frozen=True)
class Lesson:
    """Rows to learn from.

    Attributes
    ----------
    samples : Samples
        n rows, new and replayed.
    replayed : bool ndarray of shape (n,)
    said : float32 ndarray of shape (n, 2)
        Logit pairs of their time; NaN where nothing was said, and of no use on new rows.
    """

    samples: Samples
    replayed: np.ndarray
    said: np.ndarray


def finetuned(net: nn.Module, lesson: Lesson, how: NetLearning, smoothing: float) -> nn.Module:
    """A copy of `net` after a few steps on `lesson`, frozen and in evaluation mode.

    Draw from a seeded generator: dropout and the order of rows are the only chance in it.

    Raises
    ------
    DataError
        If the weights leave the finite numbers (SV-X201).
    """
    net = deepcopy(net).train().requires_grad_(False)
    moving = late(net)
    for weights in moving:
        weights.requires_grad_(True)
    held = _fisher(net, moving, lesson, how) if how.anchor else None
    steps = torch.optim.AdamW(moving, lr=how.learning_rate, weight_decay=0.0)
    for _ in range(how.epochs):
        for batch in torch.randperm(len(lesson.replayed)).split(how.batch):
            steps.zero_grad()
            loss = _loss(net, lesson, batch.numpy(), how.distil, smoothing)
            if held is not None:
                loss = loss + how.anchor / 2 * _pull(moving, *held)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(moving, 1.0)
            steps.step()
    if not all(weights.isfinite().all() for weights in moving):
        raise DataError(
            "fine-tuning diverged: a net's weights are not finite",
            code="SV-X201",
            cure=f"lower learning_rate={how.learning_rate} of the nets' online learning",
        )
    return net.eval().requires_grad_(False)


def late(net: nn.Module) -> list[nn.Parameter]:
    """Weights of the last block and the head; all of them where a network does not name those."""
    named = getattr(net, "late", None)
    return list(net.parameters() if named is None else named())


def _loss(
    net: nn.Module, lesson: Lesson, rows: np.ndarray, distil: float, smoothing: float
) -> torch.Tensor:
    """Mean over the rows: cross-entropy, and on replayed ones the distance to what was said."""
    x_BLF, static_BS, target, weight = lesson.samples.batch(rows)
    logits_B2 = net(x_BLF, static_BS)
    loss = weight * _entropy(logits_B2, target, smoothing)
    said_B2 = torch.from_numpy(lesson.said[rows])
    known = torch.from_numpy(lesson.replayed[rows]) & said_B2.isfinite().all(dim=1)
    off = (logits_B2 - torch.where(known[:, None], said_B2, logits_B2.detach())) ** 2
    return (loss + distil * off.mean(dim=1)).mean()


def _entropy(logits_B2: torch.Tensor, target: torch.Tensor, smoothing: float) -> torch.Tensor:
    sell, buy = logits_B2.unbind(dim=1)
    logits_BK = torch.stack([sell, torch.zeros_like(sell), buy], dim=1)
    return functional.cross_entropy(logits_BK, target, reduction="none", label_smoothing=smoothing)


def _fisher(
    net: nn.Module, moving: list[nn.Parameter], lesson: Lesson, how: NetLearning
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Where the weights are, and the mean squared slope of the replayed rows' loss in each."""
    rows = np.flatnonzero(lesson.replayed)[: how.fisher_rows]
    squares = [torch.zeros_like(weights) for weights in moving]
    net.eval()
    for row in rows:
        x_BLF, static_BS, target, _ = lesson.samples.batch(np.array([row]))
        loss = _entropy(net(x_BLF, static_BS), target, 0.0).sum()
        for square, slope in zip(squares, torch.autograd.grad(loss, moving), strict=True):
            square += slope**2 / max(len(rows), 1)
    net.train()
    return [weights.detach().clone() for weights in moving], squares


def _pull(
    moving: list[nn.Parameter], start: list[torch.Tensor], fisher: list[torch.Tensor]
) -> torch.Tensor:
    parts = zip(moving, start, fisher, strict=True)
    return torch.stack([(f * (now - was) ** 2).sum() for now, was, f in parts]).sum()
