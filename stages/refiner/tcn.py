"""The temporal convolution member of the refiner."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import nn

from stages.refiner.head import Head, check_sizes


class Tcn(nn.Module):
    """Causal dilated convolutions over a window of features, with residual connections.

    Finds products of lags that a recurrent net of the same size takes many epochs to find.

    Parameters
    ----------
    n_features, n_static : int
        Width of the window and of the static inputs.
    window : int
        Bars in the window; bars beyond the receptive field ``1 + 2 * (2**levels - 1)`` are unseen.
    hidden : int, default=48
        Channels.
    levels : int, default=4
        Blocks, of kernel 3 and dilation 1, 2, 4 …
    dropout : float in [0, 1), default=0.2
        After each block and on the last state, while training.

    References
    ----------
    Bai, Kolter & Koltun (2018), "An Empirical Evaluation of Generic Convolutional and Recurrent
    Networks for Sequence Modeling", arXiv 1803.01271.
    """

    nodes: ClassVar[int] = 8  # Gauss-Legendre nodes at which its gradients integrate to 1e-5

    def __init__(  # noqa: PLR0913  the six are the model
        self,
        n_features: int,
        n_static: int,
        window: int,
        hidden: int = 48,
        levels: int = 4,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        check_sizes(dropout, hidden=hidden, levels=levels)
        widths = [n_features] + [hidden] * (levels - 1)
        self.blocks = nn.ModuleList(
            _Block(width, hidden, 2**level, dropout) for level, width in enumerate(widths)
        )
        self.head = Head(hidden, n_static)

    def forward(self, x_BLF: torch.Tensor, static_BS: torch.Tensor) -> torch.Tensor:
        """Return logits_B2: log-odds of sell and of buy against hold."""
        state_BHL = x_BLF.transpose(1, 2)
        for block in self.blocks:
            state_BHL = block(state_BHL)
        return self.head(state_BHL[:, :, -1], static_BS)

    def late(self) -> Iterator[nn.Parameter]:
        """Weights of the last block and the head: what online learning moves."""
        yield from self.blocks[-1].parameters()
        yield from self.head.parameters()


class _Block(nn.Module):
    """One causal convolution; where the widths agree it adds to what came in."""

    def __init__(self, width: int, hidden: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.pad = nn.ConstantPad1d((2 * dilation, 0), 0.0)  # the past only: nothing looks ahead
        self.convolve = nn.Conv1d(width, hidden, kernel_size=3, dilation=dilation)
        self.activate = nn.GELU()
        self.drop = nn.Dropout(dropout)
        self.residual = width == hidden

    def forward(self, x_BHL: torch.Tensor) -> torch.Tensor:
        out_BHL = self.drop(self.activate(self.convolve(self.pad(x_BHL))))
        return x_BHL + out_BHL if self.residual else out_BHL
