"""From a composed configuration to objects: the only place that instantiates what yaml names."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from pipeline import artifacts
from pipeline.cli import at_end
from pipeline.data import cached
from pipeline.data.sources import Source
from pipeline.recipe import instantiate
from stages.base import ConfigError

if TYPE_CHECKING:
    from pipeline.signal_pipeline import SignalPipeline


def assemble(cfg: DictConfig, name: str) -> Any:
    """Build ``cfg.name`` and all it contains, after checking every target; None stays None.

    Raises
    ------
    ConfigError
        SV-F32 for a target that is not on the list.
    InstantiationException
        Whatever a target raised, with the key that the user can set.
    """
    if cfg[name] is None:
        return None
    try:
        return instantiate(cfg[name])
    except InstantiationException as fault:
        fault.args = (_by_source(str(fault), cfg, name),)
        raise


def _by_source(text: str, cfg: DictConfig, name: str) -> str:
    """`text` with the key of a part, such as ``pipeline.labels``, told as what it points to."""
    for part, value in OmegaConf.to_container(cfg[name], resolve=False).items():  # type: ignore[union-attr]
        if isinstance(value, str) and value.startswith("${"):
            text = text.replace(f"full_key: {name}.{part!s}", f"full_key: {value[2:-1]}")
    return text


def load_source(cfg: DictConfig) -> Source:
    """Read and check the data that ``cfg.data`` names.

    Until the command ends, what is computed of them is kept in ``cfg.cache.folder``.
    """
    if cfg.cache.folder is not None:
        token = cached.active.set(cached.FeatureCache(Path(cfg.cache.folder), cfg.cache.max_bytes))
        at_end.append(lambda: cached.active.reset(token))
    source: Source = assemble(cfg, "data")
    return source


def instant(cfg: DictConfig, name: str) -> pd.Timestamp | None:
    """The time that ``cfg.name`` gives as text, UTC unless it says otherwise; None stays None.

    Raises
    ------
    ConfigError
        SV-F33 for a text that is no time.
    """
    if cfg[name] is None:
        return None
    text = str(cfg[name])
    time = pd.to_datetime(text, errors="coerce")
    if pd.isna(time):
        raise ConfigError(
            f"{name}={text} is no date or time",
            code="SV-F33",
            where=f"key {name}",
            cure=f"{name}=2022-12-28, or {name}=2022-12-28T21:00",
        )
    return (time.tz_localize("UTC") if time.tz is None else time.tz_convert("UTC")).as_unit("us")


def flag(cfg: DictConfig, name: str) -> bool:
    """What ``cfg.name`` says, true or false; a text would count as true without a word.

    Raises
    ------
    ConfigError
        SV-F33 for anything else.
    """
    if isinstance(cfg[name], bool):
        return bool(cfg[name])
    raise ConfigError(
        f"{name}={cfg[name]} is neither true nor false",
        code="SV-F33",
        where=f"key {name}",
        cure=f"{name}=true or {name}=false",
    )


def count(cfg: DictConfig, name: str, least: int) -> int:
    """The whole number ``cfg.name``, at least `least`; ConfigError SV-F33 for anything else."""
    value = cfg[name]
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    raise ConfigError(
        f"{name}={value} is no whole number of at least {least}",
        code="SV-F33",
        where=f"key {name}",
        cure=f"{name}={max(least, 10)}",
    )


def load_model(cfg: DictConfig) -> "SignalPipeline":
    """The model at ``cfg.model``, or the champion of ``cfg.root``; verified before it is built."""
    from pipeline.signal_pipeline import SignalPipeline

    return SignalPipeline.load(model_folder(cfg))


def model_folder(cfg: DictConfig) -> Path:
    """Where ``cfg.model``, or the champion of ``cfg.root``, lies."""
    return Path(cfg.model) if cfg.model else artifacts.champion(cfg.root)
