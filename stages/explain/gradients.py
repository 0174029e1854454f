"""Which inputs moved a net: integrated gradients from reference points, pair by pair."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from stages.base import Pull

Net = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

POINTS = 64  # that a net is asked for at once, all of one row: no other row moves its bits
CHUNK = 16  # points whose outputs are asked for at once; always this many, for the same reason
MOST = 256  # nodes


@dataclass(frozen=True)
class Points:
    """Where paths begin or end, as a net reads them.

    Attributes
    ----------
    window : float32 ndarray of shape (P, L, F)
    static : float32 ndarray of shape (P, S)
    """

    window: np.ndarray
    static: np.ndarray

    def __len__(self) -> int:
        return len(self.window)


@dataclass(frozen=True)
class Shares:
    """What each input gave to ``output(row) - output(reference)``.

    Attributes
    ----------
    window : float64 ndarray of shape (N, R, O, F)
        Contributions of the window, summed over its bars.
    slope : float64 ndarray of shape (N, R, O, S)
        Path-averaged gradient of the static inputs.
    gap : float64 ndarray of shape (N, R, O)
        Difference of the outputs less all contributions.
    lags : float64 ndarray of shape (N, L, F)
        Contributions of each bar, summed over outputs and averaged over references.
    """

    window: np.ndarray
    slope: np.ndarray
    gap: np.ndarray
    lags: np.ndarray


def integrated_gradients(  # noqa: PLR0913  two are the question, the others its precision
    net: Net,
    rows: Points,
    references: Points,
    nodes: int = 8,
    tolerance: float = 1e-4,
    most: int = MOST,
    pull: np.ndarray | None = None,
    rise: np.ndarray | None = None,
) -> Shares:
    """Integrate the gradients of a net along the straight path from each reference to each row.

    Parameters
    ----------
    net : callable
        Maps (B, L, F) and (B, S) float32 tensors to (B, O); its outputs for one point must not
        depend on the others. Frozen, in evaluation mode, on the CPU.
    rows, references : Points
        N and R of them.
    nodes : int, default=8
        Gauss-Legendre nodes of the first try, at most 256.
    tolerance : float, default=1e-4
        Largest gap of a pair, in the unit of what is explained; given `pull`, of a row on average
        over the references.
    most : int, default=256
        Nodes are doubled for the pairs that miss the tolerance, but not beyond this.
    pull : float64 ndarray of shape (N, R, O), optional
        Multipliers of the outputs; their sum is then the one output that is explained, at the
        price of one backward pass. A pair whose multipliers are all 0 costs nothing.
    rise : float64 ndarray of shape (N, R, O), optional
        The outputs of the rows less those of the references, where they are known.

    Returns
    -------
    Shares

    References
    ----------
    Sundararajan, Taly & Yan (2017), "Axiomatic Attribution for Deep Networks", ICML.
    """
    for name, count in {"nodes": nodes, "most": most}.items():
        if not 1 <= count <= MOST:
            raise ValueError(f"{name} must lie in [1, {MOST}], got {count}")
    if not len(rows) or not len(references):
        raise ValueError(f"need rows and references, got {len(rows)} and {len(references)}")
    if rise is None:
        rise = _outputs(net, rows)[:, None, :] - _outputs(net, references)[None, :, :]
    if pull is not None:
        rise = (rise * pull).sum(axis=2, keepdims=True)
    length, width = rows.window.shape[1:]
    window = np.zeros((*rise.shape, width))
    slope = np.zeros((*rise.shape, rows.static.shape[1]))
    gap = rise.copy()
    lags = np.zeros((len(rows), length, width))
    for n in range(len(rows)):  # a row by itself: its bits do not depend on the others
        change = rows.static[n] - references.static
        left = np.arange(len(references)) if pull is None else np.flatnonzero(pull[n].any(axis=1))
        count = nodes
        while len(left):
            weight = None if pull is None else pull[n, left]
            bars, slope[n, left] = _of_pairs(net, rows, references, n, left, count, weight)
            window[n, left] = bars.sum(axis=2)
            carried = (slope[n, left] * change[left, None, :]).sum(axis=2)
            gap[n, left] = rise[n, left] - window[n, left].sum(axis=2) - carried
            missed = (np.abs(gap[n, left]) > tolerance).any(axis=1)
            if pull is not None:
                missed = _too_much(gap[n, :, 0], tolerance)[left]
            count *= 2
            missed &= count <= most
            lags[n] += bars[~missed].sum(axis=(0, 1)) / len(references)
            left = left[missed]
    return Shares(window, slope, gap, lags)


def explained(
    nets: Sequence[Net], rows: Points, references: Points, pull: Pull, rise: np.ndarray
) -> Shares:
    """What each input gave to the weighted sum of the mean outputs of `nets`; see above."""

    def mean(x_BLF: torch.Tensor, static_BS: torch.Tensor) -> torch.Tensor:
        total = nets[0](x_BLF, static_BS)
        for net in nets[1:]:
            total = total + net(x_BLF, static_BS)
        return total / len(nets)

    nodes = max(int(pull.share * getattr(nets[0], "nodes", 16)), 1)
    return integrated_gradients(
        mean, rows, references, nodes, pull.tolerance, pull=pull.weights, rise=rise
    )


def _too_much(gap: np.ndarray, tolerance: float) -> np.ndarray:
    """Pairs (R,) to look at more closely: the fewest without which the row keeps its tolerance.

    What explains a row is a mean over its references, and most of a gap comes from few of them.
    """
    size, allowed = np.abs(gap), tolerance * len(gap)
    if abs(gap.sum()) <= allowed:
        return np.zeros(gap.shape, dtype=bool)
    order = np.argsort(size, kind="stable")
    out = np.empty(gap.shape, dtype=bool)
    out[order] = np.cumsum(size[order]) > allowed
    return out


def _of_pairs(  # noqa: PLR0913  which pairs, and how closely
    net: Net,
    rows: Points,
    references: Points,
    row: int,
    pairs: np.ndarray,
    nodes: int,
    pull: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Contributions (P, O, L, F) and slopes (P, O, S) of a row and P references."""
    size = max(POINTS // nodes, 1)
    found = []
    for start in range(0, len(pairs), size):
        some = pairs[start : start + size]
        weight = None if pull is None else pull[start : start + size]
        begins = references.window[some], references.static[some]
        ends = rows.window[row], rows.static[row]
        found.append(_along(net, begins, ends, nodes, weight))
    if len(found) == 1:
        return found[0]
    bars, slopes = zip(*found, strict=True)
    return np.concatenate(bars), np.concatenate(slopes)


def _along(
    net: Net,
    begins: tuple[np.ndarray, np.ndarray],
    ends: tuple[np.ndarray, np.ndarray],
    nodes: int,
    pull: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Contributions (P, O, L, F) and slopes (P, O, S) of as many pairs as a net takes at once."""
    weight = None if pull is None else pull.astype("float32")
    changes = [end - begin for begin, end in zip(begins, ends, strict=True)]
    places, weights = _legendre(nodes)
    sums: list[Any] = [0.0, 0.0]
    for first in range(0, nodes, POINTS):
        some = slice(first, first + POINTS)
        at = [_track(b, c, places[some]) for b, c in zip(begins, changes, strict=True)]
        grads = _gradients(net, at, weight)
        for part in range(2):
            sums[part] += np.stack([_average(g[part], weights[some]) for g in grads], axis=1)
    bars, slopes = sums
    return np.asarray(bars * changes[0][:, None]), np.asarray(slopes)


def _track(begin: np.ndarray, change: np.ndarray, places: np.ndarray) -> torch.Tensor:
    """Points (P * nodes, ...) on the way from each begin, pair by pair."""
    place = places.reshape(-1, *[1] * (begin.ndim - 1))
    track = begin[:, None] + place * change[:, None]
    shape = len(begin) * len(places), *begin.shape[1:]  # there may be no static inputs
    return torch.from_numpy(track.reshape(shape)).requires_grad_(True)


def _gradients(
    net: Net, at: list[torch.Tensor], weight: np.ndarray | None
) -> list[tuple[torch.Tensor, ...]]:
    """Of each output, or of their sum by the weights of a pair, to both inputs at all points."""
    # cuDNN has no backward pass for a recurrent net in evaluation mode
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        outputs = net(*at)
        if weight is None:
            asked = [*outputs.unbind(dim=1)]
        else:
            by_point = weight.repeat(len(outputs) // len(weight), axis=0)
            asked = [outputs * torch.from_numpy(by_point)]
        # a net may ignore its static inputs, and there may be none
        return [
            torch.autograd.grad(
                output.sum(), at, retain_graph=k + 1 < len(asked), materialize_grads=True
            )
            for k, output in enumerate(asked)
        ]


def _average(grads: torch.Tensor, weights: np.ndarray) -> np.ndarray:
    """Weighted sum over the nodes of each pair, in float64."""
    pairs = len(grads) // len(weights)
    by_pair = grads.numpy().reshape(pairs, len(weights), *grads.shape[1:])
    total = by_pair[:, 0] * weights[0]
    for node in range(1, len(weights)):
        total += by_pair[:, node] * weights[node]
    return np.asarray(total)


@cache
def _legendre(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Places, float32, and weights of the Gauss-Legendre rule on [0, 1]."""
    places, weights = np.polynomial.legendre.leggauss(nodes)
    return ((places + 1) / 2).astype("float32"), weights / 2


@torch.no_grad()
def _outputs(net: Net, points: Points) -> np.ndarray:
    """Outputs of shape (P, O) in float64."""
    out = []
    for start in range(0, len(points), CHUNK):
        places = np.arange(start, min(start + CHUNK, len(points)))
        some = np.pad(places, (0, CHUNK - len(places)), mode="edge")
        outputs = net(torch.from_numpy(points.window[some]), torch.from_numpy(points.static[some]))
        out.append(outputs[: len(places)].numpy().astype("float64"))
    return np.concatenate(out)
