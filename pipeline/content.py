"""What a fitted pipeline is made of on disk: JSON values and native parts, never a pickle."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from safetensors.numpy import load, save

from pipeline import recipe
from stages.base import State, fitted
from stages.ensemble.novelty import Novelty
from stages.online.learning import Pending
from stages.online.track_record import TrackRecord
from stages.roles import Roles
from stages.stack import Stack

if TYPE_CHECKING:
    from pipeline.signal_pipeline import SignalPipeline

LEARNED = ("gate_", "fidelity_", "evaluation_")  # plain JSON as they stand


def content(pipeline: "SignalPipeline") -> tuple[dict[str, Any], dict[str, bytes]]:
    """JSON values and parts of `pipeline`; same training, same bytes."""
    stack: Stack = fitted(pipeline, "stack_")
    states = {
        name: getattr(pipeline, f"{name}_").state()
        for name in ("features", "quality", "labels", "replay")
    }
    states |= {name: stage.state() for name, stage in stack}
    states["novelty"] = stack.novelty.state()  # type: ignore[union-attr]
    states["record"] = pipeline.record_.state()
    if pipeline.pending_.newest_ is not None:  # members that never learn leave nothing behind
        states["pending"] = pipeline.pending_.state()
    if pipeline.appraiser_ is not None:
        states["risk"] = pipeline.appraiser_.state()
    parts = {
        f"{owner}.{name}": part
        for owner, state in states.items()
        for name, part in state.parts.items()
    }
    parts["references.safetensors"] = _matrix(pipeline.references_)
    values = {
        "recipe": recipe.describe(pipeline),
        "labels": recipe.describe(pipeline.labels_),
        "states": {owner: dict(state.values) for owner, state in states.items()},
        "learned": {name: getattr(pipeline, name, None) for name in LEARNED},
        "roles": pipeline.roles_.table(),
        "learned_until": pipeline.learned_until_.isoformat(),
        "learned_rows": {a: t.isoformat() for a, t in sorted(pipeline.learned_rows_.items())},
        "step_seconds": pipeline.step_.total_seconds(),
        "reference_columns": list(pipeline.references_.columns),
    }
    return values, parts


def restore(pipeline: "SignalPipeline", state: State) -> None:
    """Give the unfitted `pipeline` what `content` took from a fitted one."""
    values = state.values

    def of(owner: str) -> State:
        prefix = f"{owner}."
        mine = {n[len(prefix) :]: p for n, p in state.parts.items() if n.startswith(prefix)}
        return State(values["states"][owner], mine)

    for name in LEARNED:
        setattr(pipeline, name, values["learned"][name])
    pipeline.roles_ = Roles.of(values["roles"])
    pipeline.learned_until_ = pd.Timestamp(values["learned_until"])
    pipeline.learned_rows_ = {a: pd.Timestamp(t) for a, t in values["learned_rows"].items()}
    pipeline.step_ = pd.Timedelta(seconds=values["step_seconds"])
    pipeline.labels_ = recipe.build(values["labels"]).restore(of("labels"))
    pipeline.features_ = recipe.build(recipe.describe(pipeline.features)).restore(of("features"))
    pipeline.quality_ = recipe.build(recipe.describe(pipeline.quality)).restore(of("quality"))
    pipeline.replay_ = recipe.build(recipe.describe(pipeline.replay)).restore(of("replay"))
    pipeline.pending_ = Pending(pipeline.replay)
    if "pending" in values["states"]:
        pipeline.pending_.restore(of("pending"))
    stack = Stack(pipeline.filter, pipeline.refiner, pipeline.ensemble)
    fresh = {name: recipe.build(recipe.describe(s)).restore(of(name)) for name, s in stack}
    pipeline.record_ = TrackRecord(pipeline.skill, pipeline.coverage).restore(of("record"))
    pipeline.appraiser_ = None
    if pipeline.appraiser is not None and "risk" in values["states"]:
        pipeline.appraiser_ = replace(pipeline.appraiser).restore(of("risk"))
    novelty = Novelty().restore(of("novelty"))
    pipeline.stack_ = Stack(fresh["filter"], fresh.get("refiner"), fresh["ensemble"], novelty)
    pipeline.references_ = _frame(
        state.parts["references.safetensors"], values["reference_columns"]
    )


def _matrix(references: pd.DataFrame) -> bytes:
    assets, times = (references.index.get_level_values(n) for n in ("asset", "time"))
    return bytes(
        save(
            {
                "asset": assets.astype("int64").to_numpy(),  # pseudo-assets are numbered
                "time": np.ascontiguousarray(pd.DatetimeIndex(times).as_unit("us").asi8),
                "values": np.ascontiguousarray(references.to_numpy(dtype="float32")),
            }
        )
    )


def _frame(part: bytes, columns: list[str]) -> pd.DataFrame:
    arrays = load(part)
    times = pd.DatetimeIndex(arrays["time"].view("M8[us]")).tz_localize("UTC")
    names = pd.Index([f"{i:06d}" for i in arrays["asset"]], dtype="str")
    index = pd.MultiIndex.from_arrays([names, times], names=["asset", "time"])
    return pd.DataFrame(arrays["values"], index, columns)
