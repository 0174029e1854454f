"""Judges a pipeline on rows it had not seen: one table, intervals beside every figure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data.sources import Source
from pipeline.files import replace_atomic
from pipeline.ledger import Trial, enter
from pipeline.signal_pipeline import SignalPipeline
from stages.evaluate import (
    comparison,
    doubt,
    forward_return,
    paired,
    reliability,
    risk_coverage,
)
from stages.evaluate.book import book_returns
from stages.evaluate.contenders import contenders
from stages.evaluate.sharpe import bars_per_year, sharpe_interval
from stages.evaluate.standing import Standing

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
NO_MEMBER = ("base rate", "last sign", "soft vote", "stage 1", "stage 2", "stage 3", "pipeline")


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
    rivals : mapping of str to dict
        Log-loss of the pipeline less that of its best member, and less that of the base rate, on
        the same rows: ``value``, ``low``, ``high``. Below zero the pipeline is better.
    book : DataFrame of shape (T, 4)
        What following the scores would have earned; see `stages.evaluate.book.book_returns`.
    cost : float
        Mean round trip of the assets, basis points; 0 where trading is taken to be free.
    span : int
        Bars for which a position is held.
    sharpe : mapping
        Annual ratio of the book with its interval: ``value``, ``low``, ``high``.
    trial : str
        Digest of its line in the trial ledger; empty until `counted`.
    standing : Standing or None
        What the ratio is worth among all trials; None until `counted`.
    """

    table: pd.DataFrame
    predictions: pd.DataFrame
    reliability: pd.DataFrame
    gate: Mapping[str, float | None]
    part: str
    rivals: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    book: pd.DataFrame = field(default_factory=pd.DataFrame)
    cost: float = 0.0
    span: int = 1
    sharpe: Mapping[str, float] = field(default_factory=dict)
    trial: str = ""
    standing: Standing | None = None

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
        """JSON values of the whole table, NaN as null; the pipeline's hold rivals and Sharpe."""
        out: dict[str, Any] = {
            str(model): {
                metric: {part: _number(row[(metric, part)]) for part in ("value", "low", "high")}
                for metric in self.table.columns.unique(0)
            }
            for model, row in self.table.iterrows()
        }
        gaps = zip(("best_member", "base_rate"), self.rivals.values(), strict=False)
        more = {f"log_loss_less_{name}": gap for name, gap in gaps} | {"sharpe": self.sharpe}
        out["pipeline"] |= {
            name: {part: _number(value) for part, value in parts.items()}
            for name, parts in more.items()
        }
        return out

    def luck(self) -> dict[str, Any] | None:
        """JSON values of the standing among all trials, NaN as null; None until `counted`."""
        if self.standing is None:
            return None
        return self.standing.values() | {"cost_bps": self.cost}

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
            "share": float(self.table["base_rate", "value"]["pipeline"]),
            "shown": shown,
            "printed": {model: [row[name] for name in shown] for model, row in cells.items()},
            "reliability": self.reliability.to_dict("records"),
            "by_class": _records(reliability(self.predictions, by="class")),
            "risk_coverage": _records(risk_coverage(self.predictions, resamples=100)),
            "doubt": _records(doubt(self.predictions)),
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
    drawing: dict[str, Any] = {"resamples": resamples, "seed": seed}
    spans: dict[str, Any] = {"horizon": labels.horizon, "delay": labels.delay}
    tables = table_rows(rows, y, source.bars, labels)
    table = comparison(tables, truth=source.truth, **spans, **drawing)
    chosen = tables["pipeline"]
    members = [name for name in tables if name not in NO_MEMBER]
    best = str(table.loc[members, ("log_loss", "value")].idxmin())
    rivals = {
        name: paired(chosen, tables[name], **spans, **drawing) for name in (best, "base rate")
    }
    book, cost = pd.DataFrame(), 0.0
    sharpe = dict.fromkeys(("value", "low", "high"), float("nan"))
    if "close" in source.bars:
        trips = rows["cost"].groupby(level="asset").first() if "cost" in rows else None
        book = book_returns(chosen["score"], source.bars["close"], **spans, cost=trips)
        cost = 0.0 if trips is None else float(trips.mean() * 1e4)
        year = np.sqrt(bars_per_year(pd.DatetimeIndex(book.index)))
        said = sharpe_interval(book["net"].to_numpy(), labels.horizon, **drawing)
        sharpe = {part: said[part] * year for part in sharpe}
    return Evaluation(
        table=table,
        predictions=chosen,
        reliability=reliability(chosen),
        gate=pipeline.gate_,
        part=part,
        rivals=rivals,
        book=book,
        cost=cost,
        span=labels.horizon,
        sharpe=sharpe,
    )


def counted(
    evaluation: Evaluation, root: Path | str, kind: str, recipe: str, source: Source, seed: int
) -> Evaluation:
    """The evaluation, entered in the trial ledger of `root`, with its standing there.

    Parameters
    ----------
    evaluation : Evaluation
    root : Path or str
    kind : str
        What looked: ``train``, ``evaluate``.
    recipe : str
        Digest of what was judged: of a recipe and its split, or of a stored model.
    source : Source
    seed : int

    Raises
    ------
    StoreError
        See `pipeline.ledger.enter`.
    """
    said = evaluation.metrics()["pipeline"]
    figures = {name: said[name]["value"] for name in (*SHOWN, "sharpe") if name in said}
    none = pd.Series(dtype="float64", index=pd.DatetimeIndex([], tz="UTC"))
    trial = Trial(
        kind=kind,
        recipe=recipe,
        data=source.digest,
        name=source.name,
        part=evaluation.part,
        figures=figures,
        returns=evaluation.book["net"] if len(evaluation.book) else none,
        cost=evaluation.cost,
        span=evaluation.span,
        seed=seed,
    )
    ledger, entered = enter(root, trial)
    return replace(evaluation, trial=entered.digest, standing=ledger.standing(entered))


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
            **{name: rows[name] for name in ("certainty", "epistemic", "novelty")},
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
            said = said.drop(columns=["fired", "gate", "certainty", "epistemic", "novelty"])
        out[name] = said
    return out


def _cell(row: pd.Series, name: str, form: str) -> str:
    if (name, "value") not in row.index or not np.isfinite(row[(name, "value")]):
        return ""
    value, low, high = (row[(name, part)] for part in ("value", "low", "high"))
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """JSON values of a table, NaN as null."""
    return [
        {str(name): _number(v) if isinstance(v, float) else v for name, v in row.items()}
        for row in table.to_dict("records")
    ]


def _number(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None
