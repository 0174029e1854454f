"""All that a fitted pipeline can say of single signals, beside the signals themselves."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline.files import json_bytes
from stages.base import Explanation
from stages.explain.episodes import Episodes, episodes
from stages.explain.explainer import Effort
from stages.explain.lime import Surrogate, lime
from stages.explain.memory import Memory
from stages.explain.sentence import Sentence, sentence
from stages.explain.why_not import Counterfactual, why_not
from stages.signal import Signal

if TYPE_CHECKING:
    from pipeline.signal_pipeline import SignalPipeline


@dataclass(frozen=True)
class Ask:
    """What to find out about a signal.

    Parameters
    ----------
    why_not : bool, default=True
        What stood in its way, and the smallest change that turns it.
    episodes : int >= 0, default=20
        Rows of the past most like it; 0 looks for none.
    lime : bool, default=False
        A second opinion on the contributions.
    effort : {'full', 'fast'}, default='full'
        ``fast`` gives the reasons that signals carry where ``explain.reasons`` is fast; a second
        opinion is always on full ones.
    """

    why_not: bool = True
    episodes: int = 20
    lime: bool = False
    effort: Effort = "full"

    def __post_init__(self) -> None:
        if self.episodes < 0 or self.effort not in ("full", "fast"):
            raise ValueError(f"need episodes >= 0 and effort full or fast, got {self}")


@dataclass(frozen=True)
class Inquiry:
    """A signal, and what was asked about it.

    Attributes
    ----------
    signal : Signal
    sentence : Sentence
        The signal in words.
    change : Counterfactual or None
        The smallest change that turns the decision; None for an abstention.
    lean : Counterfactual or None
        Where nothing turns the decision: the smallest change that makes the opposite side lead.
    episodes : Episodes or None
        What happened when it last looked like this; None for an abstention.
    lime : Surrogate or None
        The second opinion; None for an abstention.
    """

    signal: Signal
    sentence: Sentence
    change: Counterfactual | None = None
    lean: Counterfactual | None = None
    episodes: Episodes | None = None
    lime: Surrogate | None = None

    def record(self) -> dict[str, Any]:
        """What was found, without the signal, as JSON gives it back: None where nothing was asked.

        Raises
        ------
        ValueError
            For a NaN, which JSON does not have.
        """
        parts = {
            "sentence": self.sentence,
            "change": self.change,
            "lean": self.lean,
            "episodes": self.episodes,
            "lime": self.lime,
        }
        plain = {name: None if part is None else asdict(part) for name, part in parts.items()}
        found: dict[str, Any] = json.loads(json_bytes(plain))
        return found


def inquiries(
    pipeline: "SignalPipeline",
    panel: pd.DataFrame,
    signals: Sequence[Signal],
    why: Explanation | None,
    ask: Ask,
) -> list[Inquiry]:
    """Find out what was asked about each signal.

    Parameters
    ----------
    pipeline : SignalPipeline
        Fitted.
    panel : DataFrame of shape (N, F)
        Rows of `signals` and the bars their windows need, with the columns of every stage, skill
        and the decision.
    signals : sequence of n Signal
    why : Explanation or None
        Of the signals that do not abstain; None where all do.
    ask : Ask
    """
    memory = Memory.of(pipeline.replay_, pipeline.features_)
    found: dict[Any, tuple[Any, ...]] = {}
    if why is not None:
        parts = _found(pipeline, panel, why, memory, ask)
        found = dict(zip(why.output.index, zip(*parts, strict=True), strict=True))
    out = []
    for signal in signals:
        row = (signal.asset, signal.time)
        change, *rest = found.get(row, (None,) * 4)
        values: dict[Any, Any] = panel.loc[[row]].iloc[0].to_dict() if row in found else {}
        if_free = change.if_free if change else None
        said = sentence(signal, values, memory, values.get("cost"), if_free)
        out.append(Inquiry(signal, said, change, *rest))
    return out


def _found(
    pipeline: "SignalPipeline",
    panel: pd.DataFrame,
    why: Explanation,
    memory: Memory,
    ask: Ask,
) -> tuple[list[Any], ...]:
    """Change, lean, episodes and second opinion of each row that `why` explains."""
    stack: Any = pipeline.stack_
    rows: Any = why.output.index
    nothing: list[Any] = [None] * len(rows)
    changes, leans, past, second = nothing, nothing, nothing, nothing
    if ask.why_not:
        changes = why_not(stack, pipeline.decide, panel, rows, memory, why)
        leans = [
            None
            if change.moves
            else why_not(
                stack, pipeline.decide, panel, rows[i : i + 1], memory, why, target="lean"
            )[0]
            for i, change in enumerate(changes)
        ]
    if ask.episodes:
        past = episodes(
            panel,
            rows,
            memory,
            pipeline.labels.span,
            k=ask.episodes,
            why=why,
            novelty=getattr(stack, "novelty", None),
        )
    if ask.lime:
        references = pipeline.references_
        if why.effort != "full":
            why = pipeline.explainer.explain(stack, panel, rows, pipeline.background, "full")
        second = lime(stack, panel, rows, memory, why, references)
    return changes, leans, past, second
