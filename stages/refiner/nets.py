"""How trained nets are run and stored: chunks of one size, weights as safetensors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from stages.base import ArtifactError
from stages.refiner.windows import Inputs

CHUNK = 16  # rows a net sees at once; always this many, so that no row moves another's bits
GPU_CHUNK = 4096  # where bits may differ in the last place, and few rows would waste the device


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a generator of our own; the caller's torch state is put back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def device_of(accelerator: str) -> str:
    """Name the device on which to predict."""
    return "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"


def mean_logits(
    nets: Sequence[nn.Module], inputs: Inputs, rows: np.ndarray, device: str
) -> np.ndarray:
    """Logit pairs averaged over the nets, for the windows that end at `rows`.

    Returns
    -------
    float64 ndarray of shape (n, 2)
        On a CPU, the bits of a row do not depend on the other rows.
    """
    out = np.zeros((len(rows), 2))
    size = CHUNK if device == "cpu" else GPU_CHUNK
    away = device != "cpu"
    placed = [net.to(device) for net in nets] if away else nets
    with torch.inference_mode():
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            ends = np.pad(some, (0, size - len(some)), mode="edge")
            points = (inputs.windows(ends), inputs.static[ends])
            x_BLF, static_BS = (torch.from_numpy(part).to(device) for part in points)
            for net in placed:
                logits_B2 = net(x_BLF, static_BS).cpu().numpy()
                out[start : start + size] += logits_B2[: len(some)]
    for net in placed if away else ():
        net.cpu()
    return out / len(nets)


def weights_of(net: nn.Module) -> bytes:
    """Weights of a net as safetensors; equal weights give equal bytes."""
    return save(net.state_dict())


def with_weights(net: nn.Module, weights: bytes, part: str) -> nn.Module:
    """Put stored weights into `net`, frozen and in evaluation mode.

    Raises
    ------
    ArtifactError
        If they are damaged, or belong to another network (SV-F29).
    """
    try:
        net.load_state_dict(load(weights))
    except (SafetensorError, RuntimeError) as fault:
        raise ArtifactError(
            "stored weights do not fit their network",
            code="SV-F29",
            where=part,
            why=" ".join(str(fault).split())[:200],
            cure="load the model with the configuration it was saved with",
        ) from fault
    return net.eval().requires_grad_(False)
