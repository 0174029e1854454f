"""What is measured: the pipelines, one signal, all rows, and the trees against shap."""

import resource
import time
from typing import Any

import numpy as np
import pandas as pd

from experiments.benchmarks.explain.game import Game, errors, timed
from stages.explain.background import Background
from stages.explain.tree_shap import tree_shap
from stages.explain.trees import Trees
from stages.markets import mixed
from stages.panel import age

QUIET = ("data=synthetic", "features=given", "labels=given", "costs=none", "horizon=1", "delay=0")
QUIET += ("refiner.progress=false", "refiner.accelerator=cpu", "folds.n_folds=4", "folds.first=0.4")


def trained(words: tuple[str, ...]) -> tuple[Any, pd.DataFrame]:
    """The pipeline that the command line would make of `words`, fitted; and its panel."""
    from hydra import compose, initialize_config_module

    from pipeline.assemble import assemble, load_source

    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose("train", overrides=[*QUIET, *words])
    source = load_source(cfg)
    pipeline = assemble(cfg, "pipeline").fit(source.bars, source.y)
    return pipeline, pipeline.panel(source.bars)


def exactness(
    models: list[tuple[Any, pd.DataFrame]], rows: int, samples: list[int]
) -> dict[str, Any]:
    """Fast and full reasons, and KernelSHAP, against the enumeration of all coalitions.

    `rows` of each model with its panel; KernelSHAP plays the first 20 games of the first.
    """
    parts = [_exact(pipeline, panel, rows) for pipeline, panel in models]
    out: dict[str, Any] = {
        "markets": len(models),
        "rows": sum(len(part["games"]) for part in parts),
        "players": len(parts[0]["games"][0].players),
    }
    for effort in ("full", "fast"):
        mine, truth = (np.vstack([part[effort][k] for part in parts]) for k in ("mine", "truth"))
        each = [part[effort] for part in parts]
        out[effort] = errors(mine, truth) | {
            "gap": max(part["gap"] for part in each),
            "raw_gap": max(part["raw_gap"] for part in each),
            "seconds": float(np.median(np.concatenate([part["seconds"] for part in each]))),
        }
    games = parts[0]["games"][:20]
    mine, truth = (parts[0]["full"][k][: len(games)] for k in ("mine", "truth"))
    out["kernel_shap"], out["ours"] = [], errors(mine, truth)
    for n in samples:
        found = [timed(lambda g=g, n=n: g.kernel_shap(n, seed=1)) for g in games]
        off = errors(np.array([values for values, _ in found]), truth)
        took = float(np.median([s for _, s in found]))
        out["kernel_shap"].append(off | {"samples": n, "seconds": took})
        if off["relative_l1"] <= out["ours"]["relative_l1"]:
            break
    return out


def _exact(pipeline: Any, panel: pd.DataFrame, rows: int) -> dict[str, Any]:
    """Contributions and Shapley values of some rows of one model, against its references."""
    stack, explainer, L = pipeline.stack_, pipeline.explainer, pipeline.window
    background = Background.of(stack, pipeline.references_)
    chosen = spoken(stack, panel, rows)
    said = stack.predict(panel).assign(**{"filter.gate": 1.0})
    games = [Game(stack, panel, row, background, L) for row in chosen]
    values = np.stack([game.enumerated() for game in games])
    names = [name.removeprefix("feature.") for name in games[0].players]
    out: dict[str, Any] = {"games": games}
    for effort in ("full", "fast"):
        against = values if effort == "full" else values[:, :, : explainer.fast_references]
        why, seconds = [], []
        for row in chosen:
            own = said.loc[[row[0]]]
            tail = own.iloc[: own.index.get_loc(row) + 1].tail(L)
            ask = (stack, tail, tail.index[[-1]], background, effort)
            explainer.explain(*ask)
            one, took = timed(lambda ask=ask: explainer.explain(*ask))
            why.append(one)
            seconds.append(took)
        mine = [w.contributions.reindex(columns=names, fill_value=0.0) for w in why]
        out[effort] = {
            "mine": np.vstack(mine),
            "truth": against.mean(axis=2),
            "gap": float(max(w.gap.abs().max() for w in why)),
            "raw_gap": float(max(w.raw_gap.abs().max() for w in why)),
            "seconds": np.array(seconds),
        }
    return out


def kernel_at_full_width(pipeline: Any, panel: pd.DataFrame, samples: int) -> dict:
    """KernelSHAP on the default pipeline: its time, and how far two runs of it stand apart."""
    stack, explainer, L = pipeline.stack_, pipeline.explainer, pipeline.window
    background = Background.of(stack, pipeline.references_).first(explainer.fast_references)
    row = spoken(stack, panel, 1)[0]
    game = Game(stack, panel, row, background, L)
    runs = [timed(lambda s=s: game.kernel_shap(samples, seed=s)) for s in (1, 2)]
    at = pd.MultiIndex.from_tuples([row], names=panel.index.names)
    said = stack.predict(panel.loc[[row[0]]]).assign(**{"filter.gate": 1.0})
    said = said.iloc[: said.index.get_loc(row) + 1].tail(L)
    ask = (stack, said, at, background, "fast")
    explainer.explain(*ask)
    took = [timed(lambda: explainer.explain(*ask))[1] for _ in range(9)]
    (one, seconds), (other, again) = runs
    names = [name.removeprefix("feature.") for name in game.players]
    mine = explainer.explain(*ask).contributions.reindex(columns=names, fill_value=0.0)
    mean = (one + other)[None] / 2
    return {
        "players": len(game.players),
        "samples": samples,
        "seconds": (seconds + again) / 2,
        "ours": float(np.median(took)),
        "apart": errors(one[None], other[None])["relative_l1"] / np.sqrt(2),  # of one from its mean
        "ours_apart": errors(mine.to_numpy(), mean)["relative_l1"],
    }


def one_by_one(pipeline: Any, panel: pd.DataFrame, signals: int) -> dict:
    """Processor and wall milliseconds of predict and explain, one row after the other."""
    stack, explainer, L = pipeline.stack_, pipeline.explainer, pipeline.window
    background = Background.of(stack, pipeline.references_)
    out = {}
    for effort in ("fast", "full"):
        cpu, wall, predicted, gaps, closed = [], [], [], [], []
        for i, row in enumerate(spoken(stack, panel, signals + 3)):
            own = panel.loc[[row[0]]]
            tail = own.iloc[: own.index.get_loc(row) + 1].tail(L)
            tail = tail.assign(ready=np.arange(len(tail)) == len(tail) - 1)
            start = time.process_time(), time.perf_counter()
            said = stack.predict(tail)
            middle = time.process_time()
            why = explainer.explain(stack, said, tail.index[[-1]], background, effort)
            if i >= 3:  # the first ones compile
                cpu.append(time.process_time() - start[0])
                wall.append(time.perf_counter() - start[1])
                predicted.append(middle - start[0])
            gaps.append(float(why.raw_gap.abs().max()))
            closed.append(float(why.gap.abs().max()))
        out[effort] = {
            "p50": 1e3 * float(np.median(cpu)),
            "p95": 1e3 * float(np.quantile(cpu, 0.95)),
            "wall_p95": 1e3 * float(np.quantile(wall, 0.95)),
            "predict_p50": 1e3 * float(np.median(predicted)),
            "raw_gap": max(gaps),
            "gap": max(closed),
        }
    return out


def all_rows(pipeline: Any, settings: dict[str, int], halves: int = 2) -> dict:
    """Every row of many assets, fast, in as many processes as there are cores."""
    from joblib import Parallel, delayed

    began = time.perf_counter()
    jobs = [delayed(_some_rows)(pipeline, settings, half, halves) for half in range(halves)]
    parts = Parallel(n_jobs=halves)(jobs)
    out = {name: sum(part[name] for part in parts) for name in ("signals", "seconds", "wall")}
    out |= {name: max(part[name] for part in parts) for name in ("gap", "raw_gap", "memory")}
    return out | {"wall": max(p["wall"] for p in parts), "whole": time.perf_counter() - began}


def _some_rows(pipeline: Any, settings: dict[str, int], half: int, halves: int) -> dict:
    stack, explainer, L = pipeline.stack_, pipeline.explainer, pipeline.window
    background = Background.of(stack, pipeline.references_)
    size = settings | {"times": settings["times"] + L - 1}
    panel = mixed(99, **size).panel
    assets = panel.index.unique("asset")
    panel = panel[panel.index.isin(assets[half::halves], level="asset")]
    panel = panel.drop(columns="close").assign(ready=age(panel) >= L - 1)
    rows = panel.index[panel["ready"].to_numpy()]
    few = panel.loc[[rows[0][0]]]
    explainer.explain(stack, stack.predict(few), few.index[[-1]], background, "fast")  # compiled
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time(), time.perf_counter()
    why = explainer.explain(stack, stack.predict(panel), rows, background, "fast")
    return {
        "signals": len(rows),
        "seconds": time.process_time() - start[0],
        "wall": time.perf_counter() - start[1],
        "memory": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "gap": float(why.gap.abs().max()),
        "raw_gap": float(why.raw_gap.abs().max()),
    }


def trees_against_shap(rounds: int, references: int, rows: int) -> dict:
    """LightGBM of 3 classes: the same trees, references and rows for both."""
    import lightgbm
    import shap

    market = mixed(3, times=300, assets=10, features=40)
    X = market.panel.drop(columns="close").to_numpy("float32")
    y = market.y["side"].reindex(market.panel.index, fill_value=0).to_numpy() + 1
    model = lightgbm.LGBMClassifier(
        n_estimators=rounds, num_leaves=15, max_depth=6, n_jobs=1, verbosity=-1, random_state=0
    ).fit(X, y)
    r, x = X[:references], X[-rows:]
    trees = Trees.from_lightgbm(model.booster_)
    ours = tree_shap(trees, x, r)
    alone = [model_of_class(model.booster_, k) for k in range(3)]
    explainers = [shap.TreeExplainer(m, r, feature_perturbation="interventional") for m in alone]

    def theirs(some: np.ndarray) -> np.ndarray:
        return np.stack([e.shap_values(some, check_additivity=False) for e in explainers], axis=1)

    out: dict[str, float] = {"trees": float(len(trees.roots))}
    out["difference"] = float(np.abs(theirs(x) - ours.mean(axis=1)).max())
    collapsed = shap.TreeExplainer(model.booster_, r).shap_values(x[:2], check_additivity=False)
    out["collapses"] = float(np.asarray(collapsed).ndim == 2)
    for name, some in (("one", x[:1]), ("many", x)):
        pairs = [
            (timed(lambda s=some: theirs(s))[1], timed(lambda s=some: tree_shap(trees, s, r))[1])
            for _ in range(9)
        ]
        them, us = np.median(pairs, axis=0)
        out |= {f"{name}_ratio": them / us, f"{name}_ms": 1e3 * us / len(some)}
    exact = trees.outputs(x)[:, None] - trees.outputs(r)[None]
    out["additivity"] = float(np.abs(ours.sum(axis=3) - exact).max())
    return out


def model_of_class(booster: Any, k: int) -> Any:
    """The trees that a LightGBM model has for one class, as a model of their own."""
    import lightgbm

    header, *blocks = booster.model_to_string().split("\nTree=")
    last, _, rest = blocks[-1].partition("\nend of trees")
    blocks[-1] = last
    lines = [line for line in header.splitlines() if not line.startswith("tree_sizes")]
    single = {"num_class": "1", "num_tree_per_iteration": "1", "objective": "regression"}
    lines = [
        f"{n}={single[n]}" if (n := line.partition("=")[0]) in single else line for line in lines
    ]
    mine = [f"{i}\n{block.partition(chr(10))[2]}" for i, block in enumerate(blocks[k::3])]
    text = "\nTree=".join(["\n".join(lines), *mine]) + "\nend of trees" + rest
    return lightgbm.Booster(model_str=text)


def spoken(stack: Any, panel: pd.DataFrame, count: int) -> list[tuple[str, pd.Timestamp]]:
    """The newest rows that all stages speak of, over all assets."""
    newest = panel.groupby(level="asset").tail(stack.refiner.window + 80)
    said = stack.predict(newest)
    known = said.filter(like="refiner.").notna().all(axis=1).to_numpy()
    rows = said.index[known]
    return [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, count).astype(int))]
