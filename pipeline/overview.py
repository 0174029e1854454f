"""What drives a fitted pipeline over many rows, and whether that changes over time."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline.files import json_bytes, write_atomic
from stages.base import DataError, Explanation, StoreError
from stages.explain.drift import Drift, drift
from stages.explain.explainer import Effort
from stages.explain.importance import Importance, importance, over_time, plain, sizes
from stages.explain.interactions import Interactions, interactions
from stages.explain.redundancy import Redundancy, redundancy
from stages.explain.through import through_stages
from stages.panel import stretch

if TYPE_CHECKING:
    from pipeline.signal_pipeline import SignalPipeline

FILE = "importance.json"  # in the folder of a run
MOST = 2000  # rows explained, where none are named
POINTS = 16  # rows at which pairs are tried
BARS = 12  # at least, of which a wide panel then keeps some of the assets each
Window = tuple[pd.Timestamp, pd.Timestamp]


@dataclass(frozen=True)
class Overview:
    """What moves the margin over many rows.

    Attributes
    ----------
    importance : Importance
        Of inputs, families, stages and members.
    through : dict of str to DataFrame
        The same table as ``importance.inputs``, of what inputs do through each stage alone.
    shares : DataFrame of shape (periods, F)
        Share of each input in one stretch of time after the other, see `over_time`.
    redundancy : Redundancy
        Inputs that carry the same information.
    interactions : Interactions or None
        Pairs of the largest inputs that act together; None where none were asked for.
    why : Explanation
        Of the rows: what all of it was measured on.
    model : str
        Digest of the artifact.
    """

    importance: Importance
    through: dict[str, pd.DataFrame]
    shares: pd.DataFrame
    redundancy: Redundancy
    interactions: Interactions | None
    why: Explanation
    model: str

    def record(self) -> dict[str, Any]:
        """Plain values, such as a run stores as JSON beside its metrics."""
        begins = [time.isoformat() for time in pd.DatetimeIndex(self.shares.index)]
        shares = {
            begin: {str(name): float(share) for name, share in row.items()}
            for begin, row in zip(begins, self.shares.to_dict("records"), strict=True)
        }
        pairs = None if self.interactions is None else self.interactions.record()
        return {
            "model": self.model,
            "importance": self.importance.record(),
            "through": {stage: plain(table) for stage, table in self.through.items()},
            "over_time": shares,
            "redundancy": self.redundancy.record(),
            "interactions": pairs,
        }


def overview(  # noqa: PLR0913  what to explain, and how closely to look
    pipeline: "SignalPipeline",
    bars: pd.DataFrame,
    rows: pd.MultiIndex | None = None,
    effort: Effort = "fast",
    most: int = MOST,
    pairs: int = 6,
    resamples: int = 500,
    seed: int = 0,
) -> Overview:
    """Explain many rows, and say what moves the margin, by what, and together with what.

    Parameters
    ----------
    pipeline : SignalPipeline
        Fitted.
    bars : DataFrame of shape (N, F)
    rows : MultiIndex, optional
        To explain; default evaluable rows of the newest ``explain.tail`` bars: whole bars at even
        distances, or of a wide panel other assets of each bar.
    effort : {'fast', 'full'}, default='fast'
    most : int >= 1, default=2000
        At most so many, where none are named.
    pairs : int >= 0, default=6
        Largest inputs of which all pairs are tried; with fewer than 2 none are.
    resamples : int >= 2, default=500
    seed : int, default=0

    Raises
    ------
    DataError
        SV-F18 where too few rows are evaluable to say anything.
    """
    panel = pipeline.panel(bars)
    rows = newest_rows(panel, pipeline.explainer.tail, most) if rows is None else rows
    why = pipeline.explain_panel(panel, rows, effort)
    span = _span(bars, rows, pipeline.labels.span)
    found = importance(why, pipeline.features_, span, resamples, seed)
    through = {
        stage: sizes(pushes, span, resamples, seed)
        for stage, pushes in _through(pipeline, panel, why).items()
    }
    names = [*map(str, why.contributions)]
    shares = found.inputs["share"]
    together = None
    if pairs > 1:
        some = rows[np.unique(np.linspace(0, len(rows) - 1, POINTS).astype(int))]
        largest = [str(name) for name in shares.index[shares > 0][:pairs]]
        together = interactions(pipeline.stack_, panel, some, pipeline.references_, largest)
    hang = redundancy(panel.loc[rows], names, {str(k): float(v) for k, v in shares.items()})
    return Overview(found, through, over_time(why), hang, together, why, pipeline.digest)


def drifted(  # noqa: PLR0913  two windows, the models of both, and how sure to be
    pipeline: "SignalPipeline",
    bars: pd.DataFrame,
    before: Window,
    after: Window,
    later: "SignalPipeline | None" = None,
    level: float = 0.05,
    effort: Effort = "fast",
) -> Drift:
    """Test whether the reasons of two windows differ by more than chance.

    Parameters
    ----------
    pipeline : SignalPipeline
        Fitted; explains the first window.
    bars : DataFrame of shape (N, F)
        With both windows and the history before them.
    before, after : (Timestamp, Timestamp)
        First and last time of either window, both included.
    later : SignalPipeline, optional
        Explains the second window; default the same model. With one model only inputs that
        behave otherwise are found, with its successor also what it has learnt to see otherwise.
    level : float in (0, 1), default=0.05
        Highest rate of false alarms.
    effort : {'fast', 'full'}, default='fast'

    Raises
    ------
    DataError
        SV-F18 where a window holds no evaluable row, or too few bars.
    """
    models = (pipeline, later or pipeline)
    panels = [model.panel(bars) for model in (models if later is not None else models[:1])]
    found, inputs = [], []
    for model, panel, window in zip(models, (panels[0], panels[-1]), (before, after), strict=True):
        rows = _within(panel, *window)
        found.append(model.explain_panel(panel, rows, effort))
        inputs.append(panel.loc[rows])
    together = pd.concat(inputs, join="inner")
    return drift(found[0], found[1], together, level, pipeline.labels.span)


def windows(
    bars: pd.DataFrame, since: pd.Timestamp, length: int | None = None
) -> tuple[Window, Window]:
    """The bars from `since` on, and as many before it: what `drifted` compares.

    Parameters
    ----------
    bars : DataFrame of shape (N, F)
    since : Timestamp
        Where the second window begins.
    length : int, optional
        Bars of either window; default as many as there are from `since` on.

    Raises
    ------
    DataError
        SV-F18 where a window would hold no bar.
    """
    times = pd.DatetimeIndex(bars.index.get_level_values("time").unique()).sort_values()
    cut = int(times.searchsorted(since))
    length = len(times) - cut if length is None else length
    before, after = times[max(cut - length, 0) : cut], times[cut : cut + length]
    if not len(before) or not len(after):
        raise DataError(
            f"{since:%Y-%m-%d} does not part the bars into two windows",
            code="SV-F18",
            where=f"bars from {times.min():%Y-%m-%d} to {times.max():%Y-%m-%d}",
            cure="name a time between them",
        )
    return (before[0], before[-1]), (after[0], after[-1])


def newest_rows(panel: pd.DataFrame, tail: int, most: int) -> pd.MultiIndex:
    """Evaluable rows of the newest bars, at most `most` of them.

    Parameters
    ----------
    panel : DataFrame of shape (N, F)
        With the column `ready`.
    tail : int >= 1
        Bars.
    most : int >= 1
        Rows. Where these are too many, whole bars at even distances are kept if that leaves a dozen
        of them, else of each kept bar other assets.

    Returns
    -------
    MultiIndex
        In the order of the panel.
    """
    ready = panel[panel["ready"]].index
    times = ready.get_level_values("time")
    newest = times.unique().sort_values()[::-1][:tail]
    rows = int(times.isin(newest).sum())
    step = max(1, -(-rows // most))
    if len(newest) // step < BARS:
        step = max(1, len(newest) // BARS)
    kept = newest[::step]
    bar = kept.get_indexer(times)
    every = max(1, -(-int((bar >= 0).sum()) // most))
    place = pd.Series(bar).groupby(bar).cumcount().to_numpy()
    return ready[(bar >= 0) & ((place + bar) % every == 0)]  # type: ignore[return-value]


def store(found: Overview, folder: Path) -> Path:
    """Write ``importance.json`` into the folder of a run; return its path."""
    path = folder / FILE
    write_atomic(path, json_bytes(found.record(), indent=2))
    return path


def stored(runs: Path) -> dict[str, Importance]:
    """The importance that the runs below a folder have stored, in the order of their names.

    Parameters
    ----------
    runs : Path
        Such as ``sieve_runs/runs``, whose folders are named by date and time.

    Returns
    -------
    dict of str to Importance
        By folder below `runs`: what `history` lays side by side.

    Raises
    ------
    StoreError
        SV-X522 for a file that was cut short or edited.
    """
    found = {}
    for path in sorted(runs.rglob(FILE)):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            found[str(path.parent.relative_to(runs))] = Importance.read(record["importance"])
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(
                f"{FILE} of the run {path.parent.name} cannot be read: {str(error)[:100]}",
                code="SV-X522",
                where=str(path),
                why="it was cut short, or edited",
                cure=f"move {path} away, or measure the model again",
            ) from error
    return found


def _through(
    pipeline: "SignalPipeline", panel: pd.DataFrame, why: Explanation
) -> dict[str, pd.DataFrame]:
    """Contributions by stage and input."""
    rows = why.output.index
    panel = stretch(panel, rows, pipeline.window)
    said = pipeline.stack_.predict(panel.assign(ready=panel["ready"] & panel.index.isin(rows)))
    return through_stages(pipeline.explainer, pipeline.stack_, said, why, pipeline.background)


def _span(bars: pd.DataFrame, rows: pd.MultiIndex, span: int) -> int:
    """How many of the bars that `rows` are of a label covers, if there are bars between them."""
    times = bars.index.get_level_values("time").unique().sort_values()
    at = np.unique(times.get_indexer(rows.get_level_values("time").unique()))
    step = float(np.median(np.diff(at))) if len(at) > 1 else 1.0
    return max(1, int(np.ceil(span / step)))


def _within(panel: pd.DataFrame, first: pd.Timestamp, last: pd.Timestamp) -> pd.MultiIndex:
    times = panel.index.get_level_values("time")
    rows = panel.index[panel["ready"].to_numpy() & (times >= first) & (times <= last)]
    if not len(rows):
        raise DataError(
            f"no row from {first:%Y-%m-%d} to {last:%Y-%m-%d} can be evaluated",
            code="SV-F18",
            where=f"bars from {times.min():%Y-%m-%d} to {times.max():%Y-%m-%d}",
            cure="name a window that the bars cover, with enough history before it",
        )
    return rows  # type: ignore[return-value]
