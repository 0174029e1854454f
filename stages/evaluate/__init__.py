"""How good a set of predictions is, beside what luck would give."""

from stages.evaluate.book import book_returns
from stages.evaluate.doubt import doubt
from stages.evaluate.funnel import funnel, screened
from stages.evaluate.overfitting import overfitting
from stages.evaluate.sharpe import deflated_sharpe, probabilistic_sharpe, sharpe_ratio
from stages.evaluate.slices import calibration, confidence_order, reliability, risk_coverage
from stages.evaluate.table import comparison, evaluate, paired
from stages.labels import forward_return

__all__ = [
    "book_returns",
    "calibration",
    "comparison",
    "confidence_order",
    "deflated_sharpe",
    "doubt",
    "evaluate",
    "forward_return",
    "funnel",
    "overfitting",
    "paired",
    "probabilistic_sharpe",
    "reliability",
    "risk_coverage",
    "screened",
    "sharpe_ratio",
]
