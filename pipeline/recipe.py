"""What may be built by name, and how a pipeline is written down as JSON and built again."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from importlib import import_module
from numbers import Integral, Real
from types import FunctionType, ModuleType
from typing import Any

from pipeline.nearest import nearest
from stages.base import ArtifactError, ConfigError, SieveError

HOUSES = ("stages", "pipeline")
# name a user writes -> module of the class behind it; nothing else comes from outside
_MODULES = {
    "lightgbm.LGBMClassifier": "lightgbm.sklearn",
    "lightgbm.LGBMRegressor": "lightgbm.sklearn",
    "xgboost.XGBClassifier": "xgboost.sklearn",
    "sklearn.ensemble.RandomForestClassifier": "sklearn.ensemble._forest",
    "sklearn.ensemble.ExtraTreesClassifier": "sklearn.ensemble._forest",
    "skfolio.optimization.RiskBudgeting": "skfolio.optimization.convex._risk_budgeting",
    "skfolio.optimization.MeanRisk": "skfolio.optimization.convex._mean_risk",
    "skfolio.optimization.HierarchicalRiskParity": (
        "skfolio.optimization.hierarchical._seriation._hrp"
    ),
}
LIBRARY = {name: (module, name.rpartition(".")[2]) for name, module in _MODULES.items()}
_PUBLIC = {origin: name for name, origin in LIBRARY.items()}
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def allowed(dotted: str, refusal: type[SieveError] = ConfigError) -> Any:
    """Resolve a name that a configuration gives, if what it names may be built.

    Parameters
    ----------
    dotted : str
        Where the object is defined, such as ``stages.filter.tree_filter.TreeFilter``, or one of
        `LIBRARY`.
    refusal : type of SieveError, default=ConfigError
        Raised with code SV-F32.

    Returns
    -------
    class or function
        Checked by its own module and qualified name, so that a detour through an imported module
        (``stages.panel.np.load``) is refused. Nothing outside is imported to find that out.
    """
    parts = dotted.split(".") if isinstance(dotted, str) else [""]
    if dotted in LIBRARY:
        module, _, name = dotted.rpartition(".")
        found, origin = getattr(import_module(module), name), LIBRARY[dotted]
    elif parts[0] in HOUSES and len(parts) > 2 and all(_is_public(part) for part in parts):
        found, origin = _within(parts, refusal)
    else:
        raise _refused(f"{dotted!r} is not on the list of what may be built", refusal)
    if (getattr(found, "__module__", None), getattr(found, "__qualname__", None)) != origin:
        raise _refused(f"{dotted!r} is defined elsewhere", refusal)
    if not isinstance(found, type | FunctionType):
        raise _refused(f"{dotted!r} is neither a class nor a function", refusal)
    return found


def check_targets(cfg: Any, where: str = "") -> None:
    """Refuse a composed configuration, as plain containers, that names anything not `allowed`.

    Raises
    ------
    ConfigError
        SV-F32, with the full key of the first offender.
    """
    if isinstance(cfg, Mapping):
        if "_target_" in cfg:
            try:
                allowed(cfg["_target_"])
            except ConfigError as error:
                error.where = f"key {_join(where, '_target_')}"
                raise
        for key, value in cfg.items():
            check_targets(value, _join(where, key))
    elif isinstance(cfg, Sequence) and not isinstance(cfg, str | bytes):
        for number, value in enumerate(cfg):
            check_targets(value, f"{where}[{number}]")


def instantiate(node: Any, **extra: Any) -> Any:
    """Build what a composed node names, after `check_targets`, in plain Python containers.

    Parameters
    ----------
    node : DictConfig
    **extra
        Handed to the target beside what the node holds.

    Raises
    ------
    ConfigError
        SV-F32 for a name that is not allowed.
    hydra.errors.InstantiationException
        Whatever the target raised; `pipeline.cli.entry` maps it to a typed error.
    """
    from hydra.utils import instantiate as build_node
    from omegaconf import OmegaConf

    if OmegaConf.is_config(node):
        check_targets(OmegaConf.to_container(node, resolve=True), node._get_full_key("") or "")
    else:
        check_targets(node)
    return _plain(build_node(node, _convert_="all", **extra))


def describe(thing: Any, where: str = "recipe") -> Any:
    """Write an unfitted object down as JSON values that `build` turns into its equal.

    Parameters
    ----------
    thing : dataclass, estimator of `LIBRARY`, function, partial, mapping, sequence or scalar
        Classes and functions must be `allowed`; mappings keep their order.

    Returns
    -------
    JSON value
        Objects are mappings with one key that begins with ``@``.

    Raises
    ------
    ConfigError
        SV-X320, naming the place of what cannot be written down.
    """
    if thing is None or isinstance(thing, bool | str):
        return thing
    if isinstance(thing, Integral):
        return int(thing)
    if isinstance(thing, Real):
        value = float(thing)
        return value if math.isfinite(value) else {"@float": str(value)}
    if isinstance(thing, Mapping):
        return _describe_mapping(thing, where)
    if isinstance(thing, tuple):
        return {"@tuple": describe(list(thing), where)}
    if isinstance(thing, list):
        return [describe(item, f"{where}[{number}]") for number, item in enumerate(thing)]
    return _describe_object(thing, where)


def build(recipe: Any) -> Any:
    """Build the object that `describe` wrote down, from a stored and untrusted recipe.

    Raises
    ------
    ArtifactError
        SV-F32 for a name that is not allowed: functions must come from `stages`, which computes
        and touches nothing outside. SV-F29 for a recipe that fits no object.
    """
    if isinstance(recipe, list):
        return [build(item) for item in recipe]
    if not isinstance(recipe, dict):
        return recipe
    marks = [key for key in recipe if key.startswith("@")]
    if not marks:
        return {key: build(value) for key, value in recipe.items()}
    kind = marks[0]
    if set(recipe) != _SHAPES.get(kind, {""}):
        raise _damaged(f"a recipe holds {sorted(recipe)}, which describes nothing")
    try:
        return _BUILDERS[kind](recipe)
    except (TypeError, ValueError, KeyError) as error:
        raise _damaged(f"{recipe[kind]!r} cannot be built: {error}") from error


def _plain(thing: Any) -> Any:
    """Swap Hydra's partials for plain ones: theirs check a policy at each call (65 us)."""
    if isinstance(thing, partial):
        return partial(thing.func, *map(_plain, thing.args), **_plain(thing.keywords))
    if type(thing) is dict:
        return {key: _plain(value) for key, value in thing.items()}
    if type(thing) is list:
        return [_plain(value) for value in thing]
    if is_dataclass(thing) and not isinstance(thing, type):
        for field in fields(thing):
            value = getattr(thing, field.name, None)
            if isinstance(value, partial | dict | list):
                object.__setattr__(thing, field.name, _plain(value))  # frozen ones too
            elif is_dataclass(value):
                _plain(value)
    return thing


def _describe_mapping(thing: Mapping[Any, Any], where: str) -> Any:
    plain = all(isinstance(key, str) and not key.startswith("@") for key in thing)
    if plain:
        return {key: describe(value, _join(where, key)) for key, value in thing.items()}
    pairs = [[describe(key, where), describe(value, where)] for key, value in thing.items()]
    return {"@mapping": pairs}


def _describe_object(thing: Any, where: str) -> Any:
    if isinstance(thing, partial):  # Hydra's own subclass of it becomes a plain one
        return {
            "@partial": _name(thing.func, where),
            "args": describe(list(thing.args), where),
            "settings": describe(dict(thing.keywords), where),
        }
    if isinstance(thing, type | FunctionType):
        return {"@function": _name(thing, where)}
    if is_dataclass(thing):
        settings = {f.name: getattr(thing, f.name) for f in fields(thing) if f.init}
    elif (type(thing).__module__, type(thing).__qualname__) in _PUBLIC:
        settings = thing.get_params(deep=False)
    else:
        raise _unwritable(thing, where)
    return {"@class": _name(type(thing), where), "settings": describe(settings, where)}


def _name(thing: Any, where: str) -> str:
    origin = (getattr(thing, "__module__", ""), getattr(thing, "__qualname__", ""))
    name = _PUBLIC.get(origin, ".".join(origin))
    try:
        allowed(name)
    except ConfigError as error:
        raise _unwritable(thing, where) from error
    return name


def _build_class(recipe: dict[str, Any]) -> Any:
    kind = allowed(recipe["@class"], ArtifactError)
    if recipe["@class"] not in LIBRARY and not (isinstance(kind, type) and is_dataclass(kind)):
        raise _refused(f"{recipe['@class']!r} is no dataclass", ArtifactError)
    return kind(**build(recipe["settings"]))


def _build_partial(recipe: dict[str, Any]) -> Any:
    function = _build_function({"@function": recipe["@partial"]})
    return partial(function, *build(recipe["args"]), **build(recipe["settings"]))


def _build_function(recipe: dict[str, Any]) -> Any:
    name = recipe["@function"]
    if name not in LIBRARY and not str(name).startswith("stages."):
        raise _refused(f"{name!r} does not belong to the computing layer", ArtifactError)
    return allowed(name, ArtifactError)


_SHAPES = {
    "@class": {"@class", "settings"},
    "@partial": {"@partial", "args", "settings"},
    "@function": {"@function"},
    "@tuple": {"@tuple"},
    "@mapping": {"@mapping"},
    "@float": {"@float"},
}
_BUILDERS = {
    "@class": _build_class,
    "@partial": _build_partial,
    "@function": _build_function,
    "@tuple": lambda recipe: tuple(build(recipe["@tuple"])),
    "@mapping": lambda recipe: {build(key): build(value) for key, value in recipe["@mapping"]},
    "@float": lambda recipe: _NON_FINITE[recipe["@float"]],
}


def _within(parts: list[str], refusal: type[SieveError]) -> tuple[Any, tuple[str, str]]:
    """Walk from the longest importable module to the object, never through another module."""
    module, rest = import_module(parts[0]), parts[1:]
    while rest:
        name = f"{module.__name__}.{rest[0]}"
        try:
            module, rest = import_module(name), rest[1:]
        except ModuleNotFoundError as error:
            if error.name != name:  # a missing dependency is not a wrong name
                raise
            break
    found: Any = module
    for part in rest:
        known = [name for name in dir(found) if _is_public(name)]
        found = getattr(found, part, None)
        if found is None or isinstance(found, ModuleType):
            hint = "; ".join(filter(None, ["is not defined there", nearest(part, known)]))
            raise _refused(f"{'.'.join(parts)!r} {hint}", refusal)
    return found, (module.__name__, ".".join(rest))


def _is_public(part: str) -> bool:
    return part.isidentifier() and not part.startswith("_")


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _refused(what: str, refusal: type[SieveError]) -> SieveError:
    return refusal(
        what[:200],
        code="SV-F32",
        why="a name in a configuration runs code",
        cure=f"name something defined under {' or '.join(HOUSES)}, or one of {', '.join(LIBRARY)}",
    )


def _unwritable(thing: Any, where: str) -> ConfigError:
    return ConfigError(
        f"{type(thing).__name__} {str(thing)[:60]!r} cannot be written into an artifact",
        code="SV-X320",
        where=where,
        why="an artifact holds plain values and names that may be built, never a pickle",
        cure="use numbers, text, lists, mappings, or classes and functions defined under stages",
    )


def _damaged(what: str) -> ArtifactError:
    return ArtifactError(
        what[:300],
        code="SV-F29",
        why="the recipe was written by another version, or tampered with",
        cure="take the artifact from where it was trained, or train again",
    )
