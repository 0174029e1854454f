"""The LSTM member of the refiner."""

from torch import nn

from stages.refiner.recurrent import Recurrent


class Lstm(Recurrent):
    """Long short-term memory over a window of features; parameters as `Recurrent`.

    References
    ----------
    Hochreiter & Schmidhuber (1997), "Long Short-Term Memory", Neural Computation 9(8).
    """

    cells = nn.LSTM
