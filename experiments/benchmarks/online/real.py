"""Is learning online worth it on real markets? ``python -m experiments.benchmarks.online.real``.

Words: ``data=../shared/data``, ``panels=us_stocks,etfs,cn_etfs``, ``folder=PATH`` (where finished
jobs are kept, so that a run goes on where it stopped), ``readme=true`` (puts the table into the
README).
"""

import os
import sys

from pipeline.cli import THREADS

for name in THREADS:  # before numpy and numba are imported and count the cores
    os.environ.setdefault(name, "1")

import json  # noqa: E402
from functools import lru_cache  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from hydra import compose, initialize_config_module  # noqa: E402
from omegaconf import DictConfig  # noqa: E402
from scipy.stats import t as student  # noqa: E402

from pipeline import recipe  # noqa: E402
from pipeline.assemble import assemble  # noqa: E402
from pipeline.learning import learn  # noqa: E402
from pipeline.signal_pipeline import SignalPipeline  # noqa: E402
from stages.base import State  # noqa: E402
from stages.evaluate.scores import calibration_gaps, odds_sums  # noqa: E402
from stages.panel import settled, until  # noqa: E402
from stages.signal import ODDS  # noqa: E402

README = Path(__file__).with_name("README.md")
EVERY = 5  # bars between two updates of stage 3, which is the span of the labels
BLOCK = 20  # bars whose differences count as one observation
LIGHT = (  # a booster and its twin, and stage 3: neither forest nor rules nor nets
    *("filter=live", "refiner=none", "filter.rules=null", "window=1", "costs=none"),
    *("filter.members.lightgbm.n_estimators=100", "filter.members.lightgbm.learning_rate=0.08"),
    *("~filter.members.xgboost", "~filter.members.forest", "pipeline.coverage=null", "risk=none"),
    *("data=parquet", "data.on_bad=quarantine", "data.columns.asset=symbol"),
    *("data.columns.time=date", "folds.n_folds=3", "folds.first=0.4", "folds.update_every=0"),
)
PANELS = {  # file, last session of the training, and more words
    "us_stocks": (
        "us_equity_daily_296_1990_2006.parquet",
        "2002-12-31",
        ("data.calendar=XNYS", "data.start=1998-01-01", "data.survivors=true"),
    ),
    "etfs": (
        "m6_assets_daily_100_2018_2022.parquet",
        "2020-12-31",
        ("data.calendar=instruments", "data.columns.adj_close=adj_close"),
    ),
    "cn_etfs": (
        "cn_etf_daily_20_2014_2026.parquet",
        "2021-12-31",
        ("data.calendar=XSHG", "data.start=2017-01-01"),
    ),
}
EACH = 6  # of the 296 US stocks every sixth, in the order of their names
WAYS = ("frozen", "stage 3 (default)", "a live booster beside the old", "trained anew each year")


def composed(panel: str, data: str) -> DictConfig:
    """The configuration of a panel."""
    file, _, more = PANELS[panel]
    words = [*LIGHT, *more, f"data.path={data}/{file}"]
    names = sorted(pd.read_parquet(f"{data}/{file}", columns=["symbol"])["symbol"].unique())
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose("update", words)
    if panel == "etfs":
        table = cfg.instruments.table
        cfg.data.assets = [n for n in names if table.get(n, {}).get("asset_class") == "etf"]
    elif panel == "us_stocks":
        cfg.data.assets = names[::EACH]
    return cfg


@lru_cache(maxsize=1)
def prepared(panel: str, data: str) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, State]:
    """All bars, those of the training, all labels that are over, and the model after it."""
    bars = assemble(composed(panel, data), "data").bars
    cut = pd.Timestamp(PANELS[panel][1], tz="UTC") + pd.Timedelta(days=1)
    past = until(bars, cut)
    model = assemble(composed(panel, data), "pipeline").fit(past)
    y = model.labels_.label(bars)
    newest = bars.index.get_level_values("time").max()
    return bars, past, y[(settled(y) <= newest).to_numpy()], State(*model.content())


def said_by(way: str, panel: str, data: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a way said of every row after the training before it learnt of it, and the labels."""
    bars, past, y, state = prepared(panel, data)
    model = recipe.build(state.values["recipe"]).restore(state)
    if way == "frozen":
        return _asked(model, bars, past), y
    if way == "trained anew each year":
        return _retrained(model, bars, past), y
    learning = None
    if way != "stage 3 (default)":
        with initialize_config_module("conf", version_base="1.3"):
            learning = assemble(compose("update", ["online=live"]), "learning")
    return learn(model, bars, None, learning, every=EVERY).said, y


def _asked(model: SignalPipeline, bars: pd.DataFrame, past: pd.DataFrame) -> pd.DataFrame:
    panel = model.panel(bars)
    late = panel.index.get_level_values("time") > past.index.get_level_values("time").max()
    said = model.stack_.predict(panel)
    return said.loc[late & panel["ready"].to_numpy(), ODDS]


def _retrained(model: SignalPipeline, bars: pd.DataFrame, past: pd.DataFrame) -> pd.DataFrame:
    """At each new year all stages are trained anew on all bars so far."""
    cut, newest = (t.index.get_level_values("time").max() for t in (past, bars))
    starts = pd.date_range(cut, newest, freq="YS")
    said, ends = [], [*starts[1:], newest + pd.Timedelta(days=1)]
    for start, end in zip(starts, ends, strict=True):
        if start > cut + pd.Timedelta(days=40):
            fresh = SignalPipeline(**{f: getattr(model, f) for f in model.__dataclass_fields__})
            model = fresh.fit(until(bars, start))
        rows = _asked(model, until(bars, end), until(bars, max(start, cut)))
        said.append(rows)
    return pd.concat(said).sort_index()


def measured(said: pd.DataFrame, y: pd.DataFrame) -> dict:
    """Loss and rank correlation by bar, and calibration, of the rows whose labels are known."""
    rows = said.dropna().index.intersection(y.index)
    p, side = said.loc[rows, ODDS].to_numpy("float64"), y.loc[rows, "side"].to_numpy() + 1
    table = pd.DataFrame(
        {
            "loss": -np.log(np.maximum(p[np.arange(len(p)), side], 1e-12)),
            "score": p[:, 2] - p[:, 0],
            "ret": y.loc[rows, "ret"].to_numpy(),
        },
        rows,
    )
    bars = table.groupby(level="time")
    ic = bars[["score", "ret"]].apply(lambda t: t["score"].corr(t["ret"], method="spearman"))
    gap, share = calibration_gaps(odds_sums(p, side, np.zeros(len(p), dtype=int), 1))
    return {
        "rows": len(rows),
        "time": [f"{t:%Y-%m-%d}" for t in bars["loss"].mean().index],
        "loss": bars["loss"].mean().tolist(),
        "ic": ic.where(ic.notna(), None).tolist(),
        "ece": float((np.abs(gap) * share).sum()),
    }


def interval(values: pd.Series) -> str:
    """Mean over the bars, and half of its 95 % interval: blocks of bars count as one."""
    values = values.dropna()
    blocks = values.groupby(np.arange(len(values)) // BLOCK).mean().to_numpy()
    half = student.ppf(0.975, len(blocks) - 1) * blocks.std(ddof=1) / np.sqrt(len(blocks))
    return f"{values.mean():+.4f} ± {half:.4f}"


def lines(found: dict[str, dict[str, dict]]) -> list[str]:
    """The tables: figures, and paired differences from the first and the last way."""
    out = []
    for panel, ways in found.items():
        series = {
            way: {k: pd.Series(f[k], pd.to_datetime(f["time"]), "float64") for k in ("loss", "ic")}
            for way, f in ways.items()
        }
        head = ways["frozen"]
        out += [
            f"**{panel}**: {head['rows']:,} rows, {head['time'][0]} to {head['time'][-1]}",
            "",
            "| way | log-loss | IC | ECE | log-loss less frozen's | IC less frozen's "
            "| log-loss less yearly's | IC less yearly's |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for way, f in ways.items():
            cells = [f"{np.mean(f['loss']):.4f}", interval(series[way]["ic"]), f"{f['ece']:.3f}"]
            for other in ("frozen", WAYS[-1]):
                for kind in ("loss", "ic"):
                    known = other in series and other != way
                    pair = series[way][kind] - series[other][kind] if known else None
                    cells.append("" if pair is None else interval(pair))
            out.append(f"| {way} | {' | '.join(cells)} |")
        out.append("")
    return out


def main(words: list[str]) -> None:
    """Live through the panels, and print the tables."""
    given = {"data": "../shared/data", "panels": ",".join(PANELS), "folder": "", "readme": "false"}
    given |= dict(word.partition("=")[::2] for word in words)
    folder = Path(given["folder"] or "sieve_runs/online_real")
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, dict]] = {}
    for panel in given["panels"].split(","):
        for way in WAYS:
            path = folder / f"{panel}.{way.replace(' ', '_')}.json"
            if not path.exists():
                path.write_text(json.dumps(measured(*said_by(way, panel, given["data"]))))
                print(f"{panel}: {way}", file=sys.stderr, flush=True)
            found.setdefault(panel, {})[way] = json.loads(path.read_text())
    text = "\n".join(lines(found))
    print(text)
    if given["readme"] == "true":
        begin, end = "<!-- real begins -->", "<!-- real ends -->"
        head, _, rest = README.read_text().partition(begin)
        README.write_text(f"{head}{begin}\n{text}{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    main(sys.argv[1:])
