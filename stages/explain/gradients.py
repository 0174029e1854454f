"""Which inputs moved a net: integrated gradients from reference points, pair by pair."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

Net = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

CHUNK = 256  # points a net sees at once; always this many, so that no pair moves another's bits


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
    """

    window: np.ndarray
    slope: np.ndarray
    gap: np.ndarray


def integrated_gradients(  # noqa: PLR0913  two are the question, four its precision
    net: Net,
    rows: Points,
    references: Points,
    nodes: int = 8,
    tolerance: float = 1e-4,
    most: int = 256,
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
        Largest gap of a pair, in the unit of the outputs.
    most : int, default=256
        Nodes are doubled for the pairs that miss the tolerance, but not beyond this.

    Returns
    -------
    Shares

    References
    ----------
    Sundararajan, Taly & Yan (2017), "Axiomatic Attribution for Deep Networks", ICML.
    """
    for name, count in {"nodes": nodes, "most": most}.items():
        if not 1 <= count <= CHUNK or CHUNK % count:
            raise ValueError(f"{name} must be a power of two up to {CHUNK}, got {count}")
    if not len(rows) or not len(references):
        raise ValueError(f"need rows and references, got {len(rows)} and {len(references)}")
    rise = _outputs(net, rows)[:, None, :] - _outputs(net, references)[None, :, :]
    n, r = (index.ravel() for index in np.indices(rise.shape[:2]))
    rise = rise.reshape(len(n), -1)
    window = np.empty((*rise.shape, rows.window.shape[2]))
    slope = np.empty((*rise.shape, rows.static.shape[1]))
    gap = np.empty(rise.shape)
    left = np.arange(len(n))
    while len(left):
        for some in np.split(left, range(CHUNK // nodes, len(left), CHUNK // nodes)):
            window[some], slope[some] = _along(net, rows, references, (n[some], r[some]), nodes)
        change = (rows.static[n[left]] - references.static[r[left]])[:, None, :]
        explained = window[left].sum(axis=2) + (slope[left] * change).sum(axis=2)
        gap[left] = rise[left] - explained
        nodes *= 2
        missed = (np.abs(gap[left]) > tolerance).any(axis=1)
        left = left[missed] if nodes <= most else left[:0]
    pairs = (len(rows), len(references))
    return Shares(*(a.reshape(*pairs, *a.shape[1:]) for a in (window, slope, gap)))


def _along(
    net: Net, rows: Points, references: Points, pairs: tuple[np.ndarray, np.ndarray], nodes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Contributions (P, O, F) and slopes (P, O, S) of at most CHUNK / nodes pairs."""
    n, r = (np.pad(index, (0, CHUNK // nodes - len(index)), mode="edge") for index in pairs)
    places, weights = _legendre(nodes)
    tracks, changes = [], []
    for end, start in ((rows.window, references.window), (rows.static, references.static)):
        begin, change = torch.from_numpy(start[r]), torch.from_numpy(end[n] - start[r])
        track = torch.stack([begin + place * change for place in places], dim=1).flatten(0, 1)
        tracks.append(track.requires_grad_(True))
        changes.append(change.double())
    window, slope = [], []
    # cuDNN has no backward pass for a recurrent net in evaluation mode
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        outputs = net(*tracks)
        for output in outputs.unbind(dim=1):
            # a net may ignore its static inputs, and there may be none
            grads = torch.autograd.grad(
                output.sum(), tracks, retain_graph=True, materialize_grads=True
            )
            x_PLF, static_PS = (_average(g.unflatten(0, (len(n), nodes)), weights) for g in grads)
            window.append((x_PLF * changes[0]).numpy().sum(axis=1))
            slope.append(static_PS.numpy())
    real = len(pairs[0])
    return np.stack(window, axis=1)[:real], np.stack(slope, axis=1)[:real]


def _average(grads_PG: torch.Tensor, weights: list[float]) -> torch.Tensor:
    """Weighted sum over the nodes, one after the other: the same bits for a pair anywhere."""
    total = torch.zeros_like(grads_PG[:, 0], dtype=torch.float64)
    for node, weight in enumerate(weights):
        total.add_(grads_PG[:, node], alpha=weight)
    return total


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
