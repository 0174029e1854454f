import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn import metrics

from stages.base import DataError
from stages.evaluate import comparison, evaluate, forward_return, paired, reliability
from stages.markets import mixed, noise_iid, tabular

ODDS = ["p_sell", "p_hold", "p_buy"]
FAST = {"resamples": 200}


def predictions(market, odds=None) -> pd.DataFrame:
    """What the true odds, or others, say about every labelled row."""
    odds = market.posterior if odds is None else odds
    ret = forward_return(market.panel, 1, 0)
    return odds.assign(label=market.y["side"], forward_return=ret)


def sharpened(odds: pd.DataFrame, power: float) -> pd.DataFrame:
    """Odds made too sure of themselves."""
    return (odds**power).div((odds**power).sum(axis=1), axis=0)


def values(table: dict) -> dict:
    return {name: parts["value"] for name, parts in table.items()}


@pytest.fixture(scope="module")
def market():
    return mixed(1, times=1000, assets=20)


@pytest.fixture(scope="module")
def best(market):
    return evaluate(predictions(market), truth=market.posterior, **FAST)


def test_the_metrics_of_the_odds_are_those_of_scikit_learn(market, best):
    rows = predictions(market).dropna()
    p, label = rows[ODDS].to_numpy(), rows["label"].to_numpy(int)
    said = p.argmax(axis=1) - 1
    moved = label != 0
    shares = pd.Series(label).value_counts(normalize=True)
    expected = {
        "accuracy": metrics.accuracy_score(label, said),
        "balanced_accuracy": metrics.balanced_accuracy_score(label, said),
        "mcc": metrics.matthews_corrcoef(label, said),
        "log_loss": metrics.log_loss(label, p),
        "brier": ((p - np.eye(3)[label + 1]) ** 2).sum(axis=1).mean(),
        "direction": (np.sign(p[:, 2] - p[:, 0])[moved] == label[moved]).mean(),
        "base_rate": shares.max(),
        "base_log_loss": -(shares * np.log(shares)).sum(),
        "share_sell": shares[-1],
        "share_hold": shares[0],
        "share_buy": shares[1],
    }
    assert {name: best[name]["value"] for name in expected} == pytest.approx(expected, rel=1e-12)


def test_the_metrics_of_the_score_are_those_of_pandas_and_scipy(market, best):
    rows = predictions(market).dropna()
    rows["score"] = rows["p_buy"] - rows["p_sell"]
    bars = rows.groupby(level="time")
    ic = bars.apply(lambda bar: bar["score"].corr(bar["forward_return"]))
    rank_ic = bars.apply(lambda bar: spearmanr(bar["score"], bar["forward_return"])[0])

    def spread(bar):
        ordered = bar.sort_values("score")["forward_return"]
        return ordered.iloc[-2:].mean() - ordered.iloc[:2].mean()

    expected = {
        "ic": ic.mean(),
        "icir": ic.mean() / ic.std(ddof=0),
        "rank_ic": rank_ic.mean(),
        "rank_icir": rank_ic.mean() / rank_ic.std(ddof=0),
        "pooled_ic": rows["score"].corr(rows["forward_return"]),
        "decile_spread": bars.apply(spread).mean(),
    }
    assert {name: best[name]["value"] for name in expected} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("horizon", [1, 3])
def test_turnover_and_break_even_are_those_of_a_book_renewed_after_its_horizon(market, horizon):
    rows = predictions(market).dropna()
    said = evaluate(rows, horizon=horizon, **FAST)
    score = (rows["p_buy"] - rows["p_sell"]).unstack("asset")
    rank = score.rank(axis=1, method="first")
    book = (rank > 18).astype(float) / 2 - (rank <= 2) / 2
    traded = (book - book.shift(horizon)).abs().sum(axis=1)[horizon:].mean()
    assert said["turnover"]["value"] == pytest.approx(traded / 4)
    spread = said["decile_spread"]["value"]
    assert said["break_even_cost"]["value"] == pytest.approx(spread / traded)


def test_a_book_that_never_changes_costs_nothing():
    market = tabular(0, times=100, assets=10)
    rank = np.arange(10).repeat(100) / 100
    odds = pd.DataFrame({"p_sell": 0.4 - rank, "p_hold": 0.2, "p_buy": 0.4 + rank})
    said = evaluate(
        predictions(
            market,
            odds.clip(0.0, 1)
            .set_index(market.panel.index)
            .pipe(lambda p: p.div(p.sum(axis=1), axis=0)),
        ),
        **FAST,
    )
    assert said["turnover"]["value"] == 0


def test_the_truth_has_all_the_skill_there_is_and_passes_our_own_calibration_test(best):
    assert best["skill_ratio"]["value"] == best["information_ratio"]["value"] == 1
    assert best["accuracy"] == best["bayes_accuracy"]
    assert best["ece"]["low"] == 0
    assert best["ece"]["high"] < 0.02
    sure = [best[f"accuracy_decile_{k:02d}"]["value"] for k in range(1, 11)]
    assert sure[9] > 0.8 > 0.5 > sure[0]
    assert np.argsort(sure)[-3:].tolist() == [7, 8, 9]


def test_odds_that_are_too_sure_are_found_out(market):
    hot = sharpened(market.posterior, 1.5)
    said = evaluate(predictions(market, hot), truth=market.posterior, **FAST)
    confidence = hot.max(axis=1)
    right = market.posterior.to_numpy()[np.arange(len(hot)), hot.to_numpy().argmax(axis=1)]
    gap = (right - confidence).groupby(pd.qcut(confidence, 15, labels=False)).mean()
    true = np.sqrt((gap**2).mean())
    assert true > 0.05
    assert said["ece"]["low"] <= true <= said["ece"]["high"]
    assert said["skill_ratio"]["value"] == 1  # the same sides, said too loudly
    assert said["information_ratio"]["value"] < 0.95


def test_the_calibration_error_of_a_perfect_model_is_about_nothing_whatever_its_size():
    for seed in range(5):
        market = tabular(seed, times=150, assets=10)
        said = evaluate(predictions(market), **FAST)["ece"]
        rows = predictions(market).dropna()
        table = reliability(rows)
        plain = ((table["accuracy"] - table["confidence"]).abs() * table["rows"]).sum() / len(rows)
        assert plain > 0.02  # what the usual estimate would say
        assert said["low"] < 0.01


def test_noise_has_no_skill_and_the_intervals_know_it():
    market = noise_iid(0, times=500)
    rng = np.random.default_rng(0)
    odds = pd.DataFrame(rng.dirichlet([20, 20, 20], len(market.panel)), market.panel.index, ODDS)
    said = evaluate(predictions(market, odds), **FAST)
    for name, nothing in [
        ("mcc", 0),
        ("ic", 0),
        ("rank_ic", 0),
        ("direction", 0.5),
        ("pooled_ic", 0),
    ]:
        assert said[name]["low"] < nothing < said[name]["high"], name
    assert said["decile_spread"]["low"] < 0 < said["decile_spread"]["high"]
    assert said["accuracy"]["low"] < said["base_rate"]["value"]


def test_one_asset_has_no_cross_section_and_equal_odds_no_book(market):
    alone = evaluate(predictions(market).loc[["A00"]], **FAST)
    flat = evaluate(predictions(market, market.posterior * 0 + 1 / 3), **FAST)
    for name in ("ic", "rank_ic", "icir", "decile_spread", "turnover", "break_even_cost"):
        assert np.isnan([*alone[name].values(), *flat[name].values()]).all(), name
    assert alone["pooled_ic"]["value"] > 0.3
    assert flat["direction"]["value"] == 0.5


def test_without_returns_and_flags_there_is_nothing_said_about_them(market):
    said = evaluate(predictions(market)[[*ODDS, "label"]], **FAST)
    assert not {"ic", "coverage", "discarded", "skill_ratio"} & set(said)
    assert said["answered"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_returns_that_are_all_to_come_give_no_figure(market):
    rows = predictions(market).assign(forward_return=np.nan)
    said = evaluate(rows, **FAST)
    assert np.isnan([said["ic"]["value"], said["pooled_ic"]["low"], said["turnover"]["high"]]).all()
    bars = rows.index.unique("time")[:4]
    few = predictions(market)[rows.index.get_level_values("time").isin(bars)]
    short = evaluate(few, horizon=5, **FAST)
    assert np.isnan(short["turnover"]["value"])
    assert np.isfinite(short["decile_spread"]["value"])


def test_rows_that_did_not_answer_fire_or_pass_are_counted(market):
    rows = predictions(market)
    quiet = np.arange(len(rows)) % 4 == 0
    rows.loc[quiet, ODDS] = np.nan
    rows["fired"] = pd.array(np.where(quiet, pd.NA, np.arange(len(rows)) % 4 == 1), "boolean")
    rows["gate"] = np.where(np.arange(len(rows)) % 4 == 2, 0.0, 1.0)
    said = values(evaluate(rows, **FAST))
    assert said["answered"] == pytest.approx(0.75, abs=1e-3)
    assert said["coverage"] == pytest.approx(0.25, abs=1e-3)
    assert said["discarded"] == pytest.approx(0.25, abs=1e-3)
    answered = rows[~quiet & rows["label"].notna()]
    right = answered[ODDS].to_numpy().argmax(axis=1) - 1 == answered["label"]
    assert said["accuracy"] == pytest.approx(right.mean())


def test_a_certain_miss_costs_much_but_not_everything(market):
    rows = predictions(market)
    wrong = np.eye(3)[(rows["label"].fillna(0).to_numpy(int) + 2) % 3]
    said = evaluate(rows.assign(**dict(zip(ODDS, wrong.T, strict=True))), **FAST)
    assert said["accuracy"]["value"] == 0
    assert said["log_loss"]["value"] == pytest.approx(-np.log(1e-12))


def test_one_seed_gives_one_table(market):
    rows = predictions(market)
    assert evaluate(rows, **FAST) == evaluate(rows, **FAST)
    one, other = (evaluate(rows, resamples=200, seed=seed) for seed in (0, 1))
    assert values(one) | {"ece": 0} == values(other) | {"ece": 0}
    assert one["accuracy"]["low"] != other["accuracy"]["low"]


def test_the_order_of_the_rows_within_a_bar_does_not_matter(market):
    rows = predictions(market)
    mirrored = rows.rename(index=lambda name: f"A{19 - int(name[1:]):02d}", level="asset")
    one, other = (
        values(evaluate(table, **FAST)) for table in (rows, mirrored.sort_index(level=["asset"]))
    )
    assert one == pytest.approx(other)


def test_models_stand_in_one_table_in_the_order_given(market):
    rows = {
        "truth": predictions(market),
        "base rate": predictions(market, market.posterior * 0 + 1 / 3),
        "half": predictions(market).iloc[: len(market.panel) // 2].drop(columns="forward_return"),
    }
    table = comparison(rows, **FAST)
    assert list(table.index) == ["truth", "base rate", "half"]
    assert table.index.name == "model"
    assert set(table.columns.get_level_values(1)) == {"value", "low", "high"}
    assert table["log_loss"]["value"].idxmin() == "truth"
    assert np.isnan(table.loc["half", ("ic", "value")])
    assert table.loc["truth", ("accuracy", "value")] != table.loc["half", ("accuracy", "value")]
    shared = comparison(rows, common=True, **FAST)
    assert shared.loc["truth", ("accuracy", "value")] == shared.loc["half", ("accuracy", "value")]


def test_a_paired_interval_sees_what_two_separate_ones_do_not():
    market = tabular(0, times=300)
    weaker = sharpened(market.posterior, 0.8)
    one, other = predictions(market), predictions(market, weaker)
    gap = paired(one, other, **FAST)
    assert gap["low"] < gap["value"] < gap["high"] < 0
    alone = evaluate(one, **FAST)["log_loss"]
    assert alone["high"] > evaluate(other, **FAST)["log_loss"]["low"]  # the intervals overlap
    mirrored = paired(other, one, **FAST)
    assert mirrored["value"] == pytest.approx(-gap["value"])
    assert mirrored["low"] == pytest.approx(-gap["high"])


def test_two_models_are_compared_on_the_rows_both_answered():
    market = tabular(0, times=100, assets=4)
    one, other = predictions(market), predictions(market, sharpened(market.posterior, 0.5))
    other.loc["A1", ODDS] = np.nan
    without = paired(one.drop("A1"), other.drop("A1"), metric="accuracy", **FAST)
    assert paired(one, other, metric="accuracy", **FAST) == without
    assert without["value"] == 0
    with pytest.raises(ValueError, match="metric is one of .* got 'sharpe'"):
        paired(one, other, metric="sharpe")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: rows.assign(p_buy=0.9), "odds do not sum to 1"),
        (lambda rows: rows.assign(p_buy=rows["p_buy"] + 2, p_sell=rows["p_sell"] - 2), "odds"),
        (lambda rows: rows.assign(label=np.nan), "no labelled row has odds"),
        (lambda rows: rows.drop(columns="p_hold"), "'p_hold'"),
        (lambda rows: rows.swaplevel(), "index levels"),
    ],
)
def test_a_table_that_is_not_of_predictions_is_refused(market, spoil, message):
    with pytest.raises(DataError, match=message):
        evaluate(spoil(predictions(market)))


def test_a_reliability_diagram_shows_confidence_against_accuracy(market):
    table = reliability(predictions(market), bins=8)
    assert len(table) == 8
    assert table["rows"].sum() == len(market.y)
    assert table["confidence"].is_monotonic_increasing
    inside = (table["low"] <= table["accuracy"]) & (table["accuracy"] <= table["high"])
    assert inside.all()
    assert ((table["low"] < table["confidence"]) & (table["confidence"] < table["high"])).sum() >= 7
    one = reliability(predictions(market).iloc[:1])
    assert len(one) == 1
    assert 0 <= one["low"].iloc[0] < one["high"].iloc[0] <= 1
