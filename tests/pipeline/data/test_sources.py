import gc
import random
import tracemalloc
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from pipeline.data import files
from pipeline.data.intake import Intake
from pipeline.data.sources import Source, csv, frame, parquet, us_index, us_large_caps
from stages.base import ConfigError, DataError
from stages.panel import check_panel
from tests.pipeline.data.conftest import make_daily

NYSE = {"calendar": "XNYS"}


def composed(*overrides: str) -> Source:
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose(None, ["+seed=1", *overrides])
    return instantiate(cfg.data, _convert_="all")


# embedded


def test_the_large_caps_come_with_the_index_as_market():
    source = composed("+data=us_large_caps", "+instruments=default")
    assert source.bars.columns.tolist() == ["close", "market", "sector", "session"]
    assert len(source.bars.index.unique("asset")) == 20
    assert "SP500" not in source.bars.index.unique("asset")
    assert source.bars.notna().all().all()
    assert source.survivors
    assert len(source.bars) == 20 * 8313


def test_real_jumps_are_flagged_and_kept():
    source = us_large_caps(**NYSE, assets=["AAPL", "RRC"])
    assert not source.report.refused
    jumps = " ".join(source.report.examples["SV-F15.jump"])
    assert "AAPL at 2000-09-29 20:00 UTC" in jumps  # -52 %
    assert "RRC at 1990-04-10 20:00 UTC" in jumps  # -67 %
    returns = np.log(source.bars["close"]).groupby("asset").diff()
    assert returns.loc["AAPL"].min() == pytest.approx(np.log(1 - 0.519), abs=0.01)


def test_the_indices_have_all_bar_columns():
    bars = composed("+data=us_index").bars
    assert bars.columns.tolist() == ["open", "high", "low", "close", "volume", "session"]
    assert bars.index.unique("asset").tolist() == ["NASDAQ", "SP500"]
    assert us_index(**NYSE, columns={"open": None}, assets=["SP500"]).bars.shape == (5031, 5)


def test_a_planted_market_brings_its_labels_and_its_truth():
    source = composed("+data=synthetic", "data.market.times=60", "data.market.assets=3")
    check_panel(source.bars, ["close", "session", "feature.x0", "context.regime"])
    assert source.y is not None
    assert source.truth.columns.tolist() == ["p_sell", "p_hold", "p_buy"]
    other = composed("+data=synthetic", "data.market.times=60", "seed=2", "data.market.assets=3")
    assert other.digest != source.digest
    first = source.bars.index[0][0]
    one = composed(
        "+data=synthetic", "data.market.times=60", "data.market.assets=3", f"data.assets=[{first}]"
    )
    assert {*one.bars.index.unique("asset"), *one.y.index.unique("asset")} == {first}


def test_a_market_without_what_was_planted_is_bars_like_any_other():
    garch = ("data.market._target_=stages.markets.noise.noise_garch", "~data.market.snr")
    source = composed("+data=synthetic", *garch, "data.market.times=60", "data.planted=false")
    columns = ["open", "high", "low", "close", "volume", "session"]
    assert source.bars.columns.tolist() == columns
    assert source.y is None
    assert source.truth is None


# files


def write(table: pd.DataFrame, path, suffix: str) -> str:
    if suffix == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return str(path)


READERS = {"csv": csv, "parquet": parquet}
both = pytest.mark.parametrize("suffix", ["csv", "parquet"])


@both
def test_one_table_and_a_file_per_asset_give_the_same_panel(tmp_path, daily, suffix):
    read = READERS[suffix]
    long = read(write(daily, tmp_path / f"all.{suffix}", suffix), **NYSE)
    folder = tmp_path / "each"
    folder.mkdir()
    for asset, table in daily.groupby("asset"):
        write(table.drop(columns="asset"), folder / f"{asset}.{suffix}", suffix)
    (folder / "notes.md").write_text("not a table")
    columns = {"asset": None}
    each = read(str(folder), **NYSE, columns=columns)
    globbed = read(f"{folder}/*.{suffix}", **NYSE, columns=columns)
    assert long.digest == each.digest == globbed.digest == frame(daily, **NYSE).digest
    pd.testing.assert_frame_equal(each.bars, long.bars)


@both
def test_columns_are_mapped_and_the_wrong_ones_named_with_the_nearest(tmp_path, daily, suffix):
    foreign = daily.rename(columns={"asset": "symbol", "time": "Date", "close": "Last"})
    path = write(foreign, tmp_path / f"all.{suffix}", suffix)
    with pytest.raises(DataError, match="no column 'asset'") as fault:
        READERS[suffix](path, **NYSE)
    assert fault.value.code == "SV-F20"
    for cure in ("asset='symbol'", "time='Date'", "close='Last'"):
        assert f"data.columns.{cure}" in fault.value.cure
    mapped = {"asset": "symbol", "time": "Date", "close": "Last"}
    assert READERS[suffix](path, **NYSE, columns=mapped).digest == frame(daily, **NYSE).digest


@both
def test_a_faulty_row_is_named_by_file_and_row(tmp_path, daily, suffix):
    folder = tmp_path / "each"
    folder.mkdir()
    daily.loc[3, "high"] = 0.0
    for asset, table in daily.groupby("asset"):
        write(table, folder / f"{asset}.{suffix}", suffix)
    with pytest.raises(DataError) as fault:
        READERS[suffix](str(folder), **NYSE)
    assert f"A.{suffix} row 4, A at 2020-02-21 21:00 UTC" in fault.value.where


def test_mapped_names_are_exact_and_unmapped_ones_match_in_any_case(daily):
    upper = daily.rename(columns=str.upper)
    assert frame(upper, **NYSE).digest == frame(daily, **NYSE).digest
    with pytest.raises(DataError, match="'adj' "):
        frame(daily, **NYSE, columns={"adj_close": "adj"})
    with pytest.raises(DataError, match="'volumes' ") as fault:
        frame(daily, **NYSE, columns={"volume": "volumes", "bid": "xyz"})
    assert "data.columns.volume: did you mean volume?" in fault.value.cure
    assert "data.columns.bid=NAME" in fault.value.cure
    with pytest.raises(DataError, match="stands twice"):
        frame(pd.concat([daily, daily[["close"]]], axis=1), **NYSE)
    with pytest.raises(ConfigError, match="null"):
        frame(daily, **NYSE, columns={"close": None})


def test_a_column_can_be_left_out_and_another_kept(daily):
    bars = frame(daily.assign(oi=5), **NYSE, columns={"open": None, "interest": "oi"}).bars
    assert bars.columns.tolist() == ["high", "low", "close", "volume", "interest", "session"]


def test_the_default_names_of_the_yaml_need_not_all_be_there(tmp_path, daily):
    path = write(daily[["asset", "time", "close"]], tmp_path / "x.parquet", "parquet")
    source = composed("+data=parquet", f"data.path={path}", "data.calendar=XNYS")
    assert source.bars.columns.tolist() == ["close", "session"]


def test_symbols_stay_as_they_are_written(tmp_path):
    symbols = ["NA", "000001", "TRUE", "BRK.B", "../x", "😀", "AAPL  140621C00650000", "a,b"]
    table = pd.concat([make_daily("A").assign(asset=s) for s in symbols])
    for suffix, read in READERS.items():
        path = write(table, tmp_path / f"all.{suffix}", suffix)
        assert set(read(path, **NYSE).bars.index.unique("asset")) == set(symbols)


def test_numeric_symbols_become_text(daily):
    bars = frame(daily.assign(asset=159915).head(58), **NYSE).bars
    assert bars.index.unique("asset").tolist() == ["159915"]


@both
def test_no_file_is_refused(tmp_path, suffix):
    for path in (tmp_path, tmp_path / "none", tmp_path / "*.x"):
        with pytest.raises(DataError, match="no .* file at"):
            READERS[suffix](str(path), **NYSE)


@both
def test_an_empty_file_is_refused(tmp_path, daily, suffix):
    path = write(daily.head(0), tmp_path / f"x.{suffix}", suffix)
    with pytest.raises(DataError, match="no bars"):
        READERS[suffix](path, **NYSE)
    (tmp_path / f"x.{suffix}").write_bytes(b"")
    with pytest.raises(DataError) as fault:
        READERS[suffix](path, **NYSE)
    assert fault.value.code in ("SV-F18", "SV-F19")


# dialects and damage


def text(daily: pd.DataFrame) -> str:
    return daily.to_csv(index=False)


@pytest.mark.parametrize(
    ("spoil", "dialect"),
    [
        (lambda t: "\ufeff" + t, {}),
        (lambda t: t.replace("\n", "\r\n"), {}),
        (lambda t: t.replace(",", ";"), {"separator": ";"}),
        (lambda t: t.replace(",", ";").replace(".", ","), {"separator": ";", "decimal": ","}),
        (lambda t: t.rstrip("\n"), {}),
    ],
)
def test_declared_dialects_read_the_same(tmp_path, daily, spoil, dialect):
    path = tmp_path / "x.csv"
    path.write_bytes(spoil(text(daily)).encode())
    assert csv(str(path), dialect, **NYSE).digest == frame(daily, **NYSE).digest


def test_thousands_are_read_only_when_declared(tmp_path, daily):
    table = daily.astype({"volume": object})
    table["volume"] = [f"{v:,.1f}" for v in daily["volume"]]
    path = write(table, tmp_path / "x.csv", "csv")
    with pytest.raises(DataError, match="volume = ") as fault:
        csv(path, **NYSE)
    assert fault.value.code == "SV-F19.number"
    assert "thousands" in fault.value.cure
    assert csv(path, {"thousands": ","}, **NYSE).digest == frame(daily, **NYSE).digest


def test_missing_numbers_are_missing_in_every_usual_spelling(tmp_path, daily):
    rows = text(daily).splitlines()
    for row, spelling in enumerate(files.MISSING, start=3):
        cells = rows[row].split(",")
        rows[row] = ",".join([*cells[:-1], spelling])
    path = tmp_path / "x.csv"
    for last in ("", "\nA,2020-07-06,1,2,3"):
        path.write_text("\n".join(rows) + last)
        if last:  # a line that is cut
            with pytest.raises(DataError) as fault:
                csv(str(path), **NYSE)
            assert fault.value.code == "SV-F19"
        else:
            assert csv(str(path), **NYSE).bars["volume"].isna().sum() == len(files.MISSING)


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t.replace(b"A,", b"A\x00,", 1),
        lambda t: t + b"A,2020-07-06,1,2,3,4,5,6\n",  # 1,234.5 without quotes
        lambda t: t + b"A" * (files.LONGEST_LINE + 2),
        lambda t: t.replace(b"A,2020", b"\xff\xfe\xfa,2020", 1),
    ],
)
def test_damaged_csv_is_refused(tmp_path, daily, damage):
    path = tmp_path / "x.csv"
    path.write_bytes(damage(text(daily).encode()))
    with pytest.raises(DataError) as fault:
        csv(str(path), **NYSE)
    assert fault.value.code == "SV-F19"
    assert "x.csv" in fault.value.what


def test_a_line_without_end_costs_no_memory(tmp_path):
    path = tmp_path / "x.csv"
    with path.open("wb") as file:
        for _ in range(64):
            file.write(b"1" * (1 << 20))
    gc.collect()
    tracemalloc.start()
    with pytest.raises(DataError, match="longer than"):
        csv(str(path), **NYSE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


def test_an_unknown_dialect_is_refused(tmp_path, daily):
    path = write(daily, tmp_path / "x.csv", "csv")
    with pytest.raises(ConfigError, match="no key 'sep'"):
        csv(path, {"sep": ";"}, **NYSE)
    with pytest.raises(DataError, match="cannot be read"):
        csv(path, {"encoding": "utf99"}, **NYSE)
    assert csv(path, {"missing": ["-"]}, **NYSE).report.rows_kept == len(daily)


def test_a_file_that_claims_too_many_rows_is_refused_unread(tmp_path, daily, monkeypatch):
    monkeypatch.setattr(files, "LARGEST_ROWS", 10)
    with pytest.raises(DataError, match=f"claims {len(daily)} rows"):
        parquet(write(daily, tmp_path / "x.parquet", "parquet"), **NYSE)


def test_damaged_parquet_is_refused_or_read_as_it_was(tmp_path, daily):
    whole = tmp_path / "whole.parquet"
    content = (daily.to_parquet(whole), whole.read_bytes())[1]
    expected, rng = frame(daily, **NYSE).digest, random.Random(0)
    path = tmp_path / "x.parquet"
    for cut in [4, len(content) // 2, len(content) - 5, *rng.sample(range(len(content)), 40)]:
        path.write_bytes(content[:cut])
        with pytest.raises(DataError):
            parquet(str(path), **NYSE)
    path.write_bytes(content)
    assert parquet(str(path), **NYSE).digest == expected


# frames


def test_a_panel_goes_in_as_it_came_out(daily):
    source = frame(daily, **NYSE, market="B", delay="15min")
    again = frame(source.bars)
    assert again.digest == source.digest
    pd.testing.assert_frame_equal(again.bars, source.bars)


def test_a_panel_is_still_checked(daily):
    bars = frame(daily, **NYSE).bars
    with pytest.raises(DataError, match="outside of the exchange"):
        frame(bars, calendar="XLON")
    bars.iloc[3, bars.columns.get_loc("close")] = -1
    with pytest.raises(DataError, match="not above 0"):
        frame(bars)


def test_precomputed_features_are_kept_as_float32(daily):
    features = {"feature.x": 1.0, "context.regime": 0.0}
    bars = frame(daily.assign(**features), **NYSE).bars
    assert (bars[[*features]].dtypes == "float32").all()
    with pytest.raises(DataError, match="feature.x = inf"):
        frame(daily.assign(**{"feature.x": np.inf}), **NYSE)


def test_labels_may_come_along_but_only_for_bars_that_are_there(daily):
    bars = frame(daily, **NYSE).bars
    end = bars.index.get_level_values("time") + pd.Timedelta(days=1)
    y = pd.DataFrame({"side": np.int8(1), "end": end, "weight": 1.0}, bars.index)
    assert frame(bars, y=y).y is y
    with pytest.raises(DataError, match="belongs to no bar"):
        frame(bars.iloc[1:], y=y)


def test_a_frame_without_assets_is_refused(daily):
    with pytest.raises(DataError, match="no file name"):
        frame(daily, **NYSE, columns={"asset": None})


def test_the_frame_handed_over_is_left_alone(daily):
    before = daily.copy()
    frame(daily, **NYSE, columns={"adj_close": "close"})
    pd.testing.assert_frame_equal(daily, before)


def test_quotes_are_carried_and_checked(minutes):
    quoted = minutes.assign(bid=minutes["close"] - 0.01, ask=minutes["close"] + 0.01)
    assert {"bid", "ask"} <= set(frame(quoted, **NYSE).bars.columns)
    with pytest.raises(DataError, match="bid = 0"):
        frame(quoted.assign(bid=0.0), **NYSE)


@pytest.mark.parametrize("name", ["csv", "parquet", "us_large_caps", "us_index"])
def test_every_yaml_names_all_keys_of_the_intake(name):
    with initialize_config_module("conf", version_base="1.3"):
        keys = set(compose(None, [f"+data={name}"]).data)
    assert {f.name for f in fields(Intake)} <= keys


def test_a_header_in_another_dialect_is_cured_by_its_separator(tmp_path, daily):
    daily.to_csv(tmp_path / "bars.csv", index=False, sep=";")
    with pytest.raises(DataError) as fault:
        csv(str(tmp_path / "bars.csv"), calendar="XNYS")
    assert 'data.dialect.separator=";"\'' in fault.value.cure
    assert "data.columns" not in fault.value.cure
    assert len(csv(str(tmp_path / "bars.csv"), {"separator": ";"}, calendar="XNYS").bars)
