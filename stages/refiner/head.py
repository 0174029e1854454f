"""What all networks share: the check of their sizes, and the last layer, to a logit pair."""

import torch
from torch import nn


def check_sizes(dropout: float, **sizes: int) -> None:
    """Refuse sizes below 1 and a dropout outside [0, 1).

    Raises
    ------
    ValueError
    """
    if min(sizes.values()) < 1 or not 0 <= dropout < 1:
        got = {**sizes, "dropout": dropout}
        raise ValueError(
            f"need {' and '.join(sizes)} at least 1, dropout in [0, 1), "
            f"got {', '.join(f'{name}={value}' for name, value in got.items())}"
        )


class Head(nn.Module):
    """Linear map of the last hidden state and the static inputs to (z_sell, z_buy).

    Parameters
    ----------
    hidden : int
        Width of the last hidden state.
    n_static : int
        Static inputs: the row's own standardised stage-1 logit pair, or 0.
    """

    def __init__(self, hidden: int, n_static: int) -> None:
        super().__init__()
        linear = nn.Linear(hidden + n_static, 2)  # for its initialisation only
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, state_BH: torch.Tensor, static_BS: torch.Tensor) -> torch.Tensor:
        """Return logits_B2."""
        both = torch.cat([state_BH, static_BS], dim=1)
        # not nn.Linear: with two outputs MKL may sum a row differently by its place in the batch
        return (both[:, None, :] * self.weight).sum(dim=2) + self.bias
