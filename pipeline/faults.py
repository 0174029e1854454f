"""What a user is told about a fault, whoever made it: one typed error with its cure."""

import inspect
import os
import re
import secrets
import traceback
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, InstantiationException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from pipeline.nearest import nearest
from pipeline.recipe import allowed
from stages.base import ConfigError, SieveError, StoreError


def as_json(error: SieveError) -> dict[str, str | int]:
    """The fields of an error, as ``json=true`` prints them."""
    return {
        "code": error.code,
        "what": error.what,
        "where": error.where,
        "why": error.why,
        "cure": error.cure,
        "exit_code": error.exit_code,
    }


def usage(fault: BaseException) -> SieveError | None:
    """What Hydra itself says of a wrong use of its options, before any job runs."""
    if type(fault) is not ValueError:
        return None
    return ConfigError(str(fault), code="SV-F33", cure="see the options with --hydra-help")


def typed(fault: BaseException, folder: Path) -> SieveError:
    """The error a user sees for a fault: his own, a configuration's, the disk's, or ours.

    Parameters
    ----------
    fault : BaseException
    folder : Path
        Where the report of a fault of ours goes.
    """
    chain = list(causes(fault))
    for cause in chain:
        if isinstance(cause, SieveError):
            return cause
    if isinstance(fault, InstantiationException):
        return _unbuilt(fault, chain[-1], folder)
    if isinstance(fault, HydraException | OmegaConfBaseException | YAMLError):
        return _uncomposed(fault, chain)
    if type(fault).__name__ == "InvalidParameterError":  # scikit-learn checks in fit, not before
        return ConfigError(str(fault), code="SV-F33", cure="change that parameter of the member")
    if isinstance(fault, OSError) and fault.filename is not None:
        path = Path(os.fsdecode(fault.filename))
        return StoreError(
            f"{path.name}: {fault.strerror}",
            code="SV-F34",
            where=str(path),
            cure="free space, or name a place that may be read and written",
        )
    return _internal(fault, folder)


def causes(fault: BaseException | None) -> Iterator[BaseException]:
    """`fault`, what it was raised from, and so on; a circle ends where it closes."""
    seen: list[BaseException] = []
    while fault is not None and fault not in seen:
        yield fault
        seen.append(fault)
        fault = fault.__cause__


def _uncomposed(fault: BaseException, chain: Sequence[BaseException]) -> SieveError:
    """A configuration that does not compose: the full key, and the nearest right name."""
    what = " ".join(str(fault).split("\n\n")[0].split("\n"))[:400]
    inner = next((c for c in chain if isinstance(c, OmegaConfBaseException)), None)
    key = str(getattr(inner, "full_key", None) or "")
    cure = "see the keys with --cfg job, the choices with --help"
    if isinstance(fault, MissingConfigException) and fault.missing_cfg_file:
        key, _, choice = fault.missing_cfg_file.rpartition("/")
        options = list(fault.options or [])
        what = f"there is no {key or 'configuration'} named {choice!r}"
        cure = nearest(choice, options) or (f"choose one of {options}" if options else cure)
    elif isinstance(inner, MissingMandatoryValue):
        what, cure = f"{key} must be given", f"add {key}=VALUE"
    elif inner is not None and hasattr(inner, "parent_node"):
        cure = _nearest_key(inner) or cure
        if "is not in struct" in str(inner):
            what = f"there is no key {key!r}"
    return ConfigError(what, code="SV-F33", where=f"key {key}" if key else "", cure=cure)


def _nearest_key(fault: Any) -> str:
    """Best guess at the key meant: a neighbour, or the same name elsewhere in the tree."""
    node = fault.parent_node
    if node is None or fault.key is None or not hasattr(node, "keys"):
        return ""
    prefix = str(fault.full_key or fault.key).rpartition(".")[0]
    neighbours = {".".join(filter(None, [prefix, str(key)])): str(key) for key in node}
    close = get_close_matches(str(fault.key), list(neighbours.values()), n=1)
    if close:
        return next(f"did you mean {f}?" for f, key in neighbours.items() if key == close[0])
    same = [full for full in _keys(node._get_root()) if full.split(".")[-1] == str(fault.key)]
    return f"did you mean {same[0]}?" if same else ""


def _keys(node: Any, prefix: str = "") -> Iterator[str]:
    for key in node if isinstance(node, DictConfig) and not node._is_none() else ():
        full = prefix + str(key)
        yield full
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_interpolation():
            yield from _keys(child, f"{full}.")


def _unbuilt(fault: BaseException, root: BaseException, folder: Path) -> SieveError:
    """A value that its target refuses, or a fault of the target itself."""
    text = str(fault)
    target = _found(r"target '([\w.]+)'", text)
    key = _found(r"full_key: (\S+)", text)
    if not (isinstance(root, InstantiationException) or _blames_values(root, target)):
        return _internal(root, folder)
    what, cure = str(root).split("\n")[0][:400], f"change the values of {key or target}"
    if "not supported between instances of" in what:
        what = f"{key or target} holds a text where a number belongs ({what})"
    refused = _found(r"unexpected keyword argument '(\w+)'", str(root))
    if refused:
        key = ".".join(filter(None, [key, refused]))
        what = f"there is no key {key!r}: {target} does not take it"
        cure = nearest(refused, _parameters(target)) or f"take it out: ~{key}"
    return ConfigError(what, code="SV-F33", where=f"key {key}" if key else target, cure=cure)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else ""


def _blames_values(root: BaseException, target: str) -> bool:
    """Whether a target refused its values, rather than failed at its work."""
    frames = [frame.name for frame in traceback.extract_tb(root.__traceback__)]
    at_the_door = {"_call_target", "__init__", target.rpartition(".")[2]}
    refuses = "__post_init__" in frames or (frames and frames[-1] in at_the_door)
    return isinstance(root, TypeError | ValueError) and bool(refuses)


def _parameters(target: str) -> list[str]:

    try:
        return list(inspect.signature(allowed(target)).parameters)
    except (ConfigError, ValueError):  # of no help, then
        return []


def _internal(fault: BaseException, folder: Path) -> SieveError:
    """A fault of ours: the traceback goes to a file, the user gets its number."""
    report = folder / f"fault-{secrets.token_hex(4)}.txt"
    try:
        report.write_text("".join(traceback.format_exception(fault)), encoding="utf-8")
        where = str(report)
    except OSError:
        where = "no report could be written; add debug=true"
    return SieveError(
        f"internal fault: {type(fault).__name__}: {str(fault)[:200]}",
        code="SV-X500",
        where=where,
        why="this is a fault of Sieve, not of the command",
        cure="send us the report, or see the traceback with debug=true",
    )
