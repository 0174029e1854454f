"""The GRU member of the refiner."""

from torch import nn

from stages.refiner.recurrent import Recurrent


class Gru(Recurrent):
    """Gated recurrent units over a window of features; parameters as `Recurrent`.

    Three quarters of the weights of an LSTM of the same width.

    References
    ----------
    Cho et al. (2014), "Learning Phrase Representations using RNN Encoder-Decoder for Statistical
    Machine Translation", EMNLP.
    """

    cells = nn.GRU
