"""The Transformer member of the refiner."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import nn

from stages.refiner.head import Head, check_sizes


class Transformer(nn.Module):
    """Small pre-norm Transformer encoder with learned positions, read at the last bar.

    Parameters
    ----------
    n_features, n_static : int
        Width of the window and of the static inputs.
    window : int
        Bars in the window.
    hidden : int, default=64
        Width of the tokens, a multiple of `heads`.
    heads : int, default=4
    layers : int, default=2
    dropout : float in [0, 1), default=0.2
        On the tokens, on what each block adds and on the last state, while training.

    References
    ----------
    Vaswani et al. (2017), "Attention Is All You Need"; Xiong et al. (2020), "On Layer
    Normalization in the Transformer Architecture" (pre-norm).
    """

    nodes: ClassVar[int] = 16  # attention bends more than a cell does

    def __init__(  # noqa: PLR0913  the seven are the model
        self,
        n_features: int,
        n_static: int,
        window: int,
        hidden: int = 64,
        heads: int = 4,
        layers: int = 2,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        check_sizes(dropout, hidden=hidden, heads=heads, layers=layers)
        if hidden % heads:
            raise ValueError(f"hidden={hidden} must be a multiple of heads={heads}")
        self.project = nn.Linear(n_features, hidden)
        self.positions = nn.Parameter(0.02 * torch.randn(window, hidden))
        self.drop_in = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(hidden, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.drop_out = nn.Dropout(dropout)
        self.head = Head(hidden, n_static)

    def forward(self, x_BLF: torch.Tensor, static_BS: torch.Tensor) -> torch.Tensor:
        """Return logits_B2: log-odds of sell and of buy against hold."""
        tokens = self.drop_in(self.project(x_BLF) + self.positions)
        for block in self.blocks[:-1]:
            tokens = block(tokens, tokens)
        # only the last bar is read, so the last block computes only that one
        last = self.blocks[-1](tokens[:, -1:], tokens)
        return self.head(self.drop_out(self.norm(last[:, 0])), static_BS)

    def late(self) -> Iterator[nn.Parameter]:
        """Weights of the last block and the head: what online learning moves."""
        for part in (self.blocks[-1], self.norm, self.head):
            yield from part.parameters()


class Block(nn.Module):
    """Attention, then two layers at each bar; each adds to what came in."""

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(hidden)
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.softmax = nn.Softmax(dim=-1)
        self.mix = nn.Linear(hidden, hidden)
        self.drop_attention = nn.Dropout(dropout)
        self.norm_wide = nn.LayerNorm(hidden)
        self.widen = nn.Linear(hidden, 2 * hidden)
        self.gelu = nn.GELU()
        self.narrow = nn.Linear(2 * hidden, hidden)
        self.drop_wide = nn.Dropout(dropout)

    def forward(self, asking_BQH: torch.Tensor, tokens_BLH: torch.Tensor) -> torch.Tensor:
        """Return the `asking` tokens after they have looked at all `tokens`: (B, Q, H)."""
        seen = self.norm_attention(tokens_BLH)
        query = self._split(self.query(self.norm_attention(asking_BQH)))
        key, value = self._split(self.key(seen)), self._split(self.value(seen))
        scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        found = (self.softmax(scores) @ value).transpose(1, 2).flatten(2)
        out = asking_BQH + self.drop_attention(self.mix(found))
        return out + self.drop_wide(self.narrow(self.gelu(self.widen(self.norm_wide(out)))))

    def _split(self, x_BLH: torch.Tensor) -> torch.Tensor:
        batch, length, hidden = x_BLH.shape
        return x_BLH.view(batch, length, self.heads, hidden // self.heads).transpose(1, 2)
