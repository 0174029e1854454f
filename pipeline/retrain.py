"""Train a challenger if one is due: ``python -m pipeline.retrain every=250``, from a timetable."""

from typing import TYPE_CHECKING

from pipeline.cli import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


@entry("retrain")
def main(cfg: "DictConfig") -> None:
    """Look whether a new training is due; if so train, and let the model speak in the shadow."""
    from pipeline.assemble import assemble, count, flag, load_source
    from pipeline.lock import lock
    from pipeline.report import champions, terminal
    from pipeline.retraining import due, retrain
    from pipeline.watching import watched

    every, drift, dry = count(cfg, "every", 0), flag(cfg, "on_drift"), flag(cfg, "dry_run")
    with terminal.steps(quiet=cfg.json) as step:
        rules, watch = assemble(cfg, "promotion"), assemble(cfg, "drift")
        step("reading the data")
        source = load_source(cfg)
        terminal.say_source(source)
        step("looking whether it is due")
        with lock(cfg.root, wait=60):
            found = watched(cfg.root, source, rules, watch)
        asked = due(found, every, drift, [str(word) for word in cfg.words])
        pointer = None
        if asked.due and not dry:
            step("training")
            pointer = retrain(cfg.root, asked)
    champions.show_retraining(asked, pointer, cfg.json)


if __name__ == "__main__":
    main()
