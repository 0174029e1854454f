import numpy as np
import pytest
from safetensors.numpy import load, save
from sklearn.ensemble import RandomForestClassifier

from stages.base import ArtifactError
from stages.filter.members import ForestMember


def test_a_forest_whose_arrays_do_not_fit_is_refused_before_a_kernel_runs(trained):
    content = trained.members_["forest"].content
    for name, change in {
        "left": lambda a: a + 10**6,
        "roots": lambda a: -a - 1,
        "value": lambda a: a[:-1],
    }.items():
        arrays = load(content)
        arrays[name] = np.ascontiguousarray(change(arrays[name]))
        with pytest.raises(ArtifactError, match="do not fit together"):
            ForestMember.read(save(arrays), estimator=RandomForestClassifier())
    lacking = {name: array for name, array in load(content).items() if name != "right"}
    with pytest.raises(ArtifactError, match="right"):
        ForestMember.read(save(lacking), estimator=RandomForestClassifier())


def test_the_floor_of_a_forest_is_half_a_vote_or_half_a_row(trained):
    member = trained.members_["forest"]
    assert member.floor == 1 / (2 * 20)  # 20 trees, leaves of 10 rows
    z = member.logits(np.random.default_rng(0).normal(size=(500, 5)).astype("float32"))
    assert np.abs(z).max() <= np.log(1 / member.floor)
