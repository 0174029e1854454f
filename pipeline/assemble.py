"""From a composed configuration to objects: the only place that instantiates what yaml names."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from pipeline import artifacts
from pipeline.data.sources import Source
from pipeline.recipe import check_targets

if TYPE_CHECKING:
    from pipeline.signal_pipeline import SignalPipeline


def assemble(cfg: DictConfig, name: str) -> Any:
    """Build ``cfg.name`` and all it contains, after checking every target; None stays None.

    Raises
    ------
    ConfigError
        SV-F32 for a target that is not on the list.
    """
    if cfg[name] is None:
        return None
    check_targets(OmegaConf.to_container(cfg[name], resolve=True), name)
    return instantiate(cfg[name], _convert_="all")


def load_source(cfg: DictConfig) -> Source:
    """Read and check the data that ``cfg.data`` names."""
    source: Source = assemble(cfg, "data")
    return source


def load_model(cfg: DictConfig) -> "SignalPipeline":
    """The model at ``cfg.model``, or the champion of ``cfg.root``; verified before it is built."""
    from pipeline.signal_pipeline import SignalPipeline

    folder = Path(cfg.model) if cfg.model else artifacts.champion(cfg.root)
    return SignalPipeline.load(folder)
