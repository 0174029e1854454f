"""Posted bars pass the same checks as bars of a file: by the settings of the data."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from pipeline.data.intake import Intake
from pipeline.data.sources import Source
from pipeline.recipe import instantiate
from stages.base import ConfigError

TABLES = ("csv", "parquet", "us_large_caps", "us_index", "frame")  # rows as they are posted
PLANTED = "synthetic"  # its rows need no mapping
PLACES = ("start", "end", "assets", "quarantine", "on_bad", "survivors")  # of a file, not of a post


def reader(data: DictConfig) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """A function from a posted table to checked bars.

    Parameters
    ----------
    data : DictConfig
        A choice of ``conf/data``: its columns, zone, calendar, delay, market and limits hold for
        what is posted too. A bad row refuses the request.

    Raises
    ------
    ConfigError
        SV-F33 for a source that makes more of its rows than bars.
    """
    values = dict(OmegaConf.to_container(data, resolve=True))  # type: ignore[arg-type]
    kind = str(values.get("_target_", "")).rpartition(".")[2]
    if kind == PLANTED:
        values = {}
    elif kind not in TABLES:
        raise ConfigError(
            f"posted bars cannot be made into those of {kind or 'this source'}",
            code="SV-F33",
            where="key data",
            why="it makes longer bars, or bars of ticks, from a file",
            cure=f"data=csv, or another of {', '.join(TABLES)}; or predict from files",
        )
    known = {f.name for f in fields(Intake)} - set(PLACES)
    kept = {name: value for name, value in values.items() if name in known}
    target = {"_target_": "pipeline.data.sources.frame", "_partial_": True}
    frame: Callable[..., Source] = instantiate(OmegaConf.create({**target, **kept}))

    def read(table: pd.DataFrame) -> pd.DataFrame:
        return frame(table).bars

    return read


def settings_of(cfg: DictConfig, digest: Callable[[Any], str]) -> Callable[[str | None, bool], str]:
    """Digest of the settings of a prediction, by `as_of` and whether it is explained.

    Parameters
    ----------
    cfg : DictConfig
    digest : callable
        Of a configuration.
    """
    base = {"data": OmegaConf.to_container(cfg.data, resolve=True)}
    plain = {
        explain: digest(OmegaConf.create({**base, "as_of": None, "explain_rows": explain}))
        for explain in (True, False)
    }

    def config(as_of: str | None, explain: bool) -> str:
        if as_of is None:
            return plain[explain]
        return digest(OmegaConf.create({**base, "as_of": as_of, "explain_rows": explain}))

    return config
