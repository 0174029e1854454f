"""How good a set of predictions is, beside what luck would give."""

from stages.evaluate.scores import reliability
from stages.evaluate.table import comparison, evaluate, paired
from stages.labels import forward_return

__all__ = ["comparison", "evaluate", "forward_return", "paired", "reliability"]
