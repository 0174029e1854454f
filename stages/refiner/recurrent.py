"""What the recurrent members of the refiner share: projection, cell, last state, head."""

from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from torch import nn

from stages.refiner.head import Head, check_sizes


class Recurrent(nn.Module):
    """A recurrent cell over a window of features, read at its last state.

    Parameters
    ----------
    n_features, n_static : int
        Width of the window and of the static inputs.
    window : int
        Bars in the window; unused, a recurrent net takes any length.
    hidden : int, default=64
        Width of the projection and of the cell. Below 16 a row's last bits may depend on the
        rows beside it: the matrix library then rounds by place in the batch.
    layers : int, default=1
    dropout : float in [0, 1), default=0.2
        On the projected window and on the last state, while training.
    """

    cells: ClassVar[Callable[..., nn.Module]]
    nodes: ClassVar[int] = 8  # Gauss-Legendre nodes at which its gradients integrate to 1e-5

    def __init__(  # noqa: PLR0913  the six are the model
        self,
        n_features: int,
        n_static: int,
        window: int,
        hidden: int = 64,
        layers: int = 1,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        check_sizes(dropout, hidden=hidden, layers=layers)
        self.project = nn.Linear(n_features, hidden)
        self.drop_in = nn.Dropout(dropout)
        self.cell = self.cells(hidden, hidden, layers, batch_first=True)
        self.last = f"_l{layers - 1}"
        self.drop_out = nn.Dropout(dropout)
        self.head = Head(hidden, n_static)

    def forward(self, x_BLF: torch.Tensor, static_BS: torch.Tensor) -> torch.Tensor:
        """Return logits_B2: log-odds of sell and of buy against hold."""
        states_BLH, _ = self.cell(self.drop_in(self.project(x_BLF)))
        return self.head(self.drop_out(states_BLH[:, -1]), static_BS)

    def late(self) -> Iterator[nn.Parameter]:
        """Weights of the last layer and the head: what online learning moves."""
        cell = self.cell.named_parameters()
        yield from (weights for name, weights in cell if name.endswith(self.last))
        yield from self.head.parameters()
