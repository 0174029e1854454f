"""Inputs that say the same, and pairs that say something together."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from stages.base import DataError
from stages.explain.interactions import interactions, pair_effects
from stages.explain.redundancy import redundancy
from tests.stages.explain.made import rows_of
from tests.stages.explain.small import explained, trained


def panel_of(**columns):
    count = len(next(iter(columns.values())))
    return pd.DataFrame(columns, rows_of(count, 1)).add_prefix("feature.")


def planted(count=400, seed=0):
    rng = np.random.default_rng(seed)
    a, b, c = rng.standard_normal((3, count))
    return panel_of(
        a=a,
        exp_a=np.exp(a),
        minus_a=-a + 0.1 * c,
        b=b,
        b_too=b + 0.3 * c,
        alone=c,
        still=np.ones(count),
    )


NAMES = ["a", "b", "exp_a", "alone", "minus_a", "b_too", "still"]


# redundancy


def test_inputs_that_carry_the_same_information_are_found_whatever_their_shape():
    found = redundancy(planted(), NAMES)
    assert [set(c.inputs) for c in found.clusters] == [{"a", "exp_a", "minus_a"}, {"b", "b_too"}]
    assert found.distinct == 4
    assert found.clusters[0].least > 0.95


def test_a_cluster_has_the_share_of_all_its_inputs_and_its_largest_first():
    shares = {"a": 0.1, "exp_a": 0.3, "minus_a": 0.0, "b": 0.25, "b_too": 0.25}
    first, second = redundancy(planted(), NAMES, shares).clusters
    assert (first.inputs, first.share) == (("b", "b_too"), 0.5)
    assert second.inputs == ("exp_a", "a", "minus_a")
    assert second.share == pytest.approx(0.4)


def test_rank_correlations_are_those_of_scipy_and_clusters_stand_together():
    panel = planted()
    found = redundancy(panel, NAMES)
    moving = [name for name in NAMES if name != "still"]
    oracle = spearmanr(panel[[f"feature.{name}" for name in moving]]).statistic
    np.testing.assert_allclose(found.correlation.loc[moving, moving], oracle, atol=1e-12)
    assert found.correlation["still"].drop("still").isna().all()
    for cluster in found.clusters:
        at = sorted(found.correlation.index.get_loc(name) for name in cluster.inputs)
        assert at == list(range(at[0], at[0] + len(at)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 8), st.floats(0.1, 0.9))
def test_any_two_of_a_cluster_are_close_and_no_input_is_in_two(seed, inputs, threshold):
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((3, inputs))
    values = rng.standard_normal((60, 3)) @ mixing + 0.3 * rng.standard_normal((60, inputs))
    panel = panel_of(**{f"x{k}": values[:, k] for k in range(inputs)})
    found = redundancy(panel, [f"x{k}" for k in range(inputs)], threshold=threshold)
    seen = [name for c in found.clusters for name in c.inputs]
    assert len(seen) == len(set(seen))
    for cluster in found.clusters:
        close = found.correlation.loc[[*cluster.inputs], [*cluster.inputs]].abs()
        assert cluster.least == pytest.approx(close.min(axis=None))
        assert cluster.least >= threshold - 1e-9


def test_missing_values_cost_their_own_rows_only():
    panel = planted()
    panel.loc[panel.index[:100], "feature.a"] = np.nan
    found = redundancy(panel, NAMES)
    assert {"a", "exp_a", "minus_a"} in [set(c.inputs) for c in found.clusters]
    panel.loc[panel.index[25:], "feature.a"] = np.nan  # too few are left
    found = redundancy(panel, NAMES)
    assert {"exp_a", "minus_a"} in [set(c.inputs) for c in found.clusters]


def test_what_is_no_column_is_left_out_and_a_record_is_plain():
    found = redundancy(planted(), [*NAMES, "filter.gate"], {"a": 1.0})
    assert "filter.gate" not in found.correlation
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert (record["inputs"], record["distinct"]) == (7, 4)
    bare = redundancy(planted(), NAMES).record()
    assert bare["clusters"][0]["share"] is None
    assert redundancy(planted(), ["a"]).clusters == ()


def test_a_handful_of_rows_is_refused():
    with pytest.raises(DataError, match="29 rows do not tell"):
        redundancy(planted(29), NAMES)
    with pytest.raises(ValueError, match="threshold in"):
        redundancy(planted(), NAMES, threshold=1.0)


# interactions


def drawn(seed=0, m=40, R=7, F=4):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((m, F)), rng.standard_normal((R, F))


def around(references, margin):
    return [(row, margin) for row in references]


def test_a_sum_has_no_interactions():
    points, references = drawn()
    strength, h = pair_effects(
        around(references, lambda x: np.exp(x[:, 0]) + np.abs(x[:, 1]) - 3 * x[:, 2]),
        points,
        [(0, 1), (0, 2), (1, 2), (2, 3)],
    )
    assert strength.max() < 1e-12
    assert h.max() < 1e-12
    _, still = pair_effects(around(references, lambda x: 0 * x[:, 0]), points, [(0, 1)])
    assert np.isnan(still[0])


def test_a_product_has_the_strength_that_its_formula_says():
    points, references = drawn()
    [one, other], _ = pair_effects(
        around(references, lambda x: x[:, 0] + 2 * x[:, 1] * x[:, 2]), points, [(1, 2), (0, 1)]
    )
    # 2 (u - mean of the references)(v - mean of the references), centred over the points
    u, v = (points[:, k] - references[:, k].mean() for k in (1, 2))
    pure = 2 * (u * v - (u * v).mean())
    assert one == pytest.approx(np.sqrt((pure**2).mean()))
    assert other == pytest.approx(0, abs=1e-12)


def test_h_is_that_of_its_definition_by_brute_force():
    points, references = drawn(3, m=12, R=5)

    def margin(x):
        return np.tanh(x[:, 0] * x[:, 1]) + np.sign(x[:, 3]) * x[:, 2] + x[:, 0] ** 2

    def dependence(columns):
        out = []
        for point in points:
            rows = references.copy()
            rows[:, columns] = point[columns]
            out.append(margin(rows).mean())
        return np.array(out) - np.mean(out)

    pairs = [(0, 1), (2, 3), (0, 2)]
    strength, h = pair_effects(around(references, margin), points, pairs)
    for i, (j, k) in enumerate(pairs):
        pure = dependence([j, k]) - dependence([j]) - dependence([k])
        assert strength[i] == pytest.approx(np.sqrt((pure**2).mean()))
        assert h[i] ** 2 == pytest.approx((pure**2).sum() / (dependence([j, k]) ** 2).sum())


def test_the_pair_that_a_planted_market_turns_comes_first():
    stack, panel = trained()
    rows, why, references = explained()
    names = ["x0", "x2", "x3", "x5", "filter.gate"]
    found = interactions(stack, panel, rows[:16], references, names)
    assert len(found.table) == 6
    assert set(found.table.loc[0, ["first", "second"]]) == {"x2", "x3"}
    assert found.table["h"][0] > 0.5
    weak = found.table[(found.table["first"] == "x5") | (found.table["second"] == "x5")]
    assert weak["strength"].max() < found.table["strength"][0] / 3
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert record["points"] == 16
    assert len(record["pairs"]) == 6


def test_a_row_that_lacks_an_input_is_left_out_and_none_left_is_refused():
    stack, panel = trained()
    rows, _, references = explained()
    holes = panel.copy()
    holes.loc[rows[:4], "feature.x2"] = np.nan
    found = interactions(stack, holes, rows[:6], references, ["x2", "x3"])
    assert found.points == 2
    with pytest.raises(DataError, match="2 inputs at 0 rows"):
        interactions(stack, holes, rows[:4], references, ["x2", "x3"])
    with pytest.raises(DataError, match="1 inputs at 4 rows"):
        interactions(stack, panel, rows[:4], references, ["x2", "nothing"])
