"""Features of a table larger than memory: ``python -m pipeline.compute data.path=F output=D``."""

from typing import TYPE_CHECKING, Any

from pipeline.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry("compute")
def main(cfg: "DictConfig") -> None:
    """Read Parquet some assets at a time, compute, write Parquet."""
    from omegaconf import OmegaConf

    from pipeline.assemble import assemble, count
    from pipeline.data.bulk import write_features
    from pipeline.recipe import instantiate
    from pipeline.report import terminal
    from stages.base import ConfigError
    from stages.features.build import FeatureSet

    features = assemble(cfg, "features")
    settings: Any = OmegaConf.to_container(cfg.data, resolve=True)
    if settings["_target_"] != "pipeline.data.sources.parquet":
        raise ConfigError(
            "only Parquet is read some assets at a time",
            code="SV-F33",
            where="key data",
            cure="data=parquet; write other tables as Parquet first",
        )
    if not isinstance(features, FeatureSet):
        raise ConfigError(
            "these features come with the data, and nothing is computed",
            code="SV-F33",
            where="key features",
            cure="features=default",
        )
    path = settings.pop("path")
    intake = instantiate(settings | {"_target_": "pipeline.data.intake.Intake"})
    with terminal.steps(quiet=cfg.json) as step:
        step("computing")
        chunk, workers = count(cfg, "chunk", 1), count(cfg, "workers", 1)
        written = write_features(features, path, cfg.output, intake, chunk, workers)
    said = {"rows": written.rows, "assets": written.assets, "columns": written.columns}
    if cfg.json:
        terminal.show_json(said | {"files": [str(file) for file in written.files]})
    else:
        terminal.say(
            f"{written.rows:,} rows of {written.assets:,} assets, {written.columns} columns in "
            f"{len(written.files)} files of {cfg.output}"
        )


if __name__ == "__main__":
    main()
