"""What a run gives reason to tell people: failures, old data, low quality, drift, slowness."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pipeline.alerts import Alert, Alerts, above, below

KINDS = ("failed", "stale", "quality", "drift", "latency")  # alerts that a run is looked at for
USUAL = 20  # runs before it that a run is compared with
FEWEST = 5  # of these


def found_wrong(
    run: Mapping[str, Any], before: Sequence[Mapping[str, Any]], alerts: Alerts, drift: str = ""
) -> list[Alert]:
    """What a run gives reason to tell.

    Parameters
    ----------
    run : mapping
        As the state holds it.
    before : sequence of mapping
        Runs before it, the newest last.
    alerts : Alerts
        For its limits.
    drift : str
        What the monitor says is due; empty for nothing.
    """
    limits, out = alerts.limits, []
    for step in run["steps"]:
        if step["code"]:
            out.append(Alert("failed", step["name"], step["error"][:300], {"code": step["code"]}))
    seconds = sum(step["seconds"] for step in run["steps"])
    if above(seconds, limits.run_seconds):
        out.append(
            Alert("latency", "run", f"it took {seconds:.0f} s, {limits.run_seconds:g} asked")
        )
    if drift:
        out.append(Alert("drift", "champion", drift))
    return out + _of_account(run, before, alerts)


def _of_account(
    run: Mapping[str, Any], before: Sequence[Mapping[str, Any]], alerts: Alerts
) -> list[Alert]:
    """What the figures of its signals give reason to tell."""
    limits, account, out = alerts.limits, run["account"], []
    if account is None:
        return []
    newest = account["newest"]
    expected = run["expected"]
    if expected and newest and pd.Timestamp(newest) < pd.Timestamp(expected):
        out.append(Alert("stale", "data", f"the newest bar is of {newest}, due was {expected}"))
    quality, past = account["quality"], [r["account"]["quality"] for r in before if r["account"]]
    known = [value for value in past if value is not None]
    usual = float(pd.Series(known[-USUAL:]).median()) if len(known) >= FEWEST else None
    if below(quality, limits.quality):
        out.append(Alert("quality", "signals", f"mean quality {quality:.0f} of 100"))
    elif usual is not None and limits.drop is not None and below(quality, usual - limits.drop):
        out.append(Alert("quality", "signals", f"mean quality {quality:.0f}, it was {usual:.0f}"))
    if below(account["valid"], limits.valid):
        out.append(Alert("quality", "checks", f"only {account['valid']:.0%} pass their checks"))
    if above(account["abstained"], limits.abstained):
        out.append(Alert("quality", "abstentions", f"{account['abstained']:.0%} abstain"))
    return out


def drift_of(said: str) -> str:
    """What the monitor, as ``json=true`` prints it, says is due; empty if nothing, or not asked."""
    if not said:
        return ""
    try:
        drift = json.loads(said)["drift"]
        action, count = drift["action"], drift["count"]
    except (ValueError, KeyError, TypeError):
        return "what the monitor said cannot be read"
    return "" if action == "nothing" else f"{action}: {count} alarms"
