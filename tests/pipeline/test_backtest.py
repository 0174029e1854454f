"""The backtest command from end to end: what it prints, stores, counts, shows and refuses."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from experiments.benchmarks.backtest.markets import lasting
from experiments.benchmarks.backtest.planted import decided, reached
from pipeline import ledger
from pipeline.assemble import assemble, load_source
from pipeline.backtested import costs_of, remarks, store
from pipeline.backtesting import backtest
from pipeline.books import read_snapshot, snapshots
from pipeline.data.instruments import Instruments
from pipeline.data.sources import frame
from pipeline.report.backtest_page import show_backtest, show_backtests, write_backtest
from pipeline.report.backtest_words import NAMED, settings, written
from pipeline.unseen import evaluated
from stages.backtest.judgement import judge
from stages.backtest.metrics import sharpe
from stages.backtest.simulate import simulate
from stages.base import ConfigError, DataError, SieveError
from stages.folds import PurgedWalkForward
from stages.labels import FixedHorizon
from stages.online.replay import ReplayBuffer
from stages.panel import until
from stages.portfolio.prepared import given, reading
from stages.portfolio.top import TopScores
from tests.conftest import command, composed, tiny_pipeline
from tests.stages.backtest.conftest import Daily, walk

SPEEDY = ("bootstrap=20", "portfolio.every=3", "portfolio.checks.circuit_breaker.drawdown=-0.9")


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """Eight assets with trends of their own, as a file."""
    path = tmp_path_factory.mktemp("bars") / "funds.parquet"
    bars = walk(11, bars=300, assets=8).drop(columns=["market", "session"]).reset_index()
    bars["time"] = bars["time"].dt.tz_localize(None).dt.normalize()
    bars["volume"] *= 1000
    bars.to_parquet(path)
    return path


def words(market, root, *more):
    data = ("data=parquet", f"data.path={market}", "data.calendar=24/7", "data.market=A0")
    return (*data, f"root={root}", *SPEEDY, *more)


def ok(ended):
    assert ended.code == 0, ended.err
    return ended


@pytest.fixture(scope="module")
def done(market, tmp_path_factory):
    """A root, the folder of the result, and what was printed."""
    root = tmp_path_factory.mktemp("root")
    ended = ok(command("backtest", *words(market, root, f"output={root}/out")))
    return root, root / "out", ended


@pytest.fixture(scope="module")
def cfg(market):
    return composed("backtest", *words(market, "unused"))


@pytest.fixture(scope="module")
def source(cfg):
    return load_source(cfg)


def changed(cfg, **values):
    """The configuration with other values, by key."""
    out = cfg.copy()
    for key, value in values.items():
        OmegaConf.update(out, key, value)
    return out


# what comes of it


def test_figures_are_printed_with_intervals_a_benchmark_and_the_trials(done):
    said = done[2].out
    assert re.search(r"etf_trend on funds: 20\d\d-\d\d-\d\d to", said)
    assert re.search(r"Sharpe ratio a year, arithmetic +[+-]\d\.\d\d +[+-]\d+\.\d\d to", said)
    assert "equal_weight" in said
    assert "1 distinct trial in the ledger" in said
    assert "less than one says next to nothing" in said


def test_what_is_stored_is_the_result(done):
    _, folder, _ = done
    card = json.loads((folder / "backtest.json").read_text())
    days = pd.read_parquet(folder / "days.parquet")
    returns = pd.read_parquet(folder / "returns.parquet")
    assert card["rows"] == len(days) == len(returns) + 1
    equity = days["equity"].to_numpy()
    np.testing.assert_allclose(returns["portfolio"], equity[1:] / equity[:-1] - 1)
    figures = card["figures"]
    assert figures["total_return"]["value"] == pytest.approx(equity[-1] / equity[0] - 1)
    assert figures["sharpe"]["value"] == pytest.approx(
        sharpe(returns["portfolio"].to_numpy(), card["luck"]["bars_per_year"])
    )
    assert figures["sharpe"]["value"] == pytest.approx(card["luck"]["sharpe"])
    for end in ("low", "high"):
        assert figures["sharpe"][end] == pytest.approx(card["luck"][end])
    trips, orders = (pd.read_parquet(folder / f"{name}.parquet") for name in ("trips", "orders"))
    assert figures["trades"]["value"] == (~trips["open"]).sum()
    assert orders["reason"].str.len().min() > 5
    assert {"config.yaml", "metrics.json", "command.txt", "run.json"} <= {
        path.name for path in folder.iterdir()
    }


def test_the_last_book_is_one_that_the_daily_rebalance_restores(done):
    _, folder, _ = done
    days = pd.read_parquet(folder / "days.parquet")
    [path] = snapshots(folder / "book")
    snapshot = read_snapshot(path)
    assert float(snapshot.book.cash) == days["cash"].iloc[-1]
    assert float(snapshot.total) == pytest.approx(days["equity"].iloc[-1], abs=0.02)
    assert len(snapshot.book.positions) == days["holdings"].iloc[-1]


def test_the_page_shows_the_figures_that_are_stored_and_asks_nothing_of_the_network(done):
    _, folder, _ = done
    page = (folder / "report.html").read_text()
    figures = json.loads((folder / "backtest.json").read_text())["figures"]
    forms = {key: form for names in NAMED.values() for key, (_, form) in names.items()}
    shown = dict(re.findall(r'data-figure="(\w+)">([^<]*)<', page))
    assert set(shown) == set(figures)
    for name, text in shown.items():
        assert text == written(figures[name]["value"], forms[name]), name
    outside = page[page.rindex("</script>") :]
    assert "Assumptions" in outside
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.S)  # plotly names its home
    assert not re.search(r"https?://", own)
    for heading in ("Capital", "Drawdown", "Months", "Years", "Exposure", "Cost and turnover"):
        assert f"<h2>{heading}" in page
    for sentence in ("filled at the next bar", "A round trip costs", "Cash earns 0.00%"):
        assert sentence in page


def test_a_rerun_gives_the_same_result_and_is_no_further_trial(done, cfg, source, tmp_path):
    root, folder, _ = done
    shutil.copytree(root / "ledger", tmp_path / "ledger")
    again = backtest(changed(cfg, root=str(tmp_path)), source)
    assert again.standing.trials == 1
    for name, table in (("days", again.run.days), ("orders", again.run.orders)):
        pd.testing.assert_frame_equal(pd.read_parquet(folder / f"{name}.parquet"), table)
    other = backtest(changed(cfg, root=str(tmp_path), capital=50_000), source)
    assert other.standing.trials == 2
    assert [trial.kind for trial in ledger.read(tmp_path).trials] == ["backtest"] * 3


# its settings


def test_without_costs_everything_says_so(cfg, source, tmp_path):
    free = changed(cfg, root=str(tmp_path))
    free.costs = {"default": 0.0}
    result = backtest(free, source)
    assert result.card()["before_costs"]
    assert any(line.startswith("Before costs") for line in result.warnings)
    assert any("costs=none" in line for line in result.assumptions)
    assert result.run.days["cost"].sum() == 0
    write_backtest(tmp_path / "page.html", result)
    assert "before costs</h1>" in (tmp_path / "page.html").read_text()


def test_a_search_chooses_on_the_past_and_counts_every_variant(cfg, source, tmp_path):
    search = changed(cfg, root=str(tmp_path))
    search.optimise = {
        "grid": {"portfolio.every": [3, 6], "portfolio.buffer.buy": [2, 4]},
        **{"train": 30, "test": 20, "purge": 2, "anchored": False},
    }
    result = backtest(search, source, "funds")
    assert result.standing.trials == ledger.read(tmp_path).count == 5  # four, and the choice
    assert result.search is not None
    trials, chosen = result.search.trials, result.search.chosen
    assert list(trials) == [f"every={e} buffer.buy={b}" for e in (3, 6) for b in (2, 4)]
    assert len(chosen) >= 2
    for row in chosen.itertuples():
        past = trials[trials.index < row.begin].iloc[-32:-2]
        scores = past.mean() / past.std()
        assert scores[row.chosen] == pytest.approx(scores.max())
    assert result.run.days.index[1] == chosen["begin"].iloc[0]
    store(result, tmp_path / "out")
    assert pd.read_parquet(tmp_path / "out" / "trials.parquet").equals(trials)
    write_backtest(tmp_path / "page.html", result)
    page = (tmp_path / "page.html").read_text()
    assert "What was tried" in page
    assert "4 variants were simulated" in page
    yearly = trials.apply(lambda column: sharpe(column.to_numpy(), result.judgement.per_year))
    rows = {(row["setting"], row["value"]): row for row in settings(yearly)}
    assert list(rows) == [("every", "3"), ("every", "6"), ("buffer.buy", "2"), ("buffer.buy", "4")]
    pair = yearly[["every=3 buffer.buy=4", "every=6 buffer.buy=4"]]
    row = rows["buffer.buy", "4"]
    assert (row["count"], row["mean"]) == (2, f"{pair.mean():+.2f}")
    assert (row["low"], row["high"]) == (f"{pair.min():+.2f}", f"{pair.max():+.2f}")
    assert "How much each setting matters" in page
    show_backtest(result, tmp_path)


def test_only_members_are_traded_and_the_missing_are_told(cfg, source, tmp_path):
    days = source.bars["session"].drop_duplicates().sort_values()
    middle = f"{days.iloc[-20]:%Y-%m-%d}"
    rows = "".join(f"A{k},2000-01-01,{middle}\n" for k in range(4))
    rows += "".join(f"A{k},{middle},\n" for k in range(4, 6)) + "GONE,2000-01-01,\n"
    path = tmp_path / "members.csv"
    path.write_text(f"asset,from,to\n{rows}")
    every = backtest(changed(cfg, root=str(tmp_path)), source)
    result = backtest(changed(cfg, root=str(tmp_path), universe=str(path)), source)
    assert result.standing.trials == 2
    assert set(result.run.orders["asset"]) <= {f"A{k}" for k in range(6)}
    after = result.run.orders[result.run.orders["decided"] > pd.Timestamp(middle, tz="UTC")]
    assert set(after.loc[after["action"] == "BUY", "asset"]) <= {"A4", "A5"}
    assert not every.judgement.benchmark.equals(result.judgement.benchmark)  # of members too
    assert any("never there: GONE" in line for line in result.warnings)
    assert any(line.startswith("Bought is only what belonged") for line in result.assumptions)


def test_the_span_and_the_benchmark_are_those_asked_for(cfg, source, done, tmp_path):
    days = pd.read_parquet(done[1] / "days.parquet").index
    start, end = (f"{days[k]:%Y-%m-%d}" for k in (10, 40))
    asked = changed(cfg, root=str(tmp_path), start=start, end=end, benchmark="A3")
    result = backtest(asked, source)
    assert (result.run.days.index[0], result.run.days.index[-1]) == (days[10], days[40])
    closes = source.bars["close"].xs("A3")
    moved = closes[result.run.days.index].to_numpy()
    np.testing.assert_allclose(result.judgement.benchmark, moved[1:] / moved[:-1] - 1)


def test_settings_with_lists_stay_whole_and_those_that_did_not_vary_are_left_out():
    sharpes = pd.Series([1.0, 2.0], ["bars=[20, 60] every=5", "bars=[10, 30] every=5"])
    assert [(r["setting"], r["value"], r["mean"]) for r in settings(sharpes)] == [
        ("bars", "[20, 60]", "+1.00"),
        ("bars", "[10, 30]", "+2.00"),
    ]


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [(-0.0004, "+.1%", "+0.0%"), (-0.001, ".2f", "0.00"), (-0.1, "+.1%", "-10.0%"), (None, "", "")],
)
def test_what_is_written_as_nothing_has_no_minus(value, form, text):
    assert written(value, form) == text


def test_runs_stand_side_by_side(done):
    rows = ok(command("backtest", f"runs={done[0]}"))
    assert re.search(r"out +[+-]\d+\.\d\d%", rows.out)


def test_runs_without_a_backtest_are_refused():
    with pytest.raises(DataError, match="no backtests to compare"):
        show_backtests(pd.DataFrame({"artifact": ["x"]}))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"benchmark": "SPY"}, "benchmark=SPY is neither an asset"),
        ({"capital": -5}, "no amount above 0"),
        ({"terms.fill": "mid"}, "out of range"),
        ({"start": "2030-01-01"}, "no decision time is left"),
        ({"optimise.grid": {"horizon": [1]}}, "optimise.grid holds 'horizon'"),
        ({"optimise.grid": {"portfolio.every": []}}, "a grid of 0"),
        (
            {"optimise.grid": {"portfolio.every": [3]}, "optimise.train": 1},
            "need train, test >= 2",
        ),
        ({"model": "nowhere"}, "no model"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_and_counts_as_no_trial(cfg, source, tmp_path, values, said):
    wrong = changed(cfg, root=str(tmp_path), **values)
    with pytest.raises(Exception, match=said) as refused:  # noqa: PT011  some wrapped by Hydra
        backtest(wrong, source)
    assert isinstance(refused.value, SieveError | InstantiationException)
    assert not ledger.read(tmp_path).trials


# costs and remarks


def test_costs_are_those_of_the_class_of_each_asset():
    table = Instruments({"SPY": {"asset_class": "etf"}}, default={"asset_class": "equity"})
    costs, said = costs_of({"etf": 4.0, "equity": 10.0}, table, ["SPY", "X"])
    assert costs == {"SPY": 0.0004, "X": 0.001}
    assert "4 or 10 bps" in said
    assert costs_of({"default": 0.0}, table, ["SPY"])[0] == "none"
    assert costs_of({"default": 7.0}, None, ["SPY"])[0] == {"SPY": 0.0007}
    with pytest.raises(ConfigError, match="none for the asset class 'equity'"):
        costs_of({"etf": 4.0}, table, ["SPY", "X"])


def test_splits_that_nobody_adjusted_survivors_and_indices_are_told():
    bars = walk(1, bars=60, assets=2)
    raw = bars.drop(columns="session").reset_index()
    late = (raw["asset"] == "A1") & (raw["time"] > raw["time"].iloc[30])
    raw.loc[late, ["open", "high", "low", "close"]] /= 3
    source = frame(raw, survivors=True)
    table = Instruments({"A0": {"asset_class": "index"}})
    lines = remarks(source, "A0", True, table)
    assert "too good" in lines[0]
    assert "1 jumps look like splits" in lines[1]
    assert "index without dividends" in lines[2]
    assert len(remarks(source, "A0", False, table)) == 2
    assert remarks(frame(bars.drop(columns="session").reset_index()), "A0", True, None) == []


# the pipeline's own signals


def test_a_model_trades_only_on_bars_that_it_never_saw(tiny_market, tmp_path):
    times = tiny_market.panel.index.get_level_values("time").unique()
    known = tiny_market.y[tiny_market.y["end"] <= times[220]]
    model = tiny_pipeline(refiner=None, replay=ReplayBuffer(window=1, capacity=300))
    model.fit(until(tiny_market.panel, times[220]), known)
    asked = composed(
        "backtest",
        *("portfolio=top_scores", "costs=none", "horizon=1", "data=synthetic", "seed=0"),
        *("data.market.times=300", "data.market.assets=4", "data.market.snr=2.0", "bootstrap=20"),
        *(f"root={tmp_path}", f"model={model.save(tmp_path)}", "portfolio.sizes.each=0.3"),
        "portfolio.clusters.bars=20",
    )
    result = backtest(asked, load_source(asked))
    assert result.run.days.index[0] > model.learned_until_
    assert len(result.run.trips) > 5
    # what the model knows is worth something on a planted market, before costs
    assert result.judgement.figures["total_return"] > result.judgement.beside["total_return"]
    early = changed(asked, start=f"{model.learned_until_:%Y-%m-%d}")
    with pytest.raises(DataError) as refused:
        backtest(early, load_source(asked))
    assert refused.value.code == "SV-F25"
    late = changed(asked, start=f"{times[-1] + pd.Timedelta(days=9):%Y-%m-%d}")
    with pytest.raises(DataError, match="no decision time is left"):
        backtest(late, load_source(asked))


@pytest.mark.parametrize(("snr", "found"), [(0.8, True), (0.0, False)])
def test_decided_signals_reach_the_floors_on_a_planted_market_and_not_on_noise(snr, found):
    """Sharpe ratio above 1, drawdown below 15 %, wins above 55 %, filled a bar later, with costs.

    The bars above the floors, at full size: experiments/benchmarks/backtest/planted.py.
    """
    market = lasting(seed=5, times=620, assets=12, snr=snr)
    times = market.panel.index.get_level_values("time").unique()
    sieve = tiny_pipeline(
        refiner=None,
        labels=FixedHorizon(horizon=5, delay=1),
        folds=PurgedWalkForward(n_folds=4, first=0.3, embargo=6),
        replay=ReplayBuffer(window=1, capacity=300),
    )
    sieve.fit(until(market.panel, times[459]))
    index = market.panel.index
    said = evaluated(sieve, market.panel, index[index.get_level_values("time") > times[459]])
    panel = market.panel.assign(decided=decided(said).reindex(index))
    score = reading(given, values="decided")
    run = simulate(panel, TopScores(score=score, every=5), costs=0.002, start=times[460])
    figures = judge(run, panel, resamples=2).figures
    assert reached(figures, 1) == found
    assert (len(run.trips) > 20) == found


@pytest.mark.realdata
def test_on_real_funds_day_by_day_gives_the_orders_of_the_simulation(realdata, tmp_path):
    """New York and London, missing bars and halts, prices adjusted for splits and dividends."""
    path = realdata("m6_assets_daily_100_2018_2022.parquet")
    funds = "IVV,IWM,TLT,SHY,LQD,HYG,GSG,IAU,SLV,VXX,XLB,XLE,XLF,XLV,EWJ,IUMO.L,HIGH.L,SEGA.L"
    cfg = composed(
        "backtest",
        *("data=parquet", f"data.path={path}", "data.columns.asset=symbol"),
        *("data.columns.time=date", "data.columns.adj_close=adj_close", "data.market=IVV"),
        *("data.calendar=instruments", f"data.assets=[{funds}]", f"root={tmp_path}"),
    )
    bars, policy = load_source(cfg).bars, assemble(cfg, "portfolio")
    times = policy.prepare(bars).times
    settings = {"costs": 0.0004, "start": times[-31]}
    whole = simulate(bars, policy, **settings)
    days = simulate(bars, Daily(policy, bars), **settings)
    assert len(whole.orders) > 20
    pd.testing.assert_frame_equal(whole.orders, days.orders)
    assert whole.state == days.state
