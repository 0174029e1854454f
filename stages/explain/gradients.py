"""Which inputs moved a net: integrated gradients from reference points, pair by pair."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from stages.base import Pull

Net = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

CHUNK = 16  # points a net sees at once; always this many, so that no pair moves another's bits
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
        Gauss-Legendre nodes of the first try: a power of two up to 256.
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
        if not 1 <= count <= MOST or MOST % count:
            raise ValueError(f"{name} must be a power of two up to {MOST}, got {count}")
    if not len(rows) or not len(references):
        raise ValueError(f"need rows and references, got {len(rows)} and {len(references)}")
    if rise is None:
        rise = _outputs(net, rows)[:, None, :] - _outputs(net, references)[None, :, :]
    if pull is not None:
        rise = (rise * pull).sum(axis=2, keepdims=True)
        pull = pull.reshape(-1, pull.shape[2])
    pairs, (length, width) = rise.shape[:2], rows.window.shape[1:]
    n, r = (index.ravel() for index in np.indices(pairs))
    rise = rise.reshape(len(n), -1)
    window = np.zeros((*rise.shape, width))
    slope = np.zeros((*rise.shape, rows.static.shape[1]))
    gap = rise.copy()
    lags = np.zeros((len(rows), length, width))
    left = np.arange(len(n)) if pull is None else np.flatnonzero(pull.any(axis=1))
    while len(left):
        ends = (n[left], r[left])
        weight = None if pull is None else pull[left]
        bars, slope[left] = _of_pairs(net, rows, references, ends, nodes, weight)
        window[left] = bars.sum(axis=2)
        change = (rows.static[ends[0]] - references.static[ends[1]])[:, None, :]
        gap[left] = rise[left] - window[left].sum(axis=2) - (slope[left] * change).sum(axis=2)
        missed = (np.abs(gap[left]) > tolerance).any(axis=1)
        if pull is not None:
            missed = _too_much(gap.reshape(pairs), tolerance)[n[left], r[left]]
        nodes *= 2
        missed &= nodes <= most
        # one pair after the other: a row's bits do not depend on who shares its chunk
        for pair in np.flatnonzero(~missed):
            lags[ends[0][pair]] += bars[pair].sum(axis=0) / pairs[1]
        left = left[missed]
    window, slope, gap = (a.reshape(*pairs, *a.shape[1:]) for a in (window, slope, gap))
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
    """Pairs (N, R) to look at more closely: the fewest without which a row keeps its tolerance.

    What explains a row is a mean over its references, and most of a gap comes from few of them.
    """
    size = np.abs(gap)
    order = np.argsort(size, axis=1, kind="stable")
    kept = np.cumsum(np.take_along_axis(size, order, axis=1), axis=1) <= tolerance * gap.shape[1]
    out = np.empty(gap.shape, dtype=bool)
    np.put_along_axis(out, order, ~kept, axis=1)
    return out & (np.abs(np.cumsum(gap, axis=1)[:, -1:]) > tolerance * gap.shape[1])


def _of_pairs(
    net: Net,
    rows: Points,
    references: Points,
    pairs: tuple[np.ndarray, np.ndarray],
    nodes: int,
    pull: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Contributions (P, O, L, F) and slopes (P, O, S) of any number of pairs, chunk by chunk."""
    size = max(CHUNK // nodes, 1)
    found = []
    for start in range(0, len(pairs[0]), size):
        some = slice(start, start + size)
        weight = None if pull is None else pull[some]
        found.append(_along(net, rows, references, (pairs[0][some], pairs[1][some]), nodes, weight))
    bars, slopes = zip(*found, strict=True)
    return np.concatenate(bars), np.concatenate(slopes)


def _along(
    net: Net,
    rows: Points,
    references: Points,
    pairs: tuple[np.ndarray, np.ndarray],
    nodes: int,
    pull: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Contributions (P, O, L, F) and slopes (P, O, S) of as many pairs as a chunk holds."""
    real, at_once = len(pairs[0]), min(nodes, CHUNK)
    fill = (0, CHUNK // at_once - real)
    n, r = (np.pad(index, fill, mode="edge") for index in pairs)
    weight = None
    if pull is not None:
        padded = np.pad(pull, (fill, (0, 0))).astype("float32")
        weight = torch.from_numpy(padded.repeat(at_once, axis=0))
    begins, changes = [], []
    for end, start in ((rows.window, references.window), (rows.static, references.static)):
        begins.append(torch.from_numpy(start[r]))
        changes.append(torch.from_numpy(end[n] - start[r]))
    sums: list[tuple[torch.Tensor, torch.Tensor]] = []
    places, weights = _legendre(nodes)
    for first in range(0, nodes, at_once):
        some = slice(first, first + at_once)
        at = [_track(b, c, places[some]) for b, c in zip(begins, changes, strict=True)]
        grads = _gradients(net, at, weight)
        parts = [[_average(g, weights[some]) for g in pair] for pair in grads]
        sums = (
            [(a, b) for a, b in parts]
            if not sums
            else [(x + a, s + b) for (x, s), (a, b) in zip(sums, parts, strict=True)]
        )
    bars = torch.stack([x * changes[0].double() for x, _ in sums], dim=1)[:real]
    return bars.numpy(), torch.stack([s for _, s in sums], dim=1)[:real].numpy()


def _track(begin: torch.Tensor, change: torch.Tensor, places: list[float]) -> torch.Tensor:
    track = torch.stack([begin + place * change for place in places], dim=1).flatten(0, 1)
    return track.requires_grad_(True)


def _gradients(
    net: Net, at: list[torch.Tensor], weight: torch.Tensor | None
) -> list[tuple[torch.Tensor, ...]]:
    """Of each output, or of their weighted sum, to window and static inputs at CHUNK points."""
    # cuDNN has no backward pass for a recurrent net in evaluation mode
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        outputs = net(*at)
        asked = outputs.unbind(dim=1) if weight is None else [outputs * weight]
        # a net may ignore its static inputs, and there may be none
        return [
            torch.autograd.grad(
                output.sum(), at, retain_graph=k + 1 < len(asked), materialize_grads=True
            )
            for k, output in enumerate(asked)
        ]


def _average(grads_BG: torch.Tensor, weights: list[float]) -> torch.Tensor:
    """Weighted sum over the nodes, one after the other: the same bits for a pair anywhere."""
    grads_PG = grads_BG.unflatten(0, (-1, len(weights)))
    total = torch.zeros_like(grads_PG[:, 0], dtype=torch.float64)
    for node, weight in enumerate(weights):
        total.add_(grads_PG[:, node], alpha=weight)
    return total


@cache
def _legendre(nodes: int) -> tuple[list[float], list[float]]:
    """Places and weights of the Gauss-Legendre rule on [0, 1]."""
    places, weights = np.polynomial.legendre.leggauss(nodes)
    return ((places + 1) / 2).tolist(), (weights / 2).tolist()


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
