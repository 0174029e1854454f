"""Look for leaks before they cost money: ``python -m pipeline.audit check=leak``."""

from typing import TYPE_CHECKING

from pipeline.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry("audit")
def main(cfg: "DictConfig") -> None:
    """Audit a configuration or a model, certify it, show what was found; 7 if it leaks."""
    from datetime import UTC, datetime
    from pathlib import Path
    from time import perf_counter

    from hydra.core.hydra_config import HydraConfig

    from pipeline import artifacts
    from pipeline.assemble import assemble, load_source
    from pipeline.certificates import champion_of, code_digest, recipe_digest, write_certificate
    from pipeline.report import leaks, terminal
    from pipeline.signal_pipeline import SignalPipeline
    from stages.audit.certificate import Certificate
    from stages.base import ConfigError

    if cfg.check != "leak":
        raise ConfigError(
            f"check={cfg.check} is not offered",
            code="SV-F33",
            where="key check",
            cure="check=leak",
        )
    started = perf_counter()
    folders = [Path(HydraConfig.get().runtime.output_dir)]
    with terminal.steps(quiet=cfg.json) as step:
        audit, split, model = assemble(cfg, "audit"), assemble(cfg, "split"), None
        if cfg.model:
            step("loading the model")
            champion = cfg.model == "champion"
            folders.append(artifacts.champion(cfg.root) if champion else Path(cfg.model))
            model = SignalPipeline.load(folders[-1])
        pipeline = model or assemble(cfg, "pipeline")
        digest = recipe_digest(pipeline)
        if model is None:
            folders += champion_of(cfg.root, digest)
        step("reading the data")
        source = load_source(cfg)
        terminal.say_source(source)
        step("auditing")
        report = audit.run(pipeline, source.bars, source.y, split, model, tell=step)
        certificate = Certificate.of(
            report,
            audit,
            datetime.now(UTC).isoformat(timespec="seconds"),
            recipe=digest,
            data=source.digest,
            code=code_digest(),
        )
        paths = [write_certificate(folder, certificate) for folder in folders]
    seconds = perf_counter() - started
    leaks.show_leaks(report, certificate, paths[-1], seconds, source.survivors, cfg.json)
    if not report.passed:
        raise leaks.leak_error(report, paths[-1])


if __name__ == "__main__":
    main()
