"""Learn from matured labels: ``python -m pipeline.update data=parquet data.path=bars.parquet``."""

from typing import TYPE_CHECKING

from pipeline.cli import entry

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from omegaconf import DictConfig

    from pipeline.answers import Answer
    from pipeline.data.sources import Source
    from pipeline.store.rows import Stored
    from stages.online.drift import DriftWatch
    from stages.online.learning import Learning


@entry("update")
def main(cfg: "DictConfig") -> None:
    """Load the model, let it learn, store it as a new artifact and a record; the old one stays."""
    from pipeline import updating
    from pipeline.assemble import assemble, flag, load_source
    from pipeline.report import champions, terminal
    from pipeline.succession import carry_out, plan

    promote, again = flag(cfg, "promote"), flag(cfg, "repeat")
    learning, rules = assemble(cfg, "learning"), assemble(cfg, "promotion")
    with terminal.steps(quiet=cfg.json) as step:
        watch = watching(cfg, learning)
        step("reading the data")
        source = load_source(cfg)
        terminal.say_source(source)
        y = outcomes(cfg.store, source) if cfg.store else source.y
        if again:
            step("making the updates again")
            made = {u.child: found for u, found in updating.repeat(cfg.root, source.bars, y)}
        else:
            step("looking for drift")
            answer = alarmed(cfg, source, watch, learning)
            step("learning")
            todo = plan(cfg.root, chosen(cfg), answer.learning)
            facts = terminal.machine() | {"data": source.digest}
            known, labels = (source.bars, y), "store" if cfg.store else "data"
            gates = rules if promote else None
            done = list(carry_out(cfg.root, todo, known, answer, gates, facts, labels))
    if again:
        return show_repeated(made, cfg.json)
    return champions.show_updates(done, answer, cfg.json)


def chosen(cfg: "DictConfig") -> "Path | None":
    """The folder of the model that is named, by a role or a place; None where none is."""
    from pathlib import Path

    from pipeline import artifacts, registry

    if not cfg.model:
        return None
    if cfg.model in registry.ROLES:
        return artifacts.find(cfg.root, registry.digest_at(cfg.root, str(cfg.model)))
    return Path(cfg.model)


def watching(cfg: "DictConfig", learning: "Learning | None") -> "DriftWatch | None":
    """What looks for drift, where ``drifted=watch`` asks for it; refused where it is no use."""
    from pipeline.answers import refuse_unanswerable
    from pipeline.assemble import assemble, flag

    if cfg.drifted != "watch":
        flag(cfg, "drifted")
        return None
    watch, skill = assemble(cfg, "drift"), assemble(cfg, "skill")
    refuse_unanswerable(watch.actions, learning, skill.needed)
    return watch  # type: ignore[no-any-return]


def alarmed(
    cfg: "DictConfig", source: "Source", watch: "DriftWatch | None", learning: "Learning | None"
) -> "Answer":
    """What is to be done about drift: what was told, or what the alarms on the champion ask for."""
    from pipeline.answers import Answer, answer
    from pipeline.assemble import assemble
    from pipeline.lock import lock
    from pipeline.updates import answered
    from pipeline.watching import watched

    if watch is None:
        return Answer(learning=learning, told=bool(cfg.drifted))
    with lock(cfg.root, wait=60):
        found = watched(cfg.root, source, assemble(cfg, "promotion"), watch)
    return answer(found.drift, learning, answered(cfg.root))


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
