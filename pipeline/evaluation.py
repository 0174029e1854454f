"""Judges a pipeline on rows it had not seen: one table, intervals beside every figure."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data.sources import Source
from pipeline.files import replace_atomic
from pipeline.signal_pipeline import SignalPipeline
from stages.evaluate import comparison, forward_return, reliability
from stages.evaluate.contenders import contenders

SHOWN = {
    "accuracy": ".3f",
    "base_rate": ".3f",
    "balanced_accuracy": ".3f",
    "mcc": "+.3f",
    "log_loss": ".4f",
    "brier": ".4f",
    "ece": ".3f",
    "ic": "+.3f",
    "rank_ic": "+.3f",
    "coverage": ".1%",
    "discarded": ".1%",
}


@dataclass(frozen=True)
class Evaluation:
    """What a pipeline is worth on rows it had not seen.

    Attributes
    ----------
    table : DataFrame of shape (M, 3 x metrics)
        A model a row; columns (metric, value | low | high), 95 % block-bootstrap intervals.
    predictions : DataFrame
        Every evaluated row; see `predictions_table`.
    reliability : DataFrame
        Said confidence against accuracy.
    gate : mapping
        Share of the rows that stage 1 discards, on rows after those that set its threshold.
    part : str
        What was evaluated: out-of-fold, valid, test.
    """

    table: pd.DataFrame
    predictions: pd.DataFrame
    reliability: pd.DataFrame
    gate: Mapping[str, float]
    part: str

    def printed(self) -> dict[str, list[str]]:
        """Cells for people: figure and interval, a model a row, in the order of `SHOWN`."""
        out = {}
        for model, row in self.table.iterrows():
            out[str(model)] = [_cell(row, name, form) for name, form in SHOWN.items()]
        return out

    def short(self, name: str, model: str = "pipeline") -> str:
        """One figure and half its interval; empty where the data do not define it."""
        row = self.table.loc[model]
        if (name, "value") not in row.index or not np.isfinite(row[(name, "value")]):
            return ""
        half = (row[(name, "high")] - row[(name, "low")]) / 2
        form = SHOWN[name]
        return f"{row[(name, 'value')]:{form}} ±{half:{form.removeprefix('+')}}"

    def metrics(self) -> dict[str, Any]:
        """JSON values of the whole table, NaN as null."""
        return {
            str(model): {
                metric: {part: _number(row[(metric, part)]) for part in ("value", "low", "high")}
                for metric in self.table.columns.unique(0)
            }
            for model, row in self.table.iterrows()
        }

    def card(self) -> dict[str, Any]:
        """What the artifact keeps of it, and a page shows."""
        times = self.predictions.index.get_level_values("time")
        cells = {model: dict(zip(SHOWN, row, strict=True)) for model, row in self.printed().items()}
        shown = [name for name in SHOWN if name != "base_rate"]  # the same for every model
        return {
            "part": self.part,
            "rows": len(self.predictions),
            "span": [f"{times.min():%Y-%m-%d}", f"{times.max():%Y-%m-%d}"],
            "base_rate": cells["pipeline"]["base_rate"],
            "shown": shown,
            "printed": {model: [row[name] for name in shown] for model, row in cells.items()},
            "reliability": self.reliability.to_dict("records"),
            "gate": {name: _number(value) for name, value in self.gate.items()},
        }

    def write(self, path: Path) -> None:
        """Write every evaluated row to Parquet."""
        rows = self.predictions.reset_index()
        replace_atomic(path, lambda temporary: rows.to_parquet(temporary, index=False))

    def _repr_html_(self) -> str:
        return str(pd.DataFrame(self.printed(), index=list(SHOWN)).T.to_html())


def judge(
    pipeline: SignalPipeline,
    rows: pd.DataFrame,
    y: pd.DataFrame,
    source: Source,
    *,
    part: str = "out-of-fold",
    resamples: int = 500,
    seed: int = 0,
) -> Evaluation:
    """Judge the pipeline, its stages, its members and the baselines on the same unseen rows.

    Parameters
    ----------
    pipeline : SignalPipeline
        Fitted.
    rows : DataFrame of shape (N, F)
        Unseen rows with the columns of every stage and the decision.
    y : DataFrame of shape (n, 3)
        All labels there are; those of `rows` are judged, baselines count the ones before.
    source : Source
    part : str
    resamples : int >= 2
        Histories drawn for the intervals.
    seed : int
    """
    labels = pipeline.labels_
    tables = table_rows(rows, y, source.bars, labels)
    table = comparison(
        tables,
        horizon=labels.horizon,
        delay=labels.delay,
        truth=source.truth,
        resamples=resamples,
        seed=seed,
    )
    chosen = tables["pipeline"]
    return Evaluation(table, chosen, reliability(chosen), pipeline.gate_, part)


def predictions_table(
    rows: pd.DataFrame, y: pd.DataFrame, bars: pd.DataFrame, labels: Any
) -> pd.DataFrame:
    """One row an evaluated row, in the columns that ``predictions=PATH`` writes."""
    ahead = forward_return(bars, labels.horizon, labels.delay) if "close" in bars else None
    session = pd.Series(pd.NaT, rows.index, dtype="datetime64[us]")
    if "session" in bars:
        session = bars["session"].reindex(rows.index)
    return pd.DataFrame(
        {
            "session": session,
            "p_sell": rows["p_sell"],
            "p_hold": rows["p_hold"],
            "p_buy": rows["p_buy"],
            "score": rows["p_buy"] - rows["p_sell"],
            "side": rows["side"].astype("Int8"),  # an abstention is null, not a hold
            "label": y["side"].reindex(rows.index).astype("int8"),
            "forward_return": np.nan if ahead is None else ahead.reindex(rows.index),
            "fired": rows["status"].isin(["fired", "unproven"]),
            "gate": rows["filter.gate"],
        }
    )


def table_rows(
    rows: pd.DataFrame, y: pd.DataFrame, bars: pd.DataFrame, labels: Any
) -> dict[str, pd.DataFrame]:
    """The predictions table of every contender, by name."""
    base = predictions_table(rows, y, bars, labels)
    last = None
    if "close" in bars:
        last = np.log(bars["close"]).groupby(level="asset", sort=False).diff()
    out = {}
    for name, odds in contenders(rows, y, last).items():
        said = base.assign(**odds, score=odds["p_buy"] - odds["p_sell"])
        if name != "pipeline":
            said["side"] = (odds.to_numpy().argmax(axis=1) - 1).astype("int8")
            said = said.drop(columns=["fired", "gate"])
        out[name] = said
    return out


def _cell(row: pd.Series, name: str, form: str) -> str:
    if (name, "value") not in row.index or not np.isfinite(row[(name, "value")]):
        return ""
    value, low, high = (row[(name, part)] for part in ("value", "low", "high"))
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
