"""Signals as bars come: ``python -m pipeline.stream data=parquet data.path=bars.parquet``."""

from typing import TYPE_CHECKING, Any

from pipeline.cli import entry

if TYPE_CHECKING:
    from threading import Event

    from omegaconf import DictConfig

    from pipeline.store.signal_store import SignalStore
    from pipeline.store.stream import StreamStore
    from pipeline.streaming.messages import Source
    from pipeline.streaming.model import Model
    from pipeline.streaming.publish import Output
    from pipeline.streaming.sift import Sift


@entry("stream")
def main(cfg: "DictConfig") -> None:
    """Take bars to the store until told to end, until the file ends, or what was set aside."""
    from pipeline.assemble import assemble, count, flag
    from pipeline.report import terminal
    from pipeline.store.rows import micros
    from pipeline.store.signal_store import DAY, SignalStore
    from pipeline.store.stream import StreamStore
    from pipeline.store.stream_health import stream_health
    from pipeline.streaming.redis_link import Stopped
    from pipeline.streaming.worker import Worker

    again, pace, sift = flag(cfg, "again"), assemble(cfg, "pace"), sift_of(cfg.data)
    with SignalStore(cfg.store) as store:
        model = _model(cfg, sift)
        source = _source(cfg)
        kept = StreamStore(
            store, source.name, terminal.config_digest(cfg), cfg.strategy, outbox=bool(cfg.output)
        )
        taken = _again(kept) if again else source
        told = _ended_by_signals(taken.stop)
        output = _output(cfg, store, taken.stop)
        if cfg.bars_days is not None:
            before = micros(store.clock()) - count(cfg, "bars_days", least=1) * DAY
            kept.forget(before, model.depth)
        past = None if again or not cfg.past else assemble(cfg, "data").bars
        worker = Worker(taken, sift, model, kept, output, pace, past=past, again=again)
        terminal.say(f"{source.name}: model {model.pipeline.digest[:12]}, store {cfg.store}")
        try:
            worker.run()
        except Stopped:
            terminal.say("told to end while Redis did not answer")
        found = stream_health(store)["sources"].get(source.name, {})
        if cfg.json:
            terminal.show_json(found)
        else:
            whole = {k: v for k, v in found.items() if isinstance(v, int) and v}
            terminal.say(", ".join(f"{name} {value:,}" for name, value in whole.items()) or "empty")
    if told:
        raise SystemExit(128 + told[0])


def sift_of(data: "DictConfig") -> "Sift":
    """The row rules for messages, by the settings of a choice of ``conf/data``.

    Raises
    ------
    ConfigError
        SV-F33 for a source that makes more of its rows than bars.
    """
    from dataclasses import fields

    from omegaconf import OmegaConf

    from pipeline.data.intake import Intake
    from pipeline.recipe import instantiate
    from pipeline.streaming.sift import Sift
    from stages.base import ConfigError

    values: dict[str, Any] = dict(OmegaConf.to_container(data, resolve=True))  # type: ignore[arg-type]
    kind = str(values.get("_target_", "")).rpartition(".")[2]
    if kind not in ("csv", "parquet", "us_large_caps", "us_index", "frame", "synthetic"):
        raise ConfigError(
            f"messages cannot be made into the bars of {kind or 'this source'}",
            code="SV-F33",
            where="key data",
            why="it makes longer bars, or bars of ticks, from a file",
            cure="data=csv or data=parquet, and messages that are bars",
        )
    known = {f.name for f in fields(Intake)} - {"start", "end", "quarantine", "on_bad"}
    kept = {name: value for name, value in values.items() if name in known}
    if kind == "synthetic":
        kept = {}
    sift: Sift = instantiate(OmegaConf.create({"_target_": f"{Sift.__module__}.Sift", **kept}))
    return sift


def _model(cfg: "DictConfig", sift: "Sift") -> "Model":
    from pipeline.assemble import assemble, flag, load_model
    from pipeline.streaming.model import Model

    explain, appraise = flag(cfg, "explain_rows"), flag(cfg, "appraise")
    pipeline, emission = load_model(cfg), assemble(cfg, "emit")
    return Model(pipeline, sift.finished, sift.market, explain, appraise, emission)


def _source(cfg: "DictConfig") -> "Source":
    from omegaconf import OmegaConf

    from pipeline.assemble import assemble
    from pipeline.streaming.replay import Rows

    if cfg.file is None:
        source: Source = assemble(cfg, "redis")
        return source
    data: dict[str, Any] = dict(OmegaConf.to_container(cfg.data, resolve=True))  # type: ignore[arg-type]
    return Rows(cfg.file, data.get("columns"), data.get("dialect"))


def _again(kept: "StreamStore") -> "Source":
    from pipeline.streaming.replay import Again

    return Again(kept)


def _output(cfg: "DictConfig", store: "SignalStore", stop: "Event") -> "Output | None":
    from pipeline.streaming.publish import FileOutput, RedisOutput

    if cfg.output is None:
        return None
    if str(cfg.output).endswith(".jsonl"):
        return FileOutput(cfg.output)
    return RedisOutput(cfg.redis.url, cfg.output, store, cfg.redis.wait, stop, cfg.keep)


def _ended_by_signals(stop: "Event") -> list[int]:
    """Let SIGTERM and SIGINT end the loop after the step that runs; the list holds which came."""
    import signal

    told: list[int] = []

    def tell(number: int, _: object) -> None:
        told.append(number)
        stop.set()
        signal.signal(number, signal.SIG_DFL)  # a second one ends it at once

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, tell)
    return told


if __name__ == "__main__":
    main()
