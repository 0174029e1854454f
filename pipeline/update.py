"""Learn from matured labels: ``python -m pipeline.update data=parquet data.path=bars.parquet``."""

from typing import TYPE_CHECKING

from pipeline.cli import entry

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

    from pipeline.data.sources import Source
    from pipeline.store.rows import Stored


@entry("update")
def main(cfg: "DictConfig") -> None:
    """Load the model, let it learn, store it as a new artifact and a record; the old one stays."""
    from pipeline import updating
    from pipeline.assemble import assemble, flag, load_model, load_source, model_folder
    from pipeline.report import terminal

    champion, drifted, repeat = (flag(cfg, name) for name in ("promote", "drifted", "repeat"))
    learning = assemble(cfg, "learning")
    with terminal.steps(quiet=cfg.json) as step:
        step("reading the data")
        source = load_source(cfg)
        terminal.say_source(source)
        y = outcomes(cfg.store, source) if cfg.store else source.y
        if repeat:
            step("making the updates again")
            made = {u.child: found for u, found in updating.repeat(cfg.root, source.bars, y)}
        else:
            step("loading the model")
            old, pipeline = model_folder(cfg), load_model(cfg)
            step("learning")
            labels = "store" if cfg.store else "data"
            update = updating.step(pipeline, source.bars, y, learning, drifted, labels)
            step("storing")
            facts = terminal.machine() | {"data": source.digest}
            model = updating.store(cfg.root, pipeline, update, old, facts, champion)
    if repeat:
        return show_repeated(made, cfg.json)
    counts = {name: update.counts[name] for name in ("learned", "known", "incomplete")}
    if cfg.json:
        more = {"parent": update.parent, "lessons": update.counts["lessons"]}
        return terminal.show_json({"model": str(model), **more, **counts})
    return terminal.show_update(counts, model, update.parent)


def outcomes(url: str, source: "Source") -> "pd.DataFrame":
    """Labels from the outcomes of all signals of a store."""
    from pipeline.matured import from_outcomes
    from pipeline.store.signal_store import SignalStore

    found: list[Stored] = []
    with SignalStore(url) as store:
        while some := store.follow(found[-1].id if found else 0):
            found += some
    return from_outcomes(found, source.bars)


def show_repeated(made: dict[str, str], as_json: bool) -> None:
    """How many updates gave the same model again; StoreError SV-X542 if one did not."""
    from pipeline.report import terminal
    from stages.base import StoreError

    others = {child: found for child, found in made.items() if child != found}
    if as_json:
        terminal.show_json({"updates": made})
    else:
        same = len(made) - len(others)
        terminal.say(f"{len(made)} updates made again, {same} gave the same model")
    for child, found in others.items():
        raise StoreError(
            f"the update to {child[:16]} now gives {found[:16]}",
            code="SV-X542",
            where=f"{len(others)} of {len(made)} updates",
            why="code, libraries or processor differ from those of the update",
            cure="compare code and libraries in updates/updates.jsonl with those here",
        )


if __name__ == "__main__":
    main()
