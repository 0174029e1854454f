"""Real vendor files: read where they lie, with their defects."""

import numpy as np
import pytest

from pipeline.data.instruments import Instruments
from pipeline.data.sources import parquet
from stages.base import DataError

pytestmark = pytest.mark.realdata
NAMES = {"asset": "symbol", "time": "date"}
ASIDE = {"on_bad": "quarantine", "max_refused_share": 0.2}


def test_corrupted_spells_are_refused_and_unadjusted_splits_flagged(real):
    path = real("us_equity_daily_dirty_symbols.parquet")
    with pytest.raises(DataError) as fault:
        parquet(path, columns=NAMES, calendar="XNYS")
    assert fault.value.code == "SV-F14.price"
    source = parquet(path, columns=NAMES, calendar="XNYS", **ASIDE)
    assert source.report.refused["SV-F15"] > 300
    returns = np.log(source.bars["close"]).groupby("asset").diff().dropna()
    jumps = returns[returns.abs() > 0.4]
    # the last level before a real split stays, and so do its two edges, flagged
    assert len(jumps) == source.report.flagged["SV-F15.jump"] == 7
    days = jumps.index.get_level_values("time").strftime("%Y-%m-%d")
    assert set(days) <= {"2004-10-13", "2005-03-23", "2006-05-09", "2006-06-12"}


def test_many_stocks_with_two_kinds_of_vendor_error(real):
    path = real("us_equity_daily_296_1990_2006.parquet")
    source = parquet(path, columns=NAMES, calendar="XNYS", **ASIDE)
    assert source.report.refused["SV-F14.price"] == 460  # zeros in high and low
    assert source.report.refused["SV-F15"] > 4000  # a year at another split factor
    assert len(source.bars.index.unique("asset")) == 296
    assert source.report.rows_kept + sum(source.report.refused.values()) == 1_138_715


def test_funds_of_two_exchanges_each_keep_their_own_calendar(real):
    path = real("m6_assets_daily_100_2018_2022.parquet")
    names = NAMES | {"adj_close": "adj_close"}
    with pytest.raises(DataError, match="outside of the exchange"):
        parquet(path, columns=names, calendar="XNYS")
    london = ["HIGH", "IEAA", "IEFM", "IEVL", "IUMO", "IUVL", "JPEA", "MVEU", "SEGA", "SPMV"]
    table = Instruments({f"{name}.L": {"calendar": "XLON"} for name in london})
    source = parquet(path, columns=names, calendar="instruments", instruments=table, market="IVV")
    assert not source.report.refused
    assert source.bars["market"].notna().mean() > 0.99


def test_unadjusted_splits_are_flagged_only(real):
    path = real("us_etf_daily_unadjusted_4_1998_2021.parquet")
    report = parquet(path, columns=NAMES, calendar="XNYS").report
    assert (report.refused, report.flagged["SV-F15.jump"]) == ({}, 4)


def test_another_exchange_and_a_market_that_never_closes(real):
    path = real("cn_etf_daily_20_2014_2026.parquet")
    assert parquet(path, columns=NAMES, calendar="XSHG").report.rows_kept == 42_524
    path = real("btc_perp_minute_2022_01.parquet")
    names = NAMES | {"time": "timestamp"}
    source = parquet(path, columns=names, timezone="UTC", calendar="24/7")
    assert source.report.rows_kept == 45_031
    assert not source.report.flagged
