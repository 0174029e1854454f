"""A command that succeeds or fails as its configuration asks; test_cli runs it."""

import os
import sys
from pathlib import Path

from pipeline.cli import command_line, entry

CONF = str(Path(__file__).parent / "cli_conf")
HEAVY = {"numpy", "pandas", "sklearn", "torch", "lightgbm", "xgboost", "stages.base"}


@entry("app", config_path=CONF)
def main(cfg):
    early = sorted(HEAVY & set(sys.modules))
    from pipeline.recipe import instantiate
    from stages.base import ArtifactError, DataError

    model = instantiate(cfg.model)
    if cfg.fail == "data":
        raise DataError("two closes for A", code="SV-F02", where="a.csv", why="w", cure="drop one")
    if cfg.fail == "artifact":
        raise ArtifactError("damaged", code="SV-F29")
    if cfg.fail == "ours":
        raise ZeroDivisionError("of ours")
    if cfg.fail == "interrupt":
        raise KeyboardInterrupt
    if cfg.fail == "missing":
        Path(cfg.path)
    if cfg.fail == "typo":
        Path(cfg.paht)
    if cfg.fail == "disk":
        Path(cfg.root, "absent", "file").write_text("x")
    threads = os.environ["OMP_NUM_THREADS"]
    sys.stdout.write(f"early {early} threads {threads} folds {model.n_folds}\n")
    sys.stdout.write(f"repeat {' '.join(command_line())}\n")
    return model


if __name__ == "__main__":
    main()
