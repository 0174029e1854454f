"""Quotes, trades, books and minutes at the boundary: what is refused, and which bars come out."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pipeline.data.frames import Frame, framed, sessions_of
from pipeline.data.instruments import Instruments
from pipeline.data.sources import frame
from pipeline.data.ticks import book, intraday, quotes, trades
from stages.base import ConfigError, DataError
from stages.features.microstructure import mid, order_flow
from stages.panel import until

FRAMES = {"m5": {"step": "5min", "rows": 5}, "d1": {"step": None, "rows": 390}}
LOBSTER = {
    **{"asset": None, "time": "timestamp", "close": "price", "volume": "size", "kind": "type"},
    **{"resting": "direction", "bid_size": "bid_size", "ask_size": "ask_size"},
}


def written(folder, table, name="X"):
    path = folder / f"{name}.parquet"
    table.to_parquet(path)
    return str(path)


@pytest.fixture
def quoted():
    times = pd.date_range("2024-03-04 15:00", periods=30, freq="min", tz="UTC")
    bid = 100 + np.arange(30) / 10
    return pd.DataFrame({"asset": "A", "time": times, "bid": bid, "ask": bid + 0.02})


@pytest.fixture
def traded():
    """Whole numbers, so that sums are exact; three trades share each second."""
    rng = np.random.default_rng(2)
    times = pd.date_range("2024-03-04 14:30:01", periods=200, freq="s", tz="UTC").repeat(3)
    price = 100.0 + rng.integers(-3, 4, 600)
    return pd.DataFrame({"time": times, "price": price, "volume": rng.integers(1, 9, 600) * 1.0})


def prices(**more):
    return {"close": "price", "asset": None, **more}


# quotes


def test_the_close_of_a_quote_is_its_mid(tmp_path, quoted):
    bars = quotes(written(tmp_path, quoted)).bars
    assert_array_equal(bars["close"], (quoted["bid"] + quoted["ask"]) / 2)
    assert {"bid", "ask"} <= set(bars)
    named = quoted.rename(columns={"bid": "b", "ask": "a"}).assign(last=99.0)
    path = written(tmp_path, named, "named")
    assert (
        quotes(path, columns={"bid": "b", "ask": "a", "close": "last"}).bars["close"] == 99
    ).all()


def test_a_crossed_quote_is_refused_by_name_or_set_aside_and_never_mended(tmp_path, quoted):
    quoted.loc[[4, 9], "ask"] = quoted["bid"] - 0.01
    quoted.loc[12, "ask"] = quoted.loc[12, "bid"]  # locked: a quote
    path = written(tmp_path, quoted)
    with pytest.raises(DataError, match="an ask below its bid") as fault:
        quotes(path)
    assert fault.value.code == "SV-F14.quote"
    assert "row 5, A at 2024-03-04 15:04" in str(fault.value)
    aside = str(tmp_path / "aside.csv")
    source = quotes(path, on_bad="quarantine", max_refused_share=0.1, quarantine=aside)
    assert source.report.refused == {"SV-F14.quote": 2}
    assert pd.read_csv(aside)["row"].tolist() == [5, 10]
    assert len(source.bars) == 28
    assert (source.bars["ask"] >= source.bars["bid"]).all()


def test_every_source_refuses_a_crossed_quote(quoted):
    table = quoted.assign(close=100.0)
    table.loc[3, "bid"] = 999.0
    with pytest.raises(DataError, match="an ask below its bid"):
        frame(table)


# trades


@pytest.mark.parametrize(("by", "size"), [("ticks", 20), ("volume", 50), ("value", 5000)])
def test_trades_become_bars_and_no_unit_is_lost(tmp_path, traded, by, size):
    source = trades(written(tmp_path, traded), {"by": by, "size": size}, columns=prices())
    bars = source.bars
    assert source.report.rows_kept == 600
    assert bars.index.unique("asset").tolist() == ["X"]
    last = bars.index[-1][1]
    told = traded[traded["time"] <= last]
    assert bars["volume"].sum() == told["volume"].sum()
    assert bars["value"].sum() == (told["volume"] * told["price"]).sum()
    assert bars["trades"].sum() == len(told)
    assert (bars[{"ticks": "trades"}.get(by, by)] >= size).all()


def test_bars_by_the_clock_end_with_the_minute_and_the_last_one_is_not_over(tmp_path, traded):
    bars = trades(
        written(tmp_path, traded),
        {"by": "time", "span": "1min"},
        columns=prices(),
        calendar="XNYS",
    ).bars
    times = bars.index.get_level_values("time")
    assert times.strftime("%H:%M:%S").tolist() == ["14:31:00", "14:32:00", "14:33:00"]
    want = traded.set_index("time").resample("1min", closed="right", label="right")
    assert bars["volume"].tolist() == want["volume"].sum().tolist()[:3]
    assert bars["close"].tolist() == want["price"].last().tolist()[:3]
    assert (bars["session"] == pd.Timestamp("2024-03-04")).all()


def test_a_trade_that_cannot_be_is_refused_by_its_row(tmp_path, traded):
    cuts = {"by": "ticks", "size": 10}
    for column, value, code in (
        ("price", -1.0, "SV-F14.price"),
        ("price", np.nan, "SV-F19.number"),
        ("volume", -1.0, "SV-F14.volume"),
        ("volume", np.inf, "SV-F12"),
    ):
        bad = traded.copy()
        bad.loc[7, column] = value
        path = written(tmp_path, bad)
        with pytest.raises(DataError) as fault:
            trades(path, cuts, columns=prices())
        assert fault.value.code == code
        aside = trades(path, cuts, columns=prices(), on_bad="quarantine", quarantine=None)
        assert aside.report.rows_kept == 599
        assert aside.report.refused == {code: 1}


def test_nanoseconds_are_rounded_up_so_that_no_trade_is_known_before_it_happened(tmp_path):
    times = pd.to_datetime([1_700_000_000_000_000_001, 1_700_000_000_000_001_000], utc=True)
    table = pd.DataFrame({"time": times.as_unit("ns"), "price": 1.0, "volume": 1.0})
    bars = trades(written(tmp_path, table), {"by": "ticks", "size": 1}, columns=prices()).bars
    assert len(bars) == 1  # within the same microsecond, then
    assert bars.index[0][1] == pd.Timestamp(1_700_000_000_000_001_000, tz="UTC")


def test_trades_that_fill_no_bar_and_bars_that_mean_nothing_are_refused(tmp_path, traded):
    path = written(tmp_path, traded)
    with pytest.raises(DataError, match="fill no bar"):
        trades(path, {"by": "volume", "size": 1e9}, columns=prices())
    with pytest.raises(ConfigError, match="need their length"):
        trades(path, {"by": "time"}, columns=prices())
    with pytest.raises(ConfigError, match="does not go with bars of ticks"):
        trades(path, {"by": "ticks", "size": 3}, columns=prices(), market="X")


def test_each_asset_fills_bars_of_its_own_by_its_own_clock(tmp_path, traded):
    night = traded.assign(time=traded["time"] - pd.Timedelta("6h"), volume=2.0)
    both = pd.concat([traded.assign(symbol="N"), night.assign(symbol="L")])
    path = written(tmp_path, both.sample(frac=1, random_state=1).sort_values("time", kind="stable"))
    table = Instruments({"L": {"calendar": "XLON"}})
    options = {"calendar": "instruments", "instruments": table}
    cut = {"by": "time", "span": "1min"}
    bars = trades(path, cut, columns=prices(asset="symbol"), **options).bars
    assert bars.index.unique("asset").tolist() == ["L", "N"]
    alone = trades(path, cut, columns=prices(asset="symbol"), assets=["L"], **options).bars
    pd.testing.assert_frame_equal(alone, bars.loc[["L"]])
    assert (alone["volume"] % 2 == 0).all()


# a book


def test_a_book_gives_bars_whose_trades_are_its_executions(tmp_path):
    times = pd.date_range("2024-03-04 14:30:01", periods=6, freq="10s", tz="UTC")
    table = pd.DataFrame(
        {
            **{"timestamp": times, "type": [1, 4, 1, 5, 3, 1], "size": [50, 5, 60, 7, 9, 1]},
            **{"price": [1.0, 11.0, 500.0, 10.5, 9.0, 9.0], "direction": [1, -1, 1, 1, 1, 1]},
            **{"bid": [10.0] * 6, "ask": [11.0] * 6, "bid_size": [5] * 6, "ask_size": [6] * 6},
        }
    )
    cut = {"by": "time", "span": "20s", "sizes": [6, 7]}
    bars = book(written(tmp_path, table), cut, columns=LOBSTER, calendar="XNYS").bars
    assert bars["volume"].tolist() == [5, 7]
    assert bars["buy_volume"].tolist() == [5, 0]  # it took from an order to sell
    assert bars["sell_volume"].tolist() == [0, 7]
    assert bars["cost"].tolist() == [5.0, 0.0]  # at the mid nothing is paid
    assert (bars["close"] == 10.5).all()
    with pytest.raises(DataError, match="which messages are trades"):
        book(written(tmp_path, table), cut, columns={**LOBSTER, "kind": None}, calendar="XNYS")


# minutes with the longer bars that they make up


@pytest.fixture
def minutes():
    """Every minute of New York and of London around a half day, and of a market that stays open."""
    tables = []
    for asset, zone, hours in (
        ("A", "America/New_York", ("09:31", "16:00")),
        ("B", "Europe/London", ("08:01", "16:30")),
    ):
        for day in ("2024-11-27", "2024-11-29"):
            late = "13:00" if (asset, day) == ("A", "2024-11-29") else hours[1]
            times = pd.date_range(f"{day} {hours[0]}", f"{day} {late}", freq="min", tz=zone)
            tables.append(pd.DataFrame({"asset": asset, "time": times.tz_convert("UTC")}))
    table = pd.concat(tables, ignore_index=True)
    return table.assign(close=50.0 + np.sin(np.arange(len(table))))


def test_each_exchange_keeps_its_own_hours(minutes):
    table = Instruments({"B": {"calendar": "XLON"}})
    source = frame(minutes, calendar="instruments", instruments=table)
    frames = FRAMES | {"d1": {"step": None, "rows": 510}}
    bars = framed(source, frames, "instruments", instruments=table).bars
    ends = pd.to_datetime(bars["bar_d1"].groupby("asset").unique().explode() * 1e9, utc=True)
    assert ends.dt.strftime("%m-%d %H:%M").tolist() == [
        *("11-27 21:00", "11-29 18:00"),  # New York closes at 13:00 after Thanksgiving
        *("11-27 16:30", "11-29 16:30"),
    ]
    assert (bars.groupby(["asset", "bar_m5"]).size() == 5).all()
    at_close = bars.loc[("A", pd.Timestamp("2024-11-29 18:00", tz="UTC"))]
    assert at_close["closed_d1"] == at_close["bar_d1"]
    assert (bars["closed_m5"].dropna() <= bars["bar_m5"][bars["closed_m5"].notna()]).all()


def test_a_delay_holds_a_longer_bar_back(minutes):
    source = frame(minutes[minutes["asset"] == "A"], calendar="XNYS")
    options = (("0min", 0), ("2min", 2))
    now, late = (framed(source, FRAMES, "XNYS", delay=d, late=n).bars for d, n in options)
    assert_array_equal(now["bar_m5"], late["bar_m5"])
    for bars, delay in ((now, 0), (late, 120)):
        times = bars.index.get_level_values("time").as_unit("us").asi8 / 1e6
        known = bars["closed_m5"].to_numpy()
        assert (known <= times - delay).all()
        assert (known[10:380] > times[10:380] - delay - 300).all()
    with pytest.raises(DataError, match="2 rows pass before a bar of m5 is known, 1 are declared"):
        framed(source, FRAMES, "XNYS", delay="2min", late=1)
    with pytest.raises(ConfigError, match="would be known"):
        framed(source, FRAMES, "XNYS", delay="0min", lag="1s")


def test_columns_of_the_past_do_not_depend_on_later_rows(minutes):
    source = frame(minutes[minutes["asset"] == "A"], calendar="XNYS")
    whole = framed(source, FRAMES, "XNYS").bars
    time = whole.index[300][1]
    early = frame(until(source.bars, time).reset_index(), calendar="XNYS")
    then = framed(early, FRAMES, "XNYS").bars
    pd.testing.assert_frame_equal(then, whole.loc[then.index], check_exact=True)


def test_a_bar_with_more_rows_than_declared_is_refused(minutes):
    source = frame(minutes, calendar=None)
    with pytest.raises(DataError, match="a bar of m5 has 5 rows, 4 are declared"):
        framed(source, {"m5": {"step": "5min", "rows": 4}})
    for wrong in ({"step": "5min", "rows": 0}, {"step": "-1min", "rows": 5}):
        with pytest.raises(ValueError, match="rows >= 1 and step > 0"):
            Frame(**wrong)


def test_minutes_of_quotes_are_framed_in_one_step(tmp_path, quoted):
    source = intraday(written(tmp_path, quoted), FRAMES, quoted=True, sessions="FX")
    plain = intraday(written(tmp_path, quoted.assign(close=1.0)), FRAMES, calendar="XNYS")
    assert {"bar_m5", "closed_d1", "bid"} <= set(source.bars)
    ends = pd.to_datetime([source.bars["bar_d1"].iloc[0], plain.bars["bar_d1"].iloc[0]], unit="s")
    assert ends.strftime("%H:%M").tolist() == ["22:00", "21:00"]
    assert source.digest != quotes(written(tmp_path, quoted)).digest


def test_currencies_have_five_days_a_week():
    table = sessions_of("FX", pd.date_range("2024-03-01", "2024-03-31", tz="UTC"))
    assert table.index.weekday.max() == 4
    assert (table["open"].iloc[1:].to_numpy() >= table["close"].iloc[:-1].to_numpy()).all()


# real data


@pytest.mark.realdata
def test_a_real_book_keeps_its_units_and_its_flow(real):
    path = real("lobster_amzn_l1_2012_06_21.parquet")
    options = {"columns": LOBSTER, "timezone": "America/New_York", "calendar": "XNYS"}
    source = book(path, {"by": "time", "span": "1min"}, **options)
    raw = pd.read_parquet(path)
    raw.index = raw["timestamp"].dt.ceil("us").dt.tz_localize("America/New_York")
    raw = raw[raw.index <= source.bars.index[-1][1]]
    done = raw[raw["type"].isin([4, 5])]
    assert source.bars["volume"].sum() == done["size"].sum()
    assert source.bars["trades"].sum() == len(done)
    assert source.bars["buy_volume"].sum() == done.loc[done["direction"] == -1, "size"].sum()
    assert_allclose(source.bars["value"].sum(), (done["size"] * done["price"]).sum(), rtol=1e-12)
    flow = order_flow(*(raw[c].to_numpy("float64") for c in ("bid", "ask", "bid_size", "ask_size")))
    minute = raw.index.ceil("min")
    assert_allclose(
        source.bars["ofi"].iloc[1:], pd.Series(flow).groupby(minute).sum().iloc[1:], rtol=1e-12
    )
    # Cont, Kukanov & Stoikov (2014): the flow of a minute explains most of its price change
    move = source.bars["close"].diff()
    assert np.corrcoef(source.bars["ofi"].iloc[1:], move.iloc[1:])[0, 1] > 0.6
    last = raw.groupby(minute)[["bid", "ask"]].last()
    assert_array_equal(source.bars["close"], mid(last["bid"].to_numpy(), last["ask"].to_numpy()))


@pytest.mark.realdata
def test_real_currencies_come_with_crossed_quotes_that_are_set_aside(real):
    path = real("fx_minute_bid_ask.parquet")
    columns = {"asset": "symbol", "time": "timestamp", "bid": "close_bid", "ask": "close_ask"}
    with pytest.raises(DataError) as fault:
        quotes(path, columns=columns)
    assert fault.value.code == "SV-F14.quote"
    source = quotes(path, columns=columns, on_bad="quarantine", quarantine=None)
    assert source.report.refused == {"SV-F14.quote": 347 + 683}
