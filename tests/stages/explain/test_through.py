"""Reasons by stage and input: both sums are those of the explanation."""

import numpy as np
import pytest

from stages.explain.background import Background
from stages.explain.explainer import Explainer
from stages.explain.through import through_stages
from stages.panel import stretch
from tests.stages.explain.small import WINDOW, trained


@pytest.fixture(scope="module", params=["fast", "full"])
def made(request):
    stack, panel = trained()
    explainer = Explainer(n_references=6, fast_references=3, tail=80, chunk=16)
    references = Background.of(stack, explainer.choose(stack, panel, WINDOW))
    at = np.flatnonzero(panel["ready"].to_numpy() & (panel.groupby("asset").cumcount() > WINDOW))
    rows = panel.index[np.random.default_rng(0).permutation(at)[:40]]  # in any order
    why = explainer.explain(stack, panel, rows, references, request.param)
    windows = stretch(panel, rows, WINDOW)
    return why, through_stages(explainer, stack, windows, why, references)


def test_each_stage_sums_to_what_the_explanation_says_of_it(made):
    why, parts = made
    for stage, table in parts.items():
        members = [name for name in why.by_stage if name.split(".")[0] == stage]
        total = why.by_stage[members].sum(axis=1)
        np.testing.assert_allclose(table.sum(axis=1), total, atol=1e-9)
        assert table.index.equals(why.output.index)
    assert set(parts) == {"filter", "refiner", "context"}


def test_the_stages_of_an_input_sum_to_its_contribution_but_for_closure(made):
    why, parts = made
    whole = sum(parts.values())
    # both spread the same gap, the one inside stages and the other over all
    slack = 4 * why.raw_gap.abs().to_numpy() + 1e-9
    off = np.abs(whole.to_numpy() - why.contributions.to_numpy()).sum(axis=1)
    assert (off <= slack).all()


def test_a_stage_credits_only_what_it_reads(made):
    _, parts = made
    assert (parts["context"]["x2"] == 0).all()
    assert (parts["context"]["context.liquidity"] != 0).any()
    assert (parts["filter"]["context.liquidity"] == 0).all()
    assert (parts["refiner"]["rule.free"] == 0).all()
    for stage in ("filter", "refiner"):
        assert (parts[stage]["x2"] != 0).any()
