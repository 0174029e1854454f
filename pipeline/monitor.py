"""Look after the models of a root: ``python -m pipeline.monitor data=parquet data.path=PATH``."""

from typing import TYPE_CHECKING

from pipeline.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry("monitor")
def main(cfg: "DictConfig") -> None:
    """Let the models speak of new bars, show how they fare; with ``act=true`` do what is due."""
    from pathlib import Path

    from pipeline.assemble import assemble, flag, load_source
    from pipeline.lock import lock
    from pipeline.mirror import Mirror
    from pipeline.promotions import act
    from pipeline.report import champions, terminal
    from pipeline.watching import watched

    acting, reasons = flag(cfg, "act"), flag(cfg, "reasons")
    with terminal.steps(quiet=cfg.json) as step, lock(cfg.root, wait=60):
        rules, watch = assemble(cfg, "promotion"), assemble(cfg, "drift")
        step("reading the data")
        source = load_source(cfg)
        terminal.say_source(source)
        step("letting the models speak")
        found = watched(cfg.root, source, rules, watch, reasons)
        changed = act(cfg.root, found.standing, found.bar) if acting else None
        if changed is not None and isinstance(tracker := assemble(cfg, "tracking"), Mirror):
            tracker.send(cfg.root)
        if cfg.report:
            from pipeline.report.monitor_page import write_monitor_page
            from pipeline.updates import read

            step("writing the page")
            about = terminal.about(source)
            write_monitor_page(Path(cfg.report), found, rules, about, read(cfg.root))
    if cfg.json:
        terminal.show_json(found.record() | {"changed": changed is not None})
        return
    champions.show_watched(found)
    if changed is not None:
        champions.show_change(changed)


if __name__ == "__main__":
    main()
