from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier
from sklearn.ensemble import RandomForestClassifier

from pipeline.assemble import assemble
from stages.base import DataError
from stages.ensemble.decide import Decide
from stages.ensemble.soft_vote import SoftVote
from stages.ensemble.stacker import BayesianStacker
from stages.explain.background import Background
from stages.explain.explainer import MEASURED, UNIT, Explainer, compared
from stages.explain.families import by_family, families
from stages.filter.tree_filter import TreeFilter
from stages.folds import PurgedWalkForward
from stages.markets import mixed, tabular
from stages.panel import age, asset_starts, check_panel, last_rows, named
from stages.refiner.lstm import Lstm
from stages.refiner.refiner import SequenceRefiner
from stages.stack import Stack, pass_forward
from tests.conftest import composed

WINDOW = 6
TAIL = 40
EXPLAINER = Explainer(n_references=8, tail=TAIL, seed=1, reasons="full")


def fitted(market, ensemble=None, refiner=True) -> tuple[Stack, pd.DataFrame]:
    """A stack with a gate that shuts on many rows, and the panel with all its columns."""
    boosted = LGBMClassifier(n_estimators=25, num_leaves=7, n_jobs=1, verbosity=-1)
    forest = RandomForestClassifier(15, max_depth=5, min_samples_leaf=10, random_state=0)
    net = partial(Lstm, hidden=16, dropout=0.1)
    lstm = SequenceRefiner(
        {"lstm": net}, window=WINDOW, epochs=4, batch=64, learning_rate=0.01, accelerator="cpu"
    )
    template = Stack(
        TreeFilter({"lightgbm": boosted, "forest": forest}, recall=0.5),
        lstm if refiner else None,
        ensemble or BayesianStacker(interactions=("context.regime",)),
    )
    panel = market.panel.drop(columns="close")
    panel["context.liquidity"] = panel["feature.x0"].shift(3).fillna(0)
    panel["ready"] = age(panel) >= 2
    y = market.y[panel["ready"].loc[market.y.index].to_numpy()]
    stack = pass_forward(template, panel, y, PurgedWalkForward(4, 0.4, 1), Decide()).stack
    return stack, stack.predict(panel)


@pytest.fixture(scope="module")
def market():
    return mixed(2, times=320, assets=4, features=6, snr=2)


@pytest.fixture(scope="module")
def trained(market):
    return fitted(market)


@pytest.fixture(scope="module")
def references(trained):
    stack, panel = trained
    return EXPLAINER.choose(stack, panel, WINDOW)


@pytest.fixture(scope="module")
def rows(trained):
    """Refined rows, rows the gate stopped, and rows too young for a window, all mixed up."""
    _, panel = trained
    refined = panel["refiner.lstm.z_buy"].notna()
    young = panel["ready"] & (age(panel) < WINDOW - 1)
    shut = panel["ready"] & (panel["filter.gate"] == 0)
    kinds = [panel.index[kind.to_numpy()] for kind in (refined, young, shut)]
    assert min(map(len, kinds)) >= 10
    rng = np.random.default_rng(0)
    chosen = [kind[rng.choice(len(kind), min(len(kind), 20), replace=False)] for kind in kinds]
    some = chosen[0].append(chosen[1]).append(chosen[2]).unique()
    return some[rng.permutation(len(some))]


@pytest.fixture(scope="module")
def why(trained, references, rows):
    stack, panel = trained
    return EXPLAINER.explain(stack, panel, rows, references)


# what is explained


def test_baseline_and_contributions_are_the_margin_of_every_row(why, trained, rows):
    _, panel = trained
    assert why.unit == UNIT
    assert why.contributions.index.equals(rows)
    np.testing.assert_array_equal(why.output, panel.loc[rows, "margin"])
    total = why.baseline + why.contributions.sum(axis=1)
    np.testing.assert_allclose(total, panel.loc[rows, "margin"], atol=1e-9, rtol=0)
    assert why.gap.abs().max() <= 1e-9
    assert (panel.loc[rows, "filter.gate"] == 0).sum() >= 10


def test_little_is_left_for_closure_to_spread(why):
    assert why.raw_gap.abs().max() <= 1e-3


def test_the_split_by_stage_has_the_same_total(why, trained, rows):
    _, panel = trained
    np.testing.assert_allclose(
        why.by_stage.sum(axis=1), why.output - why.baseline, atol=1e-9, rtol=0
    )
    assert set(why.by_stage) == {"context", "filter.lightgbm", "filter.forest", "refiner.lstm"}
    silent = panel.loc[rows, "refiner.lstm.z_buy"].isna().to_numpy()
    assert (why.by_stage.loc[silent, "refiner.lstm"] == 0).all()
    assert (why.by_stage.loc[~silent, "refiner.lstm"] != 0).all()


def test_raw_features_go_by_their_plain_names(why):
    names = [*(f"x{k}" for k in range(6)), "context.regime", "context.liquidity"]
    assert sorted(why.contributions) == sorted(names)
    assert "filter.gate" not in why.contributions  # like is compared with like


def test_rows_are_compared_with_references_that_went_as_far(why, trained, references, rows):
    """Stopped rows have imputed logits; so have their references, and hence another baseline."""
    stack, panel = trained
    opened = references.assign(**stack.filter.predict(references))
    opened["filter.gate"] = 1.0
    opened = opened.assign(**stack.refiner.predict(opened))
    spoken = panel.loc[rows, "refiner.lstm.z_buy"].notna()
    for kind, table in {
        True: opened,
        False: opened.assign(**dict.fromkeys(named(opened, "refiner"), np.nan)),
    }.items():
        margin = last_rows(table.assign(**stack.ensemble.predict(table)))["margin"].mean()
        np.testing.assert_allclose(why.baseline[spoken == kind], margin, atol=1e-12)
    assert why.baseline.nunique() == 2


def test_neither_company_nor_chunks_change_a_bit(why, trained, references, rows):
    stack, panel = trained
    small = replace(EXPLAINER, chunk=7).explain(stack, panel, rows, references)
    silent = panel.loc[rows, "refiner.lstm.z_buy"].isna().to_numpy()
    lone = [rows[[n]] for n in (*np.flatnonzero(silent)[:4], *np.flatnonzero(~silent)[:4])]
    for again in (small, *(EXPLAINER.explain(stack, panel, row, references) for row in lone)):
        at = again.output.index
        for part in ("contributions", "by_stage"):
            whole, some = getattr(why, part).loc[at], getattr(again, part)
            pd.testing.assert_frame_equal(some, whole[list(some)], check_exact=True)
            assert (whole.drop(columns=list(some)) == 0).all(axis=None)
        for part in ("baseline", "output", "raw_gap"):
            np.testing.assert_array_equal(getattr(again, part), getattr(why, part).loc[at])


def test_the_past_explains_the_same_without_the_future(why, trained, references, rows):
    stack, panel = trained
    times = panel.index.get_level_values("time")
    past = panel[times <= times.unique()[200]].drop(columns=named(panel, "filter", "refiner"))
    past = stack.predict(past)
    known = rows[rows.get_level_values("time") <= times.unique()[200]]
    again = EXPLAINER.explain(stack, past, known, references)
    pd.testing.assert_frame_equal(
        again.contributions[list(why.contributions)], why.contributions.loc[known], check_exact=True
    )


def test_a_restored_stack_explains_with_the_same_bits(why, trained, references, rows):
    stack, panel = trained
    parts = {name: replace(stage).restore(stage.state()) for name, stage in stack}
    again = EXPLAINER.explain(Stack(**parts), panel, rows, references)
    pd.testing.assert_frame_equal(again.contributions, why.contributions, check_exact=True)


@pytest.mark.parametrize("ensemble", ["stacker", "vote"])
@pytest.mark.parametrize("refiner", [True, False])
def test_every_stack_is_explained_in_full(market, ensemble, refiner):
    weights = {"lightgbm": 1, "forest": 2} | ({"lstm": 1} if refiner else {})
    third = SoftVote(weights) if ensemble == "vote" else BayesianStacker(context=False)
    stack, panel = fitted(market, third, refiner)
    window = WINDOW if refiner else 1
    refs = EXPLAINER.choose(stack, panel, window)
    rows = panel.index[panel["ready"].to_numpy()][::40]
    why = EXPLAINER.explain(stack, panel, rows, refs)
    assert why.gap.abs().max() <= 1e-9
    assert why.raw_gap.abs().max() <= (1e-3 if refiner else 1e-9)
    assert "context.regime" not in why.contributions
    assert ("refiner.lstm" in why.by_stage) == refiner


def test_what_no_stage_spoke_of_is_not_explained_by_zeros(trained, references):
    stack, panel = trained
    unready = panel.index[~panel["ready"].to_numpy()][:2]
    rows = unready.append(panel.index[[-1]])
    why = EXPLAINER.explain(stack, panel, rows, references)
    assert why.contributions.loc[unready].isna().all(axis=None)
    assert why.gap.loc[unready].isna().all()
    assert abs(why.gap.iloc[-1]) <= 1e-9


# what it costs


def test_fast_reasons_compare_with_the_first_references_and_say_so(trained, references, rows):
    stack, panel = trained
    fast = EXPLAINER.explain(stack, panel, rows, references, "fast")
    few = references.iloc[: EXPLAINER.fast_references * WINDOW]
    same = replace(EXPLAINER, nodes=EXPLAINER.fast_nodes).explain(stack, panel, rows, few)
    assert (fast.effort, same.effort) == ("fast", "full")
    np.testing.assert_array_equal(fast.baseline, same.baseline)
    np.testing.assert_allclose(
        fast.contributions, same.contributions[list(fast.contributions)], atol=2e-3
    )
    assert fast.gap.abs().max() <= 1e-9
    assert fast.raw_gap.abs().max() <= 1e-3
    again = replace(EXPLAINER, reasons="fast").explain(stack, panel, rows, references)
    pd.testing.assert_frame_equal(again.contributions, fast.contributions, check_exact=True)


def test_a_background_is_asked_once_and_explains_with_the_same_bits(why, trained, references, rows):
    stack, panel = trained
    background = Background.of(stack, references)
    for _ in range(2):
        again = EXPLAINER.explain(stack, panel, rows, background)
        pd.testing.assert_frame_equal(again.contributions, why.contributions, check_exact=True)
        np.testing.assert_array_equal(again.baseline, why.baseline)


def test_a_stage_3_that_learnt_is_explained_as_it_is_now(market, trained, references):
    stack, panel = trained
    stack = replace(stack, ensemble=replace(stack.ensemble).restore(stack.ensemble.state()))
    background = Background.of(stack, references)
    newest = market.y.groupby(level="asset").tail(30)
    before = EXPLAINER.explain(stack, panel, panel.index[[-1]], background)
    stack.ensemble.update(panel, newest)
    panel = panel.assign(**stack.ensemble.predict(panel))
    after = EXPLAINER.explain(stack, panel, panel.index[[-1]], background)
    assert after.baseline.iloc[0] != before.baseline.iloc[0]
    assert after.gap.abs().max() <= 1e-9
    assert after.raw_gap.abs().max() <= 1e-3


def test_how_close_fast_comes_to_full_is_measured(trained, references, market):
    stack, panel = trained
    bare = panel.drop(columns=[*named(panel, "filter", "refiner"), "margin"])
    said = EXPLAINER.measure(stack, bare, references, WINDOW)
    assert said == EXPLAINER.measure(stack, bare, Background.of(stack, references), WINDOW)
    assert said["rows"] == MEASURED
    assert 0.9 < said["correlation"] < 1
    assert 0 < said["relative_l1"] < 0.5
    assert said["top_1"] > 0.6
    full = replace(EXPLAINER, fast_references=8, fast_nodes=EXPLAINER.nodes)
    exact = full.measure(stack, bare, references, WINDOW)
    assert exact["correlation"] > 0.9999
    assert exact["top_1"] == 1


def test_agreement_is_that_of_the_textbook():
    rng = np.random.default_rng(0)
    fast, full = rng.normal(size=(2, 9, 4))
    said = compared(fast, full)
    assert said["correlation"] == pytest.approx(np.corrcoef(fast.ravel(), full.ravel())[0, 1])
    assert said["relative_l1"] == pytest.approx(np.abs(fast - full).sum() / np.abs(full).sum())
    nothing = compared(np.zeros((3, 4)), np.zeros((3, 4)))
    assert nothing == {"rows": 3.0, "correlation": 1.0, "relative_l1": 0.0, "top_1": 1.0}


# when it happened


def test_the_parts_of_all_bars_sum_to_the_contributions(why, trained, references, rows):
    stack, panel = trained
    every = replace(EXPLAINER, lags=10_000).explain(stack, panel, rows, references)
    sums = every.lags.groupby([every.lags.index, "feature"], observed=True)["contribution"].sum()
    for row in (rows[0], rows[len(rows) // 2], rows[-1]):
        for name, value in why.contributions.loc[row].items():
            assert sums.get((row, name), 0.0) == pytest.approx(value, abs=1e-9)
    spoken = panel.loc[rows, "refiner.lstm.z_buy"].notna()
    last = every.lags["lag"].groupby(every.lags.index).max().loc[rows]
    np.testing.assert_array_equal(last > 0, spoken)  # only the net looks back
    assert last.max() == WINDOW - 1


def test_only_the_largest_bars_are_told_largest_first(trained, references, rows):
    stack, panel = trained
    every, some = (
        replace(EXPLAINER, lags=k).explain(stack, panel, rows, references).lags for k in (10_000, 6)
    )
    assert some.index.unique().equals(rows)
    assert (some.groupby(some.index).size() <= 6).all()
    row = rows[3]
    pd.testing.assert_frame_equal(some.loc[[row]], every.loc[[row]].head(6))
    assert (some["contribution"].abs().groupby(some.index).diff().dropna() <= 0).all()
    assert replace(EXPLAINER, lags=0).explain(stack, panel, rows[:2], references).lags is None


def test_contexts_and_trees_speak_of_the_row_itself(trained, references, rows):
    stack, panel = trained
    lags = EXPLAINER.explain(stack, panel, rows, references).lags
    contexts = lags["feature"].astype(str).str.startswith("context.")
    assert contexts.any()
    assert (lags["lag"][contexts] == 0).all()


# by family


def test_families_are_the_modules_that_made_the_columns():
    cfg = composed("train")
    features = assemble(cfg, "features")
    found = families(
        ["return_5", "feature.volatility_20", "rsi_14", "context.regime", "rule.x", "mine"],
        features,
    )
    assert found["return_5"] == "returns"
    assert found["feature.volatility_20"] == "volatility"
    assert found["rsi_14"] == "oscillators"
    assert found["context.regime"] == "context"
    assert found["rule.x"] == "rules"
    assert found["mine"] == "given"
    rule = next(iter(features.rules))
    assert families([f"rule.{rule}"], features)[f"rule.{rule}"].startswith("rules.")


def test_reasons_by_family_add_up_to_the_same(why):
    kinds = {name: "even" if name in ("x0", "x2", "x4") else "odd" for name in why.contributions}
    kinds |= {name: "context" for name in kinds if name.startswith("context.")}
    del kinds["x5"]
    table = by_family(why, kinds)
    assert set(table) == {"even", "odd", "context", "x5"}
    np.testing.assert_allclose(table["even"], why.contributions[["x0", "x2", "x4"]].sum(axis=1))
    np.testing.assert_allclose(table.sum(axis=1), why.output - why.baseline, atol=1e-9)


# what it finds


@pytest.fixture(scope="module")
def planted():
    """A market whose last bar tells, and what a stack fitted on it says of its newest rows."""
    market = tabular(5, times=400, assets=5, snr=2)
    stack, panel = fitted(market)
    refs = EXPLAINER.choose(stack, panel, WINDOW)
    newest = panel.groupby(level="asset").tail(40).index
    return market, panel, EXPLAINER.explain(stack, panel, newest, refs).contributions


def test_planted_features_rank_first_and_noise_last(planted):
    """`x0` to `x3` move this market, `x4` to `x7` do not."""
    _, panel, pushes = planted
    push = pushes.abs().mean().sort_values(ascending=False)
    assert set(push.index[:2]) == {"x0", "x1"}  # the linear terms
    assert set(push.index[2:4]) == {"x2", "x3"}  # one turns the other
    assert push[["x4", "x5", "x6", "x7"]].sum() / push.sum() < 0.15
    for name, sign in {"x0": 1, "x1": -1}.items():
        moved = sign * panel.loc[pushes.index, f"feature.{name}"]
        assert np.corrcoef(pushes[name], moved)[0, 1] > 0.9


def test_reasons_are_the_ones_that_were_planted(planted):
    """Against the exact Shapley values of the tilt, row by row and column by column."""
    market, _, told = planted
    due = market.contributions.loc[told.index].rename(columns=lambda c: c.removeprefix("feature."))
    told = told.reindex(columns=due.columns, fill_value=0.0)
    assert np.corrcoef(told.to_numpy().ravel(), due.to_numpy().ravel())[0, 1] > 0.7
    first = told.abs().to_numpy().argmax(axis=1) == due.abs().to_numpy().argmax(axis=1)
    assert first.mean() > 0.45  # an eighth by chance


# the references


def test_references_are_whole_windows_of_inputs(references, trained):
    stack, panel = trained
    assert check_panel(references) is references
    starts = asset_starts(references)
    assert 1 < len(starts) - 1 <= EXPLAINER.n_references
    assert (np.diff(starts) == WINDOW).all()
    assert list(references) == named(panel, "feature", "rule", "context")


def origins(references: pd.DataFrame, panel: pd.DataFrame) -> list[tuple[str, pd.Timestamp]]:
    """Where each reference was taken from: rows with the same values at the same time."""
    columns = named(panel, "feature")
    found = []
    for (_, time), values in last_rows(references)[columns].iterrows():
        at = panel.xs(time, level="time")[columns]
        found.append((at.index[(at == values).all(axis=1)][0], time))
    return found


def test_references_are_evaluable_rows_of_the_tail(trained):
    stack, panel = trained
    odd = pd.Series(age(panel) % 2 == 1, panel.index)
    panel = panel.assign(ready=odd)
    references = EXPLAINER.choose(stack, panel, WINDOW)
    for asset, time in origins(references, panel):
        own = panel.loc[asset]
        assert own["ready"][time]
        assert own.index.get_loc(time) >= len(own) - TAIL
    assert len({asset for asset, _ in origins(references, panel)}) > 1


def test_what_came_before_the_tail_and_its_windows_chooses_nothing(references, trained):
    stack, panel = trained
    left = panel.groupby(level="asset").cumcount(ascending=False)
    old = (left >= TAIL + WINDOW - 1).to_numpy()
    spoilt = panel.copy()
    inputs = named(panel, "feature", "rule", "context")
    spoilt.loc[old, inputs] = np.float32(99)
    again = EXPLAINER.choose(stack, spoilt, WINDOW)
    pd.testing.assert_frame_equal(again, references, check_exact=True)


def test_one_seed_chooses_one_set(references, trained):
    stack, panel = trained
    again = EXPLAINER.choose(stack, panel, WINDOW)
    pd.testing.assert_frame_equal(again, references, check_exact=True)
    few = replace(EXPLAINER, candidates=30)
    one, two = (few.choose(stack, panel, WINDOW) for _ in range(2))
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    other = replace(few, seed=9).choose(stack, panel, WINDOW)
    assert not other.equals(one)


def test_there_are_no_more_references_than_different_rows(trained):
    stack, panel = trained
    flat = panel.copy()
    flat[named(panel, "feature", "context")] = np.float32(0.5)
    many = Explainer(n_references=5, tail=9).choose(stack, flat, WINDOW)
    assert len(last_rows(many)) == 1
    short = panel.groupby(level="asset").tail(WINDOW + 1)
    all_there_are = Explainer(n_references=99).choose(stack, short, WINDOW)
    assert len(last_rows(all_there_are)) == 2 * panel.index.unique("asset").size


def test_a_tail_without_an_evaluable_row_is_refused(trained):
    stack, panel = trained
    newest = panel.groupby(level="asset").cumcount(ascending=False) < TAIL
    with pytest.raises(DataError, match=f"last {TAIL} bars") as refused:
        EXPLAINER.choose(stack, panel.assign(ready=~newest), WINDOW)
    assert refused.value.code == "SV-F18"
    longer = replace(EXPLAINER, tail=TAIL + 1)  # what the cure says
    assert len(longer.choose(stack, panel.assign(ready=~newest), WINDOW))


@pytest.mark.parametrize(
    "effort", [{"nodes": 3}, {"fast_nodes": 0.0}, {"reasons": "slow"}, {"lags": -1}]
)
def test_an_effort_that_cannot_be_is_refused(effort):
    with pytest.raises(ValueError, match="=|reasons"):
        Explainer(**effort)


@pytest.mark.parametrize(
    "name", ["n_references", "fast_references", "tail", "candidates", "top", "chunk"]
)
def test_a_setting_below_one_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}=0"):
        Explainer(**{name: 0})
