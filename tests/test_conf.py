"""Every config composes into what it names and shows a command that works; stages keep contract.

A new yaml is tested by being there.
"""

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig, OmegaConf
from sklearn.exceptions import NotFittedError

from pipeline import recipe
from pipeline.assemble import assemble
from pipeline.signal_pipeline import SignalPipeline
from stages.panel import named, until, windows
from tests.conftest import ROOT, command, composed

CONF = ROOT / "conf"
GROUPS = sorted(p.relative_to(CONF) for p in CONF.glob("*/*.yaml") if p.parent.name != "hydra")
EXPERIMENTS = [path.stem for path in GROUPS if path.parent.name == "experiment"]
CHOICES = [path for path in GROUPS if path.parent.name not in ("experiment", "rules")]
NEEDED = {  # what a choice asks its user for
    "split/dates": ["split.train_end=2014-12-31"],
    "data/synthetic": ["data.market.times=50"],
    "data/us_large_caps": ["data.start=2021-01-01"],
    "instruments/file": ["instruments.path={}/instruments.csv"],
    "data/csv": ["data.path={}/bars.csv"],
    "data/parquet": ["data.path={}/bars.parquet"],
    "data/intraday": ["data.path={}/bars.parquet"],
    "data/quotes": ["data.path={}/ticks.parquet"],
    "data/trades": ["data.path={}/ticks.parquet", "data.bar.by=ticks", "data.bar.size=10"],
    "data/book": ["data.path={}/ticks.parquet", "data.bar.by=ticks", "data.bar.size=10"],
}
COMMAND = re.compile(r"^# (?:python -m pipeline\.(\w+)|(?=\w+=))((?: ?[+\w./]+=\S+)*)", re.M)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_market):
    """The files that some choices name."""
    path = tmp_path_factory.mktemp("files")
    bars = tiny_market.panel[["close"]].reset_index()
    bars.to_parquet(path / "bars.parquet")
    bars.to_csv(path / "bars.csv", index=False)
    book = {"price": 1.0, "size": 1.0, "volume": 1.0, "type": 4, "direction": 1}
    quote = {"bid": 1.0, "ask": 1.0, "bid_size": 1.0, "ask_size": 1.0}
    bars.assign(**book, **quote).drop(columns="close").to_parquet(path / "ticks.parquet")
    (path / "instruments.csv").write_text("asset,asset_class\nA0,etf\n")
    return path


# compose and build


@pytest.mark.parametrize(
    "name",
    [
        "config",
        "train",
        "predict",
        "update",
        "evaluate",
        "audit",
        "backtest",
        "outcomes",
        "compute",
    ],
)
def test_every_command_composes_a_pipeline(name):
    assert isinstance(assemble(composed(name), "pipeline"), SignalPipeline)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_every_choice_is_built(choice, folder, monkeypatch):
    monkeypatch.setenv("SIEVE_WEBHOOK", "http://127.0.0.1:9/")
    group, name = choice.parent.name, choice.stem
    needed = [word.format(folder) for word in NEEDED.get(f"{group}/{name}", [])]
    built = assemble(composed(config_of(group), f"{group}={name}", *needed), key_of(group))
    assert (built is None) == (name == "none" and group in ("split", "refiner", "risk"))


def config_of(group):
    """Some groups are no part of the pipeline, so not every command composes one."""
    own = {"portfolio": "rebalance", "drift": "monitor", "promotion": "monitor"}
    own["alerts"] = "schedule"
    return own.get(group, "config")


def key_of(group):
    """Costs and the memory are read by another group, which is what can be built."""
    return {"costs": "decide", "online": "pipeline"}.get(group, group)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_a_pipeline_that_can_be_stored(name):
    cfg = composed("train", f"+experiment={name}")
    pipeline = assemble(cfg, "pipeline")
    written = recipe.describe(pipeline)
    assert recipe.describe(recipe.build(written)) == written


@pytest.mark.parametrize("path", [*GROUPS, *CONF.glob("*.yaml")], ids=str)
def test_every_command_shown_composes(path):
    text = (CONF / path).read_text(encoding="utf-8")
    for name, words in COMMAND.findall(text):
        config = {"explain": "explain_signal", "": "train"}.get(name, name)
        cfg = composed(config, *words.split())
        recipe.check_targets(OmegaConf.to_container(cfg.pipeline, resolve=True))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_shows_its_command_in_its_second_line(name):
    first, second = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()[:2]
    assert first == "# @package _global_"
    assert second.startswith(f"# python -m pipeline.train +experiment={name}")


def test_one_horizon_one_seed_and_one_window_reach_everything():
    cfg = composed("config", "horizon=9", "delay=2", "seed=123", "window=17")
    pipeline = assemble(cfg, "pipeline")
    assert (pipeline.labels.horizon, pipeline.labels.delay, pipeline.folds.embargo) == (9, 2, 9)
    assert pipeline.window == pipeline.replay.window == 17
    assert (pipeline.replay.seed, pipeline.explainer.seed, pipeline.refiner.seeds) == (
        *(123, 123),
        [123],
    )
    assert {m.get_params()["random_state"] for m in pipeline.filter.members.values()} == {123}


def test_costs_are_those_of_the_group():
    pipeline = assemble(composed("config", "costs.equity=33"), "pipeline")
    assert pipeline.decide.cost(["equity"])[0] == pytest.approx(33e-4)


def test_every_class_of_an_instrument_has_its_cost_and_its_band():
    cfg = composed("predict")
    table, assets = assemble(cfg, "instruments"), assemble(cfg, "assets")
    classes = {*table.classes([*table.table, "none"]), "daily_option"}
    assert {"equity", "etf", "bond", "safe", "index"} <= classes
    assert classes <= cfg.costs.keys()
    bands = {name: assets.of(name).band for name in sorted(classes - {"index"})}
    assert bands == {
        "daily_option": (70, 95),
        "equity": (30, 80),
        "etf": (20, 70),
        "bond": (5, 40),
        "safe": (0, 20),
    }
    cost = assemble(cfg, "pipeline").decide.cost(["equity", "etf", "bond", "safe", "nonsense"])
    assert [round(10_000 * x, 6) for x in cost] == [10, 4, 4, 4, 20]


def test_every_value_has_its_place_in_a_dataclass():
    """A key that the class does not know would be refused: none of ours is dead."""
    cfg = composed("config")
    for group in ("folds", "labels", "explain", "decide", "ensemble"):
        built = assemble(cfg, group)
        assert set(cfg[group]) - {"_target_"} <= {f.name for f in fields(built)}


@pytest.mark.parametrize(
    ("words", "message", "cure"),
    [
        (["sede=1"], "no key 'sede'", "did you mean seed?"),
        (["folds.n_fold=3"], "no key 'folds.n_fold'", "did you mean folds.n_folds?"),
        (["n_folds=3"], "no key 'n_folds'", "did you mean"),
        (["refiner=lstmm"], "no refiner named 'lstmm'", "did you mean lstm?"),
        (["filter.members.xgbost.max_depth=3"], "xgbost", "did you mean filter.members.xgboost?"),
        (["labels.horizons=3"], "no key 'labels.horizons'", "did you mean labels.horizon?"),
        (["+labels.widht=3"], "no key 'labels.widht'", "did you mean width?"),
        (["horizon=0"], "need horizon >= 1", "change the values of labels"),
        (["folds.embargo=2"], "folds.embargo=2 bars is shorter", "change the values of pipeline"),
        (["experiment=quickstart"], "use +experiment=quickstart", "--cfg job"),
        (["split=dates"], "split.train_end must be given", "add split.train_end=VALUE"),
        (["filter.members.lightgbm._target_=os.system"], "not on the list", "stages or pipeline"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_word_is_named_with_the_nearest_right_one(tmp_path, words, message, cure):
    ended = command("train", f"root={tmp_path}", "data.start=2022-06-01", *words)
    assert ended.code == 2, ended.err
    said = " ".join(ended.err.split())
    assert message in said
    assert cure in said.rpartition("cure")[2]
    assert "Traceback" not in said
    assert "reading the data" not in said  # a wrong word is found before anything is read


# what every stage in conf/ owes the pipeline


SIZES = {"n_estimators": 6, "epochs": 1, "stride": 1, "progress": False, "accelerator": "cpu"}


def shrunk(cfg: DictConfig) -> DictConfig:
    """The same configuration with less to do; what it is made of stays."""
    OmegaConf.set_struct(cfg, False)
    nodes = [cfg, *(cfg.get("members") or {}).values()]
    for node in nodes:
        for name, value in SIZES.items():
            if name in node:
                node[name] = value
        if node.get("hidden"):
            node.hidden = 8
        if node.get("min_samples_leaf"):
            node.min_samples_leaf = 10
    return cfg


def stage_of(group: str, name: str):
    cfg = composed("config", f"{group}={name}", "window=6")
    shrunk(cfg[group])
    return assemble(cfg, group)


STAGES = [p for p in GROUPS if p.parent.name in ("filter", "refiner", "ensemble")]
STAGES = [(p.parent.name, p.stem) for p in STAGES if p.stem != "none"]


@pytest.fixture(scope="module")
def staged(tiny_market):
    """The panel as each stage finds it, and labels; rules beside the features."""
    panel = tiny_market.panel.copy()
    panel["rule.trend"] = np.tanh(panel["feature.x0"])
    y = tiny_market.y[tiny_market.y.index.get_level_values("time") > panel.index[20][1]]
    panels = {"filter": panel}
    panels["refiner"] = panel.assign(**stage_of("filter", "quick").fit(panel, y).predict(panel))
    refiner = stage_of("refiner", "lstm_transformer").fit(panels["refiner"], y)
    panels["ensemble"] = panels["refiner"].assign(**refiner.predict(panels["refiner"]))
    return panels, y


@pytest.fixture(scope="module", params=STAGES, ids=lambda p: f"{p[0]}={p[1]}")
def contract(request, staged):
    """A stage of conf/, fitted once, with its panel, its labels and what it says."""
    group, name = request.param
    panels, y = staged
    template = stage_of(group, name)
    stage = replace(template).fit(panels[group], y)
    return template, stage, panels[group], y, stage.predict(panels[group])


def test_predict_keeps_every_row(contract):
    _, _, panel, _, said = contract
    assert said.index.equals(panel.index)
    assert not set(said) & set(panel)


def test_predict_before_fit_is_an_error(contract):
    template, _, panel, _, _ = contract
    with pytest.raises(NotFittedError):
        replace(template).predict(panel)


def test_the_past_does_not_see_the_future(contract):
    _, stage, panel, _, said = contract
    past = until(panel, panel.index[150][1])
    pd.testing.assert_frame_equal(stage.predict(past), said.loc[past.index], check_exact=True)


def test_fit_leaves_hyperparameters_and_input_alone(contract, staged):
    template, _, panel, y, _ = contract
    before = recipe.describe(template), panel.copy(), y.copy()
    replace(template).fit(panel, y)
    assert recipe.describe(template) == before[0]
    pd.testing.assert_frame_equal(panel, before[1])
    pd.testing.assert_frame_equal(y, before[2])


def test_what_it_learnt_is_restored_to_the_bit(contract):
    template, stage, panel, _, said = contract
    state = stage.state()
    again = recipe.build(recipe.describe(template)).restore(state)
    pd.testing.assert_frame_equal(again.predict(panel), said, check_exact=True)
    assert again.state() == state


def test_the_same_seed_learns_the_same_bytes(contract):
    template, stage, panel, y, _ = contract
    assert replace(template).fit(panel, y).state() == stage.state()


def test_contributions_add_up_per_reference(contract):
    _, stage, panel, y, said = contract
    rows = y.index[[100, 400, 800]]
    columns = named(panel, "feature", "rule", "context", "filter", "refiner")
    references = windows(panel, y.index[[60, 700]], 6, columns)
    parts = stage.attribute(panel, rows, references)
    ends = panel.assign(**said)
    at, to = ends.loc[rows], ends.loc[y.index[[60, 700]]]
    for o, output in enumerate(parts.outputs):
        gap = at[output].to_numpy()[:, None] - to[output].to_numpy()
        upstream = np.zeros_like(gap)
        for u, column in enumerate(parts.upstream):
            step = at[column].to_numpy()[:, None] - to[column].to_numpy()
            upstream += parts.slopes[:, :, o, u] * step
        np.testing.assert_allclose(parts.values[:, :, o].sum(-1) + upstream, gap, atol=1e-3)


def test_the_paths_of_this_suite_are_those_of_the_package():
    import conf

    assert Path(conf.__file__).parent == CONF
