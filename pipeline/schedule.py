"""Predict after every session: ``python -m pipeline.schedule data=parquet data.path=PATH …``."""

from typing import TYPE_CHECKING

from pipeline.cli import entry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from omegaconf import DictConfig

    from pipeline.due import Times
    from pipeline.scheduled import Runner, Step


@entry("schedule")
def main(cfg: "DictConfig") -> None:
    """Run the steps when they are due until told to end; or once; or say how they did."""
    from pathlib import Path

    from pipeline.assemble import flag
    from pipeline.lock import lock
    from pipeline.report import terminal
    from pipeline.report.timetable import show_standing
    from pipeline.run_records import FOLDER, read_state, standing
    from pipeline.store.signal_store import utc_now
    from stages.base import SieveError

    root, once = Path(cfg.root), flag(cfg, "once")
    if flag(cfg, "status"):
        found = standing(read_state(root), utc_now())
        return terminal.show_json(found) if cfg.json else show_standing(found)
    with lock(root / FOLDER):
        runner = _runner(cfg)
        try:
            if once:
                due = runner.plan.times.last(utc_now())
                if not runner.run(due):
                    failed = runner.state["runs"][-1]["steps"][-1]
                    kinds = {kind.exit_code: kind for kind in SieveError.__subclasses__()}
                    raise kinds.get(failed["code"], SieveError)(  # ends with the code of the step
                        f"{failed['name']} failed with {failed['code']}: {failed['error']}",
                        code="SV-X731",
                        where=str(root / FOLDER),
                        cure="run that command by itself",
                    )
            else:
                _until_ended(runner)
        finally:
            runner.alerts.close()
    return None


def _until_ended(runner: "Runner") -> None:
    """Let APScheduler wake the runner, and once at the start for what was missed meanwhile."""
    import signal
    from datetime import UTC
    from typing import NoReturn

    from apscheduler.schedulers.blocking import BlockingScheduler

    from pipeline.report import terminal
    from pipeline.waking import wake

    def end(*_: object) -> NoReturn:
        raise SystemExit(TERMINATED)

    scheduler = BlockingScheduler(timezone=UTC)
    wake(scheduler, runner)
    signal.signal(signal.SIGTERM, end)
    names = ", ".join(step.name for step in runner.plan.steps)
    terminal.say(f"{names}: next {runner.plan.times.next(runner.clock()):%Y-%m-%d %H:%M:%S} UTC")
    try:
        scheduler.start()
    finally:
        runner.stop()
        if scheduler.running:
            scheduler.shutdown(wait=True)


def _runner(cfg: "DictConfig") -> "Runner":
    """What the configuration asks for; refused here where it could never run."""
    from pathlib import Path

    from pipeline.assemble import assemble, count
    from pipeline.due import length_of
    from pipeline.scheduled import Plan, Runner
    from pipeline.store.signal_store import utc_now
    from stages.base import ConfigError

    if not cfg.once:
        try:
            import apscheduler  # noqa: F401
        except ModuleNotFoundError as error:
            raise ConfigError(
                "the package apscheduler is not installed, and a schedule was asked for",
                code="SV-X710",
                cure="pip install 'sieve-signals[schedule]', or once=true, from cron or systemd",
            ) from error
    wait = None if cfg.every else length_of(cfg.after, "after", least=0)
    plan = Plan(
        Path(cfg.root),
        _steps(cfg),
        _times(cfg),
        float(count(cfg, "limit", 1)),
        wait,
        _accounts(cfg),
    )
    return Runner(plan, assemble(cfg, "alerts"), utc_now)


def _steps(cfg: "DictConfig") -> "list[Step]":
    """The commands, each with the settings of this one that it shares, and its own words."""
    from hydra.core.hydra_config import HydraConfig

    from pipeline.scheduled import Step
    from stages.base import ConfigError

    steps = [str(name) for name in cfg.steps]
    unknown = [name for name in (*steps, *cfg.words) if name not in STEPS]
    if unknown or not steps:
        raise ConfigError(
            f"{unknown[0]} is no step" if unknown else "there is no step",
            code="SV-F33",
            where="keys steps and words",
            cure=f"steps=[predict,outcomes], of {', '.join(STEPS)}",
        )
    given = [w for w in HydraConfig.get().overrides.task if not _is_own(w)]
    folders = [s.path for s in HydraConfig.get().runtime.config_sources if s.provider == COMMAND]
    own = [f"--config-dir={folder.removeprefix('file://')}" for folder in folders]
    out = []
    for name in steps:
        words = [*own, *given, *STEPS[name]]
        if name in STORING:
            words.append(f"store='{cfg.store}'")
        out.append(Step(name, [*words, *(str(word) for word in cfg.words.get(name, []))]))
    return out


TERMINATED = 143  # what a shell reports for an end by SIGTERM
COMMAND = "command-line"
# commands that may be steps, with the words that a schedule gives them
STEPS: "dict[str, tuple[str, ...]]" = {
    "predict": (),
    "outcomes": (),
    "update": (),
    "monitor": ("json=true",),
    "retrain": (),
}
STORING = ("predict", "outcomes")
OWN = ("steps", "words", "calendars", "after", "every", "limit", "once", "status", "store")


def _is_own(word: str) -> bool:
    """Whether a word of the command line concerns the schedule alone."""
    key = word.lstrip("+~").partition("=")[0].partition(".")[0].partition("@")[0]
    return key in (*OWN, "alerts", "json", "hydra", "hydra/job_logging", "hydra/hydra_logging")


def _times(cfg: "DictConfig") -> "Times":
    from pipeline.due import Closes, Every, length_of

    if cfg.every:
        return Every(str(cfg.every))
    delay = length_of(str(cfg.data.get("delay") or "0min"), "data.delay", least=0)
    return Closes(_calendars(cfg), delay + length_of(str(cfg.after), "after", least=0))


def _calendars(cfg: "DictConfig") -> list[str]:
    """Calendars that are named, or those of the data; of its instruments where each has its own."""
    from pipeline.assemble import assemble
    from pipeline.sessions import calendars_of

    if cfg.calendars is not None:
        return [str(name) for name in cfg.calendars]
    instruments = assemble(cfg, "instruments")
    assets = cfg.data.get("assets") or [*instruments.table, ""]  # "": what is not in the table
    known = calendars_of(cfg.data.get("calendar"), instruments, [str(a) for a in assets])
    return sorted(set(known.values()))


def _accounts(cfg: "DictConfig") -> "Callable[[], list[Mapping[str, Any]]]":
    """New accounts of runs in the store, each time it is asked; none before there is a store."""
    from pipeline.store.signal_store import SignalStore

    seen = 0

    def accounts() -> "list[Mapping[str, Any]]":
        nonlocal seen
        out: list[Mapping[str, Any]] = []
        with SignalStore(cfg.store) as store:
            while some := store.events(after=seen, kind="run"):
                out += [event.details for event in some]
                seen = some[-1].id
        return out

    return accounts


if __name__ == "__main__":
    main()
