"""What the nets of stage 2 make of matured rows: a few careful steps of their last layers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NetLearning:
    """Fine-tuning with replay and distillation.

    The last block and the head of every net take a few steps on new and on replayed rows: the
    cross-entropy of both, and on the replayed ones also `distil` times the squared distance to
    the logits that were said of them in their time. So the nets learn the new without taking
    back what they said of the old.

    Parameters
    ----------
    learning_rate : float > 0, default=1e-4
        Of AdamW.
    epochs : int, default=2
        Passes over the rows.
    batch : int, default=256
        Windows in a step, new and replayed ones mixed.
    distil : float >= 0, default=0.5
        Weight of the distance to the stored logits; 0 is plain replay.
    anchor : float >= 0, default=0
        Weight of elastic weight consolidation: how much a weight that mattered to the replayed
        rows is held where it was. 10 to 100 where it is wanted.
    fisher_rows : int, default=256
        Replayed rows from which it is measured how much a weight matters.

    References
    ----------
    Buzzega et al. (2020), "Dark Experience for General Continual Learning: a Strong, Simple
    Baseline" (DER++); Kirkpatrick et al. (2017), "Overcoming catastrophic forgetting in neural
    networks" (EWC).
    """

    learning_rate: float = 1e-4
    epochs: int = 2
    batch: int = 256
    distil: float = 0.5
    anchor: float = 0.0
    fisher_rows: int = 256

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch, self.fisher_rows) < 1:
            raise ValueError(
                "need epochs, batch and fisher_rows of at least 1, "
                f"got {self.epochs}, {self.batch}, {self.fisher_rows}"
            )
        if not self.learning_rate > 0 or min(self.distil, self.anchor) < 0:
            raise ValueError(
                "need learning_rate above 0, distil and anchor of at least 0, "
                f"got {self.learning_rate}, {self.distil}, {self.anchor}"
            )
