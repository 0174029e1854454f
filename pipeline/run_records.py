"""The record of a schedule: its newest runs, the last good one, the alerts that stand."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.account import latencies
from pipeline.files import json_bytes, write_atomic
from stages.base import StoreError

FOLDER, STATE = "schedule", "state.json"  # below the root


def read_state(root: Path) -> dict[str, Any]:
    """What the schedule of a root has done; empty where it never ran.

    Raises
    ------
    StoreError
        SV-X730 for a file that no schedule wrote.
    """
    path = root / FOLDER / STATE
    empty: dict[str, Any] = {"runs": [], "good": None, "failed": 0, "alerts": {}}
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return empty
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    if not isinstance(found, dict) or not empty.keys() <= found.keys():
        raise _damaged(path)
    return found


def write_state(root: Path, state: Mapping[str, Any]) -> None:
    """Put the record in the place of the one before, durably."""
    write_atomic(root / FOLDER / STATE, json_bytes(state))


def standing(state: Mapping[str, Any], now: pd.Timestamp) -> dict[str, Any]:
    """How a schedule does: its last good run and its age, failures, latencies, error rate.

    Parameters
    ----------
    state : mapping
        See `read_state`.
    now : Timestamp

    Returns
    -------
    dict
        JSON values; ``steps`` as `pipeline.account.latencies` gives them.
    """
    runs, good = state["runs"], state["good"]
    steps = [{s["name"]: s["seconds"] for s in run["steps"] if not s["code"]} for run in runs]
    failed = sum(not run["good"] for run in runs)
    age = (now - pd.Timestamp(good["ended"])).total_seconds() if good else None
    return {
        "runs": len(runs),
        "failed": failed,
        "error_rate": failed / len(runs) if runs else None,
        "failed_in_a_row": state["failed"],
        "last_good": good and {"at": good["ended"], "due": good["due"], "age_seconds": age},
        "last": {**runs[-1], "account": None} if runs else None,
        "account": next((r["account"] for r in reversed(runs) if r["account"]), None),
        "steps": latencies(steps),
        "alerts": sorted(state["alerts"]),
    }


def _damaged(path: Path) -> StoreError:
    return StoreError(
        f"{path.name} of the schedule cannot be read",
        code="SV-X730",
        where=str(path),
        why="what ran last, and what was told, is not known",
        cure="move it away: the schedule begins anew",
    )
