"""What each model said of new bars before anybody knew what came, until the labels are known."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pipeline.data.sources import Source
from pipeline.files import replace_atomic
from pipeline.matured import newer_rows
from pipeline.registry import Lineage
from stages.base import StoreError
from stages.panel import check_labels, settled, stretch
from stages.signal import ODDS

if TYPE_CHECKING:
    from pipeline.signal_pipeline import SignalPipeline

FOLDER = "shadow"
KEPT = 5000  # bars
COLUMNS = [*ODDS, "side", "end", "model"]


def read(root: Path | str, first: str) -> pd.DataFrame:
    """Rows of the line of models that began with `first`, see `Lineage.line`.

    Returns
    -------
    DataFrame of shape (N, 6)
        Indexed by (asset, time): `p_sell`, `p_hold`, `p_buy`, `side` (-1, 0, 1; NaN while open),
        `end` (UTC; when it was known) and `model` (digest of the one that spoke).

    Raises
    ------
    StoreError
        SV-X524 for a file that is not what was written.
    """
    path = _place(root, first)
    if not path.exists():
        return _empty()
    try:
        table = pd.read_parquet(path)
        return table.set_index(["asset", "time"])[COLUMNS].sort_index()
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(
            f"{path.name} cannot be read: {str(error)[:100]}",
            code="SV-X524",
            where=str(path),
            why="it was changed, so what was said before is not known any more",
            cure="put it back from a copy, or move it away: evidence is then gathered anew",
        ) from error


def listen(  # noqa: PLR0913  who speaks, of what, and where it is kept
    root: Path | str,
    model: Lineage,
    pipeline: "SignalPipeline",
    source: Source,
    panel: pd.DataFrame,
    kept: int = KEPT,
) -> pd.DataFrame:
    """Let a model speak of the bars it has neither learnt from nor spoken of; note new labels.

    What was said once stays as it was said, by whichever model of the line was there then.

    Parameters
    ----------
    root : Path or str
    model : Lineage
        Of `pipeline`: a model and its updates are one line, whose rows are kept together.
    pipeline : SignalPipeline
        Fitted; it is not changed.
    source : Source
        Bars, with the history before the first new one.
    panel : DataFrame of shape (N, F)
        What `pipeline` makes of the bars.
    kept : int
        Bars that are remembered.

    Returns
    -------
    DataFrame of shape (N, 6)
        As `read`.
    """
    rows = read(root, model.line)
    fresh = newer_rows(panel, rows, pipeline.learned_until_)
    if len(fresh):
        near = stretch(panel, fresh, pipeline.window)
        asked = near.assign(ready=near["ready"].to_numpy() & near.index.isin(fresh))
        said = pipeline.stack_.predict(asked).loc[fresh, ODDS].astype("float64")
        new = said.dropna().assign(side=float("nan"), model=model.model)
        new["end"] = pd.Series(pd.NaT, new.index, dtype=rows["end"].dtype)
        new = new[COLUMNS]
        rows = pd.concat([rows, new]).sort_index() if len(rows) else new
    rows = _labelled(rows, pipeline, source)
    times = rows.index.unique("time").sort_values()
    if len(times) > kept:
        rows = rows[rows.index.get_level_values("time") >= times[-kept]]
    table = rows.reset_index()
    replace_atomic(_place(root, model.line), lambda path: table.to_parquet(path, index=False))
    return rows


def labels(rows: pd.DataFrame) -> pd.DataFrame:
    """The labels among `rows` that are known, as `check_labels` asks for them."""
    known = rows.loc[rows["side"].notna(), ["side", "end"]]
    return known.assign(side=known["side"].astype("int8"), weight=1.0)


def _labelled(rows: pd.DataFrame, pipeline: "SignalPipeline", source: Source) -> pd.DataFrame:
    y = source.y if source.y is not None else pipeline.labels_.label(source.bars)
    y = check_labels(y)
    y = y[settled(y) <= source.bars.index.get_level_values("time").max()]  # others are open
    at = y.index.get_indexer(rows.index)
    news = (at >= 0) & rows["side"].isna().to_numpy()
    out = rows.copy()
    out.loc[news, "side"] = y["side"].to_numpy("float64")[at[news]]
    out.loc[news, "end"] = settled(y).to_numpy()[at[news]]
    return out


def _place(root: Path | str, first: str) -> Path:
    return Path(root) / FOLDER / f"{first[:16]}.parquet"


def _empty() -> pd.DataFrame:
    index = pd.MultiIndex.from_arrays(
        [pd.Index([], dtype="str"), pd.DatetimeIndex([], tz="UTC").as_unit("us")],
        names=["asset", "time"],
    )
    table = pd.DataFrame(index=index, columns=COLUMNS)
    kinds = dict.fromkeys([*ODDS, "side"], "float64")
    return table.astype(kinds | {"end": "datetime64[us, UTC]", "model": "str"})
