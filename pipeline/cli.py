"""What every command shares: threads, one error text, one exit code, sweeps that go on."""

import contextlib
import functools
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # these cost too much before --help
    from omegaconf import DictConfig

    from stages.base import SieveError

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
INTERRUPTED = 130
UNREAD = 141  # what a shell reports for a closed pipe

log = logging.getLogger(__name__)
at_end: list[Callable[[], None]] = []  # what is left to say when a sweep has ended, failed or not
Command = Callable[["DictConfig"], Any]


def entry(config_name: str, config_path: str = "pkg://conf") -> Callable[[Command], Callable]:
    """Make a function of a composed configuration a command with typed errors and exit codes.

    The command ends with 0, with the ``exit_code`` of a `SieveError`, with 2 for a configuration
    that does not compose, 130 if interrupted, and 1 for a fault of ours, whose traceback goes to
    a report file (and to the terminal with ``debug=true``). In a multirun a failed job leaves
    ``error.json`` in its folder, the rest of the sweep goes on, and the command ends with the
    code of the first failure.

    Parameters
    ----------
    config_name : str
        File of `config_path` to compose, without ``.yaml``.
    config_path : str
        Package or folder of the configuration.

    Returns
    -------
    callable
        Decorator. The command reads ``sys.argv``; given a configuration instead, it just runs.
    """

    def decorate(function: Command) -> Callable[..., Any]:
        failed: list[SieveError] = []

        @functools.wraps(function)  # Hydra names the job after the module
        def job(cfg: "DictConfig") -> Any:
            return _run_job(function, cfg, failed)

        @functools.wraps(function)
        def command(cfg: "DictConfig | None" = None) -> Any:
            if cfg is not None:
                return function(cfg)
            return sys.exit(_run(job, config_name, config_path, failed))

        return command

    return decorate


def command_line() -> list[str]:
    """Inside a job: the words that repeat it, be it one of a sweep."""
    from hydra.core.hydra_config import HydraConfig

    cfg = HydraConfig.get()
    folders = [s.path for s in cfg.runtime.config_sources if s.provider == "command-line"]
    own = [f"--config-dir={folder.removeprefix('file://')}" for folder in folders]
    return ["python", "-m", f"pipeline.{cfg.job.name}", *own, *cfg.overrides.task]


def _run(job: Command, config_name: str, config_path: str, failed: list["SieveError"]) -> int:
    import hydra

    failed.clear()
    at_end.clear()
    preset = {name: os.environ.get(name, "1") for name in THREADS}
    with _environment({**preset, "HYDRA_FULL_ERROR": "1"}):  # faults come to us, not to stderr
        try:
            _refuse_pickled_configuration()
            try:
                hydra.main(version_base="1.3", config_path=config_path, config_name=config_name)(
                    job
                )()
            finally:
                while at_end:
                    at_end.pop()()
            if failed:
                raise failed[0]
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            return INTERRUPTED
        except BrokenPipeError:  # the reader, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or exit complains
            return UNREAD
        except Exception as fault:  # noqa: BLE001  the edge of the program: all become exit codes
            from pipeline.faults import typed, usage

            error = usage(fault) or typed(fault, Path.cwd())
            _show(error, fault)
            return error.exit_code
    return 0


def _run_job(function: Command, cfg: "DictConfig", failed: list["SieveError"]) -> Any:
    """Run one job; what fails leaves a record in the job's folder and a typed error.

    The error of a single run is only noted: what Hydra sees raised, it comments on stderr. A
    sweep must see it raised, for its jobs may run in other processes.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    threads = (cfg.get("runtime") or {}).get("threads")
    if threads not in (None, 1):
        os.environ.update({name: str(threads) for name in THREADS})
    hydra_cfg = HydraConfig.get()
    folder = Path(hydra_cfg.runtime.output_dir)
    try:
        return function(cfg)
    except BrokenPipeError:
        raise
    except Exception as fault:
        from pipeline.faults import as_json, causes, typed

        error = typed(fault, folder)
        if error not in causes(fault):
            error.__cause__ = fault
        with contextlib.suppress(OSError):  # a full disk must not hide the first error
            (folder / "error.json").write_text(json.dumps(as_json(error), indent=2))
        if hydra_cfg.mode != RunMode.MULTIRUN:
            return failed.append(error)
        # the command ends with the first error in full, a table with one line of each
        log.error("job %s failed: %s, see %s", hydra_cfg.job.num, error.code, folder / "error.json")
        if error is fault:
            raise
        raise error  # noqa: B904  its cause is set, unless that would be a circle


def _refuse_pickled_configuration() -> None:
    if any(word.startswith("--e") for word in sys.argv[1:]):  # argparse takes abbreviations
        from stages.base import ConfigError

        raise ConfigError(
            "--experimental-rerun is not offered",
            code="SV-F32",
            why="it reads a pickle, and reading a pickle runs its code",
            cure="repeat a run with the command in its command.txt",
        )


def _show(error: "SieveError", fault: BaseException) -> None:
    if _asked("debug"):
        traceback.print_exception(fault)
    from pipeline.faults import as_json

    text = json.dumps(as_json(error)) if _asked("json") else str(error)
    sys.stderr.write(f"{text}\n")


def _asked(flag: str) -> bool:
    """Whether the command line sets `flag`; it must be known even if nothing composes."""
    return any(word.lstrip("+").lower() == f"{flag}=true" for word in sys.argv[1:])


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
