"""The daily rebalance from end to end: a market on exchange sessions, books in a folder."""

import contextlib
import copy
import io
import json
from datetime import date
from functools import cache
from pathlib import Path

import jsonschema
import pandas as pd
import pytest
import yaml
from omegaconf import OmegaConf

from pipeline.assemble import assemble
from pipeline.data.calendar import sessions
from pipeline.data.sources import parquet
from pipeline.rebalance import main
from pipeline.report import terminal
from stages.backtest.simulate import simulate
from stages.backtest.terms import Terms
from stages.base import SieveError
from tests.conftest import ROOT, command, composed
from tests.stages.portfolio.conftest import ASSETS, bars_of, walks

SCHEMA = json.loads((ROOT / "schemas" / "order-v1.json").read_text())
READ = ("data", "instruments", "portfolio", "costs", "terms", "cache")
HOLIDAY = "2021-12-24"  # of the New York exchange
SMALL = (  # the trend policy with a short memory, for a short history
    *(
        "portfolio.trend.signal._target_=stages.portfolio.signals.macd",
        "~portfolio.trend.signal.memory",
    ),
    *("portfolio.buffer.buy=4", "portfolio.buffer.hold=6", "portfolio.clusters.correlation=0.5"),
    *("portfolio.sizes.each=0.3", "portfolio.sizes.cluster=0.45", "portfolio.sizes.lot=10"),
    "portfolio.checks.trailing_stop.multiple=3",
)


def market(path, change=None, days=310):
    """Bars of 13 assets, one of them the market, on the sessions of New York from 2021."""
    table = walks(days)
    table.index = sessions("XNYS", "2021-01-04", "2022-12-30").loc["2021-01-04":].index[:days]
    table["MKT"] = table.mean(axis=1).round(3)
    if change is not None:
        change(table)
    long = bars_of(table).reset_index().drop(columns="time").rename(columns={"session": "time"})
    long.to_parquet(path)
    return path


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    return market(tmp_path_factory.mktemp("bars") / "bars.parquet")


def words(path, *more):
    data = ("data=parquet", f"data.path={path}", "data.calendar=XNYS", "data.market=MKT")
    return (*data, f"data.quarantine={Path(path).parent}/bad.csv", *SMALL, *more)


@cache
def settings():
    """What a run reads of the configuration, composed once: that takes longer than the run."""
    cfg = composed("rebalance", *words("bars.parquet"))
    OmegaConf.set_struct(cfg, False)
    for name in [n for n in cfg if OmegaConf.is_dict(cfg._get_node(n)) and n not in READ]:
        del cfg[name]
    return cfg


def configured(path, folder, *more):
    cfg = copy.deepcopy(settings())
    places = (f"data.path={path}", f"data.quarantine={folder}/bad.csv", f"root={folder}/root")
    for word in (*places, f"book={folder}", "dry_run=false", "json=true", *more):
        key, _, text = word.partition("=")
        value = yaml.safe_load(text)
        OmegaConf.update(cfg, key, text if isinstance(value, date) else value, merge=False)
    return cfg


def ran(path, folder, *more):
    """Run once in this process, and what it prints as JSON."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        main(configured(path, folder, *more))
    return json.loads(out.getvalue())


def refused(path, folder, code, *more):
    """What the run ends with instead."""
    with pytest.raises(SieveError) as caught, contextlib.redirect_stderr(io.StringIO()):
        main(configured(path, folder, *more))
    assert caught.value.code == code, str(caught.value)
    return caught.value


def failed(ended, code, exit_code):
    assert ended.code == exit_code, (ended.out, ended.err)
    assert code in ended.err
    assert "Traceback" not in ended.err
    return " ".join(ended.err.split())


def days_of(path, first, count):
    known = pd.DatetimeIndex(pd.read_parquet(path)["time"]).unique().sort_values()
    return [f"{day:%Y-%m-%d}" for day in known[known >= first][:count]]


# a day


def test_a_dry_run_shows_orders_with_their_reasons_and_writes_nothing(bars, tmp_path):
    books = tmp_path / "books"
    told = words(bars, "as_of=2022-01-03", f"book={books}", f"root={tmp_path}/root")
    ended = command("rebalance", *told)
    assert ended.code == 0, ended.err
    assert "orders after 2022-01-03, to place at the next bar" in ended.out
    assert "enter: rank 1 of" in ended.out
    assert "circuit_breaker: market" in ended.out
    assert "there is none yet, so it begins empty with 1000000.00" in " ".join(ended.out.split())
    assert "dry run: nothing written" in ended.out
    assert not books.exists()


def test_running_twice_writes_the_same_files(bars, tmp_path):
    first = ran(bars, tmp_path, "as_of=2022-01-03")
    content = {path: Path(path).read_bytes() for path in first["files"]}
    assert [Path(p).name for p in first["files"]] == [
        *("signals_2022-01-03.csv", "scores_2022-01-03.csv", "orders_2022-01-03.csv"),
        "book_2022-01-03.json",
    ]
    assert ran(bars, tmp_path, "as_of=2022-01-03") == first
    assert {path: Path(path).read_bytes() for path in first["files"]} == content


def test_a_run_that_was_cut_short_is_repeated(bars, tmp_path):
    first = ran(bars, tmp_path, "as_of=2022-01-03")
    content = {path: Path(path).read_bytes() for path in first["files"]}
    for path in first["files"][1:]:  # the book comes last, so it cannot be there without the rest
        Path(path).unlink()
    assert ran(bars, tmp_path, "as_of=2022-01-03")["files"] == first["files"]
    assert {path: Path(path).read_bytes() for path in first["files"]} == content


def test_what_was_written_is_never_replaced_by_something_else(bars, tmp_path):
    ran(bars, tmp_path, "as_of=2022-01-03")
    said = refused(bars, tmp_path, "SV-X615", "as_of=2022-01-03", "cash=5000")
    assert said.exit_code == 5
    assert "_2022-01-03" in said.what
    assert "may be placed already" in said.why


def test_the_files_hold_what_a_person_needs(bars, tmp_path):
    told = ran(bars, tmp_path, "as_of=2022-01-03")
    orders, signals, scores = (
        pd.read_csv(tmp_path / f"{name}_2022-01-03.csv") for name in ("orders", "signals", "scores")
    )
    assert orders["asset"].tolist() == [order["asset"] for order in told["orders"]]
    expected = ["asset", "action", "shares", "reason", "signal_strength", "momentum_score"]
    assert list(orders)[:6] == expected
    assert (
        orders["estimated_value"] == (orders["shares"] * orders["current_price"]).round(9)
    ).all()
    assert set(signals["signal"]) <= {-1, 0, 1}
    assert set(scores["asset"]) == {*ASSETS, "MKT"}


def test_day_after_day_it_orders_what_the_simulation_orders(bars, tmp_path):
    days = days_of(bars, "2021-11-22", 10)
    daily = []
    for day in days:  # each begins from the files that the one before left
        told = ran(bars, tmp_path, f"as_of={day}", "fills=simulated", "portfolio.every=2")
        for order in told["orders"]:
            jsonschema.validate(order, SCHEMA)
        daily += [(day, o["asset"], o["action"], o["shares"], o["reason"]) for o in told["orders"]]
    cfg = configured(bars, tmp_path, "portfolio.every=2")
    source = parquet(str(bars), calendar="XNYS", market="MKT")
    at = pd.DatetimeIndex(source.bars.index.get_level_values("time")).unique().sort_values()
    ends = [at[at.tz_localize(None).normalize() == day][0] for day in (days[0], days[-1])]
    run = simulate(
        source.bars,
        assemble(cfg, "portfolio"),
        costs={"default": 10e-4},  # what conf/costs says of a share
        terms=Terms(),
        start=ends[0],
        end=ends[1],
    )
    met = run.orders
    whole = [
        (f"{row.decided:%Y-%m-%d}", row.asset, row.action, row.shares, row.reason)
        for row in met.itertuples()
    ]
    pending = [(days[-1], o.asset, o.action, o.shares, o.reason) for o in run.state.pending]
    assert daily == whole + pending
    assert len(daily) > 8
    assert {action for _, _, action, _, _ in daily} == {"BUY", "SELL"}
    assert told["total_value"] == f"{run.days['equity'].iloc[-1]:.2f}"
    assert told["holdings"] == {a: p.shares for a, p in run.state.book.positions.items()}


# faults, and what each must end as


def test_a_holiday_is_nothing_to_decide_and_no_fault(bars, tmp_path):
    given = (f"as_of={HOLIDAY}", f"book={tmp_path}/books", f"root={tmp_path}", "dry_run=false")
    ended = command("rebalance", *words(bars, *given))
    assert ended.code == 0, ended.err
    assert f"{HOLIDAY} is no session of XNYS: nothing to decide, nothing written" in ended.out
    assert not (tmp_path / "books").exists()
    assert ran(bars, tmp_path, f"as_of={HOLIDAY}")["status"] == "closed"


def test_stale_data_stop_the_run(bars, tmp_path):
    asked = failed(
        command("rebalance", *words(bars, "as_of=2022-12-30", f"root={tmp_path}")), "SV-X614", 3
    )
    assert "the data are not those of 2022-12-30: there is no bar of it" in asked
    assert "old prices would be placed at new ones" in refused(bars, tmp_path, "SV-X614").why
    early = refused(bars, tmp_path, "SV-X614", "as_of=2020-12-30")
    assert "the first bar is of 2021-01-04" in early.what


def test_data_that_lack_most_assets_are_stale_too(tmp_path):
    def cut(table):
        table.iloc[-1, :8] = float("nan")

    path = market(tmp_path / "bars.parquet", cut)
    last = days_of(path, "2021-01-01", 999)[-1]
    said = refused(path, tmp_path, "SV-X614", f"as_of={last}")
    assert "only 38% of the listed assets have a bar; not E00, E01" in said.what
    told = ran(path, tmp_path / "lenient", f"as_of={last}", "fresh=0.3")
    assert told["skipped"] == dict.fromkeys(ASSETS[:8], "no bar")
    assert not set(told["signals"]) & set(ASSETS[:8])


def test_a_missing_file_stops_the_run(tmp_path):
    gone = tmp_path / "gone.parquet"
    given = words(gone, "as_of=2022-01-03", f"root={tmp_path}")
    assert "gone" in failed(command("rebalance", *given), "SV-F20", 3)


@pytest.mark.parametrize("named", [False, True])
def test_a_damaged_book_stops_the_run_and_nothing_is_written(bars, tmp_path, named):
    ran(bars, tmp_path, "as_of=2022-01-03")
    book = tmp_path / "book_2022-01-03.json"
    book.write_bytes(book.read_bytes()[:-200])
    place = book if named else tmp_path
    said = refused(bars, tmp_path, "SV-X613", "as_of=2022-01-04", f"book={place}")
    assert said.exit_code == 5
    assert "would buy everything again" in said.why
    assert not list(tmp_path.glob("*2022-01-04*"))


def test_a_book_that_is_named_and_not_there_is_not_begun_anew(bars, tmp_path):
    given = words(bars, "as_of=2022-01-03", f"book={tmp_path}/book_2022-01-02.json")
    failed(command("rebalance", *given, f"root={tmp_path}"), "SV-X613", 5)


def test_an_unadjusted_split_is_flagged_and_the_holding_left_alone(bars, tmp_path):
    first, second = days_of(bars, "2022-01-03", 2)
    ran(bars, tmp_path, f"as_of={first}")
    booked = tmp_path / "fills.csv"
    booked.write_text(f"asset,shares,price,cost,time\nE00,100,100,1.00,{first}\n")

    def split(table):
        table.loc[second:, "E00"] /= 2

    halved = market(tmp_path / "halved.parquet", split)
    booked.write_text(f"asset,shares,price,cost,time\nE00,100,100,1.00,{second}\n")
    told = ran(halved, tmp_path, f"as_of={second}", f"fills={booked}")
    assert told["skipped"]["E00"].startswith("jump of -")
    assert any(alert.startswith("E00: jump") for alert in told["alerts"])
    assert "E00" not in {order["asset"] for order in told["orders"]}
    assert told["holdings"] == {"E00": 100}


def test_a_history_adjusted_anew_is_noticed_and_a_split_must_be_named(bars, tmp_path):
    first, second, third = days_of(bars, "2022-01-03", 3)
    booked = tmp_path / "fills.csv"
    booked.write_text(f"asset,shares,price,cost,time\nE00,100,100,1.00,{second}\n")
    ran(bars, tmp_path, f"as_of={first}")
    before = ran(bars, tmp_path, f"as_of={second}", f"fills={booked}")

    def split(table):
        table["E00"] /= 2

    def dividend(table):
        table["E00"] *= 0.99

    halved = market(tmp_path / "halved.parquet", split)
    assert refused(halved, tmp_path, "SV-X616", f"as_of={third}").exit_code == 3
    told = ran(halved, tmp_path, f"as_of={third}", "splits={E00: 2}", f"output={tmp_path}/split")
    assert (before["holdings"], told["holdings"]) == ({"E00": 100}, {"E00": 200})
    assert "restated: the history of E00 was adjusted anew" in told["alerts"]
    paid = market(tmp_path / "paid.parquet", dividend)
    told = ran(paid, tmp_path, f"as_of={third}", f"output={tmp_path}/paid")
    assert told["holdings"] == {"E00": 100}
    book = json.loads((tmp_path / "paid" / f"book_{third}.json").read_text())
    assert book["holdings"]["E00"]["entry_price"] == pytest.approx(99.0)


def test_a_halted_asset_is_left_out_and_named(tmp_path):
    def halt(table):
        table.iloc[-1, 4] = float("nan")

    path = market(tmp_path / "bars.parquet", halt)
    told = ran(path, tmp_path, f"as_of={days_of(path, '2021-01-01', 999)[-1]}")
    assert told["skipped"] == {"E04": "no bar"}
    signals = pd.read_csv(next(tmp_path.glob("signals_*.csv")), index_col=0)
    assert pd.isna(signals.loc["E04", "signal"])  # never 0
    assert signals.loc["E04", ["status", "reason"]].tolist() == ["skipped", "no bar"]


def members(folder, text):
    path = folder / "members.csv"
    path.write_text(text)
    return f"universe={path}"


def test_only_members_of_the_day_are_bought_and_who_is_missing_is_told(bars, tmp_path):
    rows = "E00,2020-01-01,\nE01,2020-01-01,2022-01-02\nE02,2022-01-03,2022-01-03\n"
    asked = members(tmp_path, f"asset,from,to\n{rows}E03,2022-01-04,\nGONE,2020-01-01,\n")
    told = ran(bars, tmp_path, "as_of=2022-01-03", asked)
    assert set(told["signals"]) == {"E00", "E02"}
    assert {told["skipped"][name] for name in ("E01", "E03", "E05")} == {"not in the universe"}
    assert "33.3% of the members of the day have no bar; never there: GONE." in told["alerts"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("asset\nE00\n", "SV-F16"),
        ("asset,from,to\nE00,,\n", "SV-F16"),
        ("", "SV-F19"),
        (None, "SV-F20"),
    ],
)
def test_a_list_of_members_without_dates_stops_the_run(bars, tmp_path, text, code):
    asked = f"universe={tmp_path}/none.csv" if text is None else members(tmp_path, text)
    assert refused(bars, tmp_path, code, "as_of=2022-01-03", asked).exit_code == 3
    assert not list(tmp_path.glob("orders_*.csv"))


def test_a_price_below_zero_is_set_aside_and_the_asset_left_out(tmp_path):
    path = market(tmp_path / "bars.parquet")
    last = days_of(path, "2021-01-01", 999)[-1]
    table = pd.read_parquet(path)
    wrong = (table["asset"] == "E04") & (table["time"] == last)
    table.loc[wrong, "low"] = -1.0
    table.to_parquet(path)
    told = ran(path, tmp_path, f"as_of={last}")
    assert told["skipped"] == {"E04": "no bar"}
    assert "SV-F14" in (tmp_path / "bad.csv").read_text()


def test_much_turnover_is_an_alert(bars, tmp_path):
    told = ran(bars, tmp_path, "as_of=2022-01-03", "turnover=0.2")
    bought = sum(order["estimated_value"] for order in told["orders"])
    assert told["turnover"] == pytest.approx(bought / 1e6)
    assert any(alert.startswith("turnover: the orders are") for alert in told["alerts"])


def test_a_breaker_without_a_market_is_an_alert(bars, tmp_path):
    told = ran(bars, tmp_path, "as_of=2022-01-03", "data.market=null")
    assert told["checks"]["circuit_breaker"].startswith("unavailable")
    assert any(alert.startswith("circuit_breaker: unavailable") for alert in told["alerts"])


# what was traded


def test_fills_are_booked_once(bars, tmp_path):
    first, second, third = days_of(bars, "2022-01-03", 3)
    booked = tmp_path / "fills.csv"
    booked.write_text(
        f"asset,shares,price,cost,time\nE00,100,99.5,1.25,{second}\n"
        f"E01,50,10,0,{second}T15:00:00+00:00\nE00,-40,101,0.75,{third}\n"
    )
    more = f"fills={booked}"
    ran(bars, tmp_path, f"as_of={first}", more)
    told = ran(bars, tmp_path, f"as_of={second}", more)
    assert (told["cash"], told["holdings"]) == ("989548.75", {"E00": 100, "E01": 50})
    assert told["notes"] == [f"book of {first}", "2 fills booked"]
    told = ran(bars, tmp_path, f"as_of={third}", more)
    assert (told["cash"], told["holdings"]["E00"]) == ("993588.00", 60)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("asset,shares,price,time\nE00,1,1,2022-01-03\n", "SV-F20"),
        ("asset,shares,price,cost,time\nE00,1.5,1,0,2022-01-03\n", "SV-F19"),
        ("asset,shares,price,cost,time\nE00,1,one,0,2022-01-03\n", "SV-F19"),
        ("asset,shares,price,cost,time\nE00,1,-1,0,2022-01-03\n", "SV-F19"),
        ("asset,shares,price,cost,time\nE00,1,1,0,2022-01-01\n", "SV-F19"),
        ("asset,shares,price,cost,time\nE00,-1,1,0,2022-01-03\n", "SV-X610"),
        (None, "SV-F20"),
    ],
)
def test_fills_that_cannot_be_are_refused(bars, tmp_path, text, code):
    booked = tmp_path / "fills.csv"
    if text is not None:
        booked.write_text(text)
    assert refused(bars, tmp_path, code, "as_of=2022-01-03", f"fills={booked}").exit_code == 3


# settings


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("cash=0", "cash=0 is out of range"),
        ("fresh=2", "fresh=2 is out of range"),
        ("slow=-1", "slow=-1 is out of range"),
        ("turnover=much", "turnover=much is out of range"),
        ("log_level=LOUD", "log_level=LOUD is out of range"),
        ("dry_run=maybe", "dry_run=maybe is neither true nor false"),
        ("keep=0", "keep=0 is no whole number"),
        ("as_of=soon", "as_of=soon is no date"),
        ("instruments.default.lot=0.5", "the lot of E00 is 0.5"),
    ],
)
def test_a_value_out_of_range_is_named(bars, tmp_path, word, said):
    found = refused(bars, tmp_path, "SV-F33", "as_of=2022-01-03", word)
    assert said in found.what
    assert found.exit_code == 2


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("portfolio.buffer.hold=3", "need 1 <= buy <= hold"),
        ("portfolio.trend.signal.fats=3", "did you mean portfolio.trend.signal.fast?"),
        ("+portfolio.trend.signal.memory=9", "macd takes close, fast, slow, signal, and no memory"),
    ],
)
def test_a_wrong_word_of_the_policy_is_named(bars, tmp_path, word, said):
    given = words(bars, "as_of=2022-01-03", f"root={tmp_path}")
    assert said in failed(command("rebalance", *given, word), "SV-F33", 2)


def test_the_lots_of_the_instruments_reach_the_orders(bars, tmp_path):
    told = ran(bars, tmp_path, "as_of=2022-01-03", "instruments.default.lot=300")
    assert told["orders"]
    assert all(order["shares"] % 300 == 0 for order in told["orders"])


def test_old_books_make_room(bars, tmp_path):
    for day in days_of(bars, "2022-01-03", 4):
        ran(bars, tmp_path, f"as_of={day}", "keep=2")
    assert len(list(tmp_path.glob("book_*.json"))) == 2
    assert len(list(tmp_path.glob("orders_*.csv"))) == 4


@pytest.mark.parametrize("name", ["top_scores", "kelly"])
def test_what_a_model_says_is_followed(barrier, tiny_market, tmp_path, name):
    model = barrier.save(tmp_path / "model")
    last = tiny_market.panel.index.get_level_values("time").max()
    out = io.StringIO()
    cfg = composed(
        *("rebalance", f"portfolio={name}", "data=synthetic", "seed=0", "data.market.times=300"),
        *("data.market.assets=4", "data.market.snr=2.0", f"model={model}", f"root={tmp_path}"),
        *(f"as_of={last:%Y-%m-%d}", "json=true", "portfolio.sizes.each=0.5"),
    )
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        main(cfg)
    told = json.loads(out.getvalue())
    said = barrier.predict(tiny_market.panel, newest=True).droplevel("time")
    sides = said["margin"].gt(0).astype(int) - said["margin"].lt(0).astype(int)
    if name == "top_scores":
        assert told["signals"] == sides.to_dict()
        assert {o["asset"] for o in told["orders"]} == set(sides[sides > 0].index)
    else:
        worth = said["scale"] * (said["p_buy"] - said["p_sell"]) - said["cost"]
        assert {a for a, s in told["signals"].items() if s > 0} == set(worth[worth > 0].index)
    assert any("skill test" in alert for alert in told["alerts"]) == (
        "unproven" in set(said["status"])
    )


def test_a_day_without_orders_says_so(bars, tmp_path):
    early = words(bars, "as_of=2021-03-01", f"root={tmp_path}")
    ended = command("rebalance", *early)
    assert ended.code == 0, ended.err
    assert "no orders after 2021-03-01" in ended.out
    assert "0 assets judged, 0 up; 13 not judged" in ended.out
    assert "short history: 39 bars, 174 needed: E00, E01, E02, E03, E04 ..." in ended.out
    assert "! clusters: unavailable: no two assets have 60 returns" in ended.out


def test_the_table_shows_what_was_written(bars, tmp_path):
    given = words(bars, "as_of=2022-01-03", f"book={tmp_path}/books", "dry_run=false")
    ended = command("rebalance", *given, f"root={tmp_path}", "slow=0")
    assert ended.code == 0
    assert "dry run" not in ended.out
    assert "slow: the run took" in ended.err
    assert "book_2022-01-03.json" in ended.err
    assert terminal.console.width


@pytest.mark.realdata
def test_the_chinese_funds_day_by_day(realdata, tmp_path):
    path = realdata("cn_etf_daily_20_2014_2026.parquet")
    for day in ("2025-08-18", "2025-08-19", "2025-08-20"):
        out = io.StringIO()
        cfg = composed(
            *("rebalance", "data=parquet", f"data.path={path}", "data.columns.asset=symbol"),
            *("data.columns.time=date", "data.calendar=XSHG", "data.market=510300"),
            *("portfolio.sizes.lot=100", f"as_of={day}", f"book={tmp_path}", f"root={tmp_path}"),
            *("fills=simulated", "dry_run=false", "json=true"),
        )
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            main(cfg)
        told = json.loads(out.getvalue())
        assert len(told["signals"]) == 20
        assert all(order["shares"] % 100 == 0 for order in told["orders"])
    assert told["holdings"]
