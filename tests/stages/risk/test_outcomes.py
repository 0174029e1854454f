import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import matthews_corrcoef

from stages.labels import FixedHorizon
from stages.markets.noise import noise_garch
from stages.panel import settled
from stages.risk.outcomes import FIGURES, attach, performance

SPAN = 4


@pytest.fixture(scope="module")
def market():
    """Bars, labels, and one signal a row whose side is right more often than not."""
    panel = noise_garch(7, times=160, assets=4).panel
    labels = FixedHorizon(horizon=3, delay=1).label(panel)
    rng = np.random.default_rng(1)
    index = panel.index
    known = labels["side"].reindex(index).fillna(0).to_numpy()
    side = np.where(rng.random(len(index)) < 0.4, known, rng.integers(-1, 2, len(index)))
    names = {"asset": index.get_level_values("asset"), "time": index.get_level_values("time")}
    table = pd.DataFrame(names).assign(
        side=pd.array(side, "Int8"),
        strategy=rng.choice(["flow", "skew"], len(index)),
        strength=np.where(side == 0, None, rng.choice(["weak", "strong"], len(index))),
        model="m1",
        cost=0.001,
    )
    return panel, labels, table


def benchmark_of(labels):
    return labels.groupby("time")["ret"].transform("mean")


def test_an_outcome_is_attached_once_its_label_has_matured(market):
    _, labels, table = market
    now = table["time"].unique()[100]
    told = attach(table, labels, now, benchmark_of(labels))
    rows = pd.MultiIndex.from_frame(table[["asset", "time"]])
    known = (rows.isin(labels.index)) & (settled(labels).reindex(rows) <= now).to_numpy()
    assert 0 < known.sum() < len(table)
    assert told["outcome"].notna().to_numpy().tolist() == known.tolist()
    assert (told["matured"].dropna() <= now).all()
    assert told.loc[~known, ["hit", "return", "excess", "net"]].isna().all(axis=None)
    for at in np.flatnonzero(known)[::37]:
        label, side = labels.loc[rows[at]], table["side"].iloc[at]
        row = told.iloc[at]
        assert row["outcome"] == label["side"]
        if side == 0:
            assert pd.isna(row["hit"])
            assert np.isnan(row["return"])
            continue
        assert row["hit"] == (label["side"] == side)
        assert row["return"] == pytest.approx(side * label["ret"])
        mean = labels.xs(rows[at][1], level="time")["ret"].mean()
        assert row["excess"] == pytest.approx(row["return"] - mean)
        assert row["net"] == pytest.approx(row["return"] - 0.001)


def test_an_outcome_never_changes_once_it_is_attached(market):
    """What was known at some time is still said when more labels have matured."""
    _, labels, table = market
    times = table["time"].unique()
    early, late = (attach(table, labels, times[k], benchmark_of(labels)) for k in (80, 159))
    known = early["outcome"].notna()
    pd.testing.assert_frame_equal(early[known], late[known])
    assert late["outcome"].notna().sum() > known.sum()


def test_what_is_not_known_is_not_0(market):
    _, labels, table = market
    now = table["time"].max()
    bare = attach(table.assign(cost=np.nan), labels.drop(columns="ret"), now)
    assert bare[["return", "excess", "net"]].isna().all(axis=None)
    assert bare["hit"].notna().any()
    assert attach(table, labels, now)["excess"].isna().all()


def test_performance_is_what_plain_means_say(market):
    _, labels, table = market
    told = attach(table, labels, table["time"].unique()[120], benchmark_of(labels))
    figures = performance(told, span=SPAN, resamples=50)
    assert set(figures.index.get_level_values("by")) == {"strategy", "asset", "strength", "model"}
    played = told[told["side"].isin([-1, 1])]
    for (by, group), row in figures.iterrows():
        mine = played[played[by] == group]
        known = mine[mine["outcome"].notna()]
        assert (row["signals"], row["matured"]) == (len(mine), len(known))
        assert row["hit"] == pytest.approx((known["outcome"] == known["side"]).mean())
        assert row["base_rate"] == pytest.approx(
            known["outcome"].value_counts(normalize=True).max()
        )
        want = matthews_corrcoef(known["outcome"].astype(int), known["side"].astype(int))
        assert row["mcc"] == pytest.approx(want)
        for name in ("return", "excess", "net"):
            assert row[name] == pytest.approx(known[name].mean())
        for name in FIGURES:
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    assert figures.loc["model", "signals"].sum() == figures.loc["asset", "signals"].sum()


def test_a_few_bars_have_figures_and_no_interval(market):
    _, labels, table = market
    few = table["time"].unique()[30:36]
    told = attach(table[table["time"].isin(few)], labels, table["time"].max())
    row = performance(told, "model").iloc[0]
    assert 0 <= row["hit"] <= 1
    assert row[[f"{name}_low" for name in FIGURES]].isna().all()
    assert np.isnan(row["excess"])


def test_signals_that_have_not_matured_are_counted_and_not_judged(market):
    _, labels, table = market
    told = attach(table, labels, table["time"].min())
    row = performance(told, "model").iloc[0]
    assert row["signals"] > 0
    assert row["matured"] == 0
    assert np.isnan(row["hit"])
