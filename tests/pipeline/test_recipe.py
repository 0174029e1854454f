import json
import math
import subprocess
import sys
from dataclasses import dataclass
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightgbm import LGBMClassifier
from omegaconf import OmegaConf
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from xgboost import XGBClassifier

from pipeline.recipe import LIBRARY, allowed, build, check_targets, describe, instantiate
from stages.base import ArtifactError, ConfigError, State
from stages.folds import PurgedWalkForward
from stages.panel import inputs_of, until

POISON = [
    "os.system",
    "logging.os.system",
    "pdb.Pdb._getval",
    "builtins.eval",
    "subprocess.run",
    "stages.panel.np.load",
    "stages.panel.pd.read_pickle",
    "stages.panel.pd",
    "stages.panel",
    "stages.base._rebuild",
    "stages.base.State.__init__",
    "stages.signal.SIDES",
    "stages.base.Mapping",
    "pipeline.recipe.import_module",
    "pipeline.tracking.subprocess.run",
    "lightgbm.LGBMRanker",
    "lightgbm.sklearn.LGBMClassifier",
    "sklearn.ensemble.StackingClassifier",
    "hydra.utils.get_method",
    "functools.partial",
    "stages",
    "stages..folds",
    "antigravity",
    "",
    None,
    7,
]


@dataclass
class Outsider:
    size: int = 1


def through_json(thing):
    return build(json.loads(json.dumps(describe(thing), allow_nan=False)))


@pytest.mark.parametrize(
    "dotted", [*LIBRARY, "stages.folds.PurgedWalkForward", "stages.panel.until"]
)
def test_what_is_listed_or_ours_resolves(dotted):
    assert allowed(dotted).__name__ == dotted.rpartition(".")[2]


@pytest.mark.parametrize("dotted", POISON)
def test_anything_else_is_refused(dotted):
    with pytest.raises(ConfigError) as refused:
        allowed(dotted)
    assert refused.value.code == "SV-F32"


def test_a_refused_name_is_not_even_imported():
    code = (
        "from pipeline.recipe import allowed\n"
        "from stages.base import ConfigError\n"
        "import sys\n"
        "for name in ('antigravity.geohash', 'this.s', 'lightgbm.nope', 'smtplib.SMTP'):\n"
        "    try: allowed(name)\n"
        "    except ConfigError: pass\n"
        "assert not {'antigravity', 'this', 'lightgbm', 'smtplib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_misspelt_name_gets_a_hint():
    with pytest.raises(ConfigError, match="did you mean PurgedWalkForward"):
        allowed("stages.folds.PurgedWalkForwards")


def test_the_first_target_that_is_not_allowed_is_named_by_its_full_key():
    cfg = {
        "filter": {
            "members": [
                {"_target_": "lightgbm.LGBMClassifier"},
                {"model": {"_target_": "os.system", "_args_": ["true"]}},
            ]
        }
    }
    with pytest.raises(ConfigError, match="os.system") as refused:
        check_targets(cfg)
    assert refused.value.where == "key filter.members[1].model._target_"
    assert check_targets({"a": [1, "b", {"c": None}]}) is None


def test_a_target_hidden_behind_an_interpolation_is_found():
    cfg = OmegaConf.create({"a": "os.getcwd", "b": {"c": {"_target_": "${a}"}}})
    with pytest.raises(ConfigError) as refused:
        instantiate(cfg.b)
    assert refused.value.where == "key b.c._target_"


def test_instantiated_partials_are_plain_ones_everywhere():
    node = {
        "_target_": "stages.base.State",
        "values": {
            "alone": {"_target_": "stages.panel.until", "_partial_": True, "time": 3},
            "listed": [{"_target_": "stages.panel.inputs_of", "_partial_": True}],
        },
    }
    state = instantiate(node)
    functions = [state.values["alone"], *state.values["listed"]]
    assert [type(function) for function in functions] == [partial, partial]
    assert functions[0].func is until
    assert functions[0].keywords == {"time": 3}


def test_instantiate_takes_what_yaml_cannot_hold():
    node = OmegaConf.create({"_target_": "stages.base.State"})
    assert instantiate(node, parts={"a": b"b"}) == State({}, {"a": b"b"})


@pytest.mark.parametrize(
    "thing",
    [
        None,
        True,
        3,
        0.1,
        -math.inf,
        "text",
        [1, [2.5, "x"]],
        (1, (2, "x")),
        {"z": 1, "a": {"m": [True]}},
        {-1: "sell", 1: "buy"},
        {"@class": "not ours"},
        PurgedWalkForward(n_folds=3, embargo=0),
        {"folds": (PurgedWalkForward(),)},
        until,
        PurgedWalkForward,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_written_down_is_built_again(thing):
    again = through_json(thing)
    assert again == thing
    assert type(again) is type(thing)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
        max_leaves=10,
    )
)
def test_any_plain_value_survives(thing):
    assert through_json(thing) == thing


def test_the_order_of_members_survives():
    assert list(through_json({"xgboost": 1, "forest": 2, "a": 3})) == ["xgboost", "forest", "a"]


@pytest.mark.parametrize(
    "model",
    [
        LGBMClassifier(n_estimators=7, random_state=3, deterministic=True),
        XGBClassifier(n_estimators=7, subsample=0.5),
        RandomForestClassifier(7, max_samples=0.5),
        ExtraTreesClassifier(7, n_jobs=1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_an_estimator_keeps_its_parameters(model):
    again = through_json({"model": model})["model"]
    assert type(again) is type(model)
    assert str(again.get_params()) == str(model.get_params())  # as text: NaN is not equal to NaN


def test_a_partial_keeps_function_and_settings():
    again = through_json(partial(inputs_of, until, function=(1, 2)))
    assert (again.func, again.args, again.keywords) == (inputs_of, (until,), {"function": (1, 2)})


@pytest.mark.parametrize(
    "thing",
    [lambda close: close, Outsider(), print, object(), b"bytes", {"a": {1, 2}}],
    ids=lambda value: type(value).__name__,
)
def test_what_an_artifact_cannot_hold_is_refused_when_written(thing):
    with pytest.raises(ConfigError, match="cannot be written") as refused:
        describe({"x": [thing]})
    assert refused.value.where.startswith("recipe.x[0]")


@pytest.mark.parametrize("dotted", POISON)
@pytest.mark.parametrize("kind", ["@class", "@partial", "@function"])
def test_a_poisoned_recipe_builds_nothing(kind, dotted):
    rest = {"@class": {"settings": {}}, "@partial": {"args": [], "settings": {}}, "@function": {}}
    with pytest.raises(ArtifactError):
        build([{"ok": {kind: dotted, **rest[kind]}}])


@pytest.mark.parametrize(
    "recipe",
    [
        {"@class": "stages.folds.PurgedWalkForward"},
        {"@class": "stages.folds.PurgedWalkForward", "settings": {}, "more": 1},
        {"@class": "stages.folds.PurgedWalkForward", "settings": {"n_flods": 3}},
        {"@class": "stages.folds.PurgedWalkForward", "settings": {"n_folds": 0}},
        {"@class": "stages.folds.PurgedWalkForward", "settings": [1]},
        {"@class": "stages.panel.until", "settings": {}},
        {"@class": "stages.base.DataError", "settings": {}},
        {"@function": "pipeline.artifacts.promote"},
        {"@function": ["stages.panel.until"]},
        {"@partial": "stages.panel.until", "args": 3, "settings": {}},
        {"@float": "1e999"},
        {"@mapping": [[[], 1]]},
        {"@tuple": 3},
        {"@nothing": 3},
        {"_target_": "os.system", "@": 1},
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_recipe_of_another_shape_is_a_damaged_artifact(recipe):
    with pytest.raises(ArtifactError):
        build(recipe)


def test_a_target_key_in_a_recipe_is_a_plain_key():
    recipe = {"_target_": "os.system", "_args_": ["true"]}
    assert build(recipe) == recipe
