"""What updates learnt and forgot, as a picture."""

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pipeline.report.figures import BUY, DASHED, GREY, INKS, SELL, styled
from pipeline.updates import Update

SHOWN = 200  # updates, the newest


def forgetting(updates: Sequence[Update]) -> go.Figure:
    """Skill on what is new, and what each update took from what was known: a point an update.

    Above, the log-loss of the rows that an update learnt, as they were spoken of on the way, and by
    the model before it, which learnt nothing meanwhile. Below, the change of log-loss on remembered
    rows by regime: above 0 is forgetting.

    Parameters
    ----------
    updates : sequence of Update
        In the order in which they were made; those that measured nothing are left out.
    """
    told = [u for u in updates if u.prequential.get("rows") and u.regimes][-SHOWN:]
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.12)
    times = [u.data["to"] for u in told]
    lines = {"as it learnt": ("prequential", BUY), "had it not learnt": ("frozen", GREY)}
    for name, (key, ink) in lines.items():
        losses = [getattr(u, key)["log_loss"] for u in told]
        mark = {"color": ink}
        figure.add_scatter(
            x=times, y=losses, name=name, mode="lines+markers", line=mark, row=1, col=1
        )
    regimes = sorted({r for u in told for r in u.regimes["before"]})
    for ink, regime in zip(INKS * len(regimes), regimes, strict=False):
        figure.add_bar(
            x=times,
            y=[_risen(u, regime) for u in told],
            name="remembered" if regime == "all" else f"remembered, regime {regime}",
            marker={"color": ink if len(regimes) > 1 else SELL},
            row=2,
            col=1,
        )
    figure.add_hline(y=0, line=DASHED, row=2, col=1)
    figure.update_yaxes(title_text="log-loss, new rows", row=1, col=1)
    figure.update_yaxes(title_text="forgotten, nats", row=2, col=1)
    return styled(figure, height=460)


def _risen(update: Update, regime: str) -> float | None:
    """By how much the log-loss on remembered rows of a regime rose, nats; None where none are."""
    before, after = (update.regimes[when].get(regime, {}) for when in ("before", "after"))
    if before.get("log_loss") is None or after.get("log_loss") is None:
        return None
    return float(after["log_loss"] - before["log_loss"])
