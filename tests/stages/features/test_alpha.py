"""Every column of Alpha158 and Alpha360 against pandas, by the public expressions."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from omegaconf import OmegaConf

import conf
from pipeline.recipe import instantiate
from stages.features import alpha158, alpha360
from stages.features.functions import reads
from stages.features.rows import Rows
from stages.panel import warmup

WINDOWS = (5, 10, 20, 30, 60)


def columns_of(name):
    """What the yaml names, without the rules that another group gives."""
    node = OmegaConf.load(Path(conf.__file__).parent / "features" / f"{name}.yaml")
    return instantiate(OmegaConf.create({"features": node, "rules": {}}).features).columns


ALPHA158, ALPHA360 = columns_of("alpha158"), columns_of("alpha360")


@pytest.fixture(scope="module")
def table(bars):
    """The longest asset, as a frame of Series."""
    return bars.loc["D"]


@pytest.fixture(scope="module")
def made(table):
    panel = pd.concat({"D": table}, names=["asset", "time"])
    rows = Rows.of(panel, set(table.columns))
    return lambda function: rows.run(function)


def shape_of_bar(table):
    o, h, lo, c = (table[name] for name in ("open", "high", "low", "close"))
    top, bottom, span = np.maximum(o, c), np.minimum(o, c), h - lo + 1e-12
    return {
        "KMID": (c - o) / o,
        "KLEN": (h - lo) / o,
        "KMID2": (c - o) / span,
        "KUP": (h - top) / o,
        "KUP2": (h - top) / span,
        "KLOW": (bottom - lo) / o,
        "KLOW2": (bottom - lo) / span,
        "KSFT": (2 * c - h - lo) / o,
        "KSFT2": (2 * c - h - lo) / span,
        **{f"{name.upper()}0": table[name] / c for name in ("open", "high", "low", "vwap")},
    }


def slow(series, w, function):
    return series.rolling(w).apply(function, raw=True)


def line(window, of):
    """Slope, share explained and last residual of a fit on 1 ... w."""
    place = np.arange(1, len(window) + 1)
    slope, level = np.polyfit(place, window, 1)
    r = np.corrcoef(place, window)[0, 1]
    return {"slope": slope, "fit": r**2, "rest": window[-1] - level - slope * place[-1]}[of]


def over_windows(table, w):
    c, h, lo, v = (table[name] for name in ("close", "high", "low", "volume"))
    move, traded = c.diff(), v.diff()
    up, down = c > c.shift(1), c < c.shift(1)
    all_moves = move.abs().rolling(w).sum() + 1e-12
    all_traded = traded.abs().rolling(w).sum() + 1e-12
    rises, falls = (move.clip(lower=0).rolling(w).sum(), (-move).clip(lower=0).rolling(w).sum())
    more, less = (traded.clip(lower=0).rolling(w).sum(), (-traded).clip(lower=0).rolling(w).sum())
    weighted = (c / c.shift(1) - 1).abs() * v
    top, bottom = h.rolling(w).max(), lo.rolling(w).min()
    at_top, at_bottom = slow(h, w, lambda x: x.argmax() + 1), slow(lo, w, lambda x: x.argmin() + 1)
    return {
        "ROC": c.shift(w) / c,
        "MA": c.rolling(w).mean() / c,
        "STD": slow(c, w, lambda x: np.std(x, ddof=1)) / c,
        "BETA": slow(c, w, partial(line, of="slope")) / c,
        "RSQR": slow(c, w, partial(line, of="fit")),
        "RESI": slow(c, w, partial(line, of="rest")) / c,
        "MAX": top / c,
        "MIN": bottom / c,
        "QTLU": c.rolling(w).quantile(0.8) / c,
        "QTLD": c.rolling(w).quantile(0.2) / c,
        "RANK": c.rolling(w).rank(pct=True),
        "RSV": (c - bottom) / (top - bottom + 1e-12),
        "IMAX": at_top / w,
        "IMIN": at_bottom / w,
        "IMXD": (at_top - at_bottom) / w,
        "CORR": correlation(c, np.log(v + 1), w),
        "CORD": correlation(c / c.shift(1), np.log(v / v.shift(1) + 1), w),
        "CNTP": up.rolling(w).mean(),
        "CNTN": down.rolling(w).mean(),
        "CNTD": up.rolling(w).mean() - down.rolling(w).mean(),
        "SUMP": rises / all_moves,
        "SUMN": falls / all_moves,
        "SUMD": (rises - falls) / all_moves,
        "VMA": v.rolling(w).mean() / (v + 1e-12),
        "VSTD": slow(v, w, lambda x: np.std(x, ddof=1)) / (v + 1e-12),
        "WVMA": slow(weighted, w, lambda x: np.std(x, ddof=1) / x.mean()),
        "VSUMP": more / all_traded,
        "VSUMN": less / all_traded,
        "VSUMD": (more - less) / all_traded,
    }


def correlation(x, y, w):
    """pandas' own rolling correlation loses seven digits where prices hardly move."""
    pairs = zip(*(np.lib.stride_tricks.sliding_window_view(s, w) for s in (x, y)), strict=True)
    ends = [np.corrcoef(one, other)[0, 1] for one, other in pairs]
    return pd.Series([np.nan] * (w - 1) + ends, x.index)


@pytest.fixture(scope="module")
def expected(table):
    whole = {f"{n}{w}": x for w in WINDOWS for n, x in over_windows(table, w).items()}
    return shape_of_bar(table) | whole


def test_there_are_158_columns_by_the_public_names(expected):
    assert len(ALPHA158) == 158
    assert set(ALPHA158) == set(expected)


@pytest.mark.parametrize("name", ALPHA158)
def test_every_column_equals_its_public_expression(name, made, expected):
    function = ALPHA158[name]
    got, wanted = made(function), expected[name].to_numpy()
    first = warmup(function)
    assert np.isnan(got[:first]).all()
    # a sum of prices that nearly cancels keeps fewer digits than the prices
    assert_allclose(got[first:], wanted[first:], rtol=1e-9, atol=1e-12)


def test_alpha360_is_the_last_60_bars_over_the_newest(made, table):
    assert len(ALPHA360) == 360
    assert list(ALPHA360)[:2] == ["CLOSE59", "CLOSE58"]
    for name, function in ALPHA360.items():
        source = name.rstrip("0123456789").lower()
        lag = int(name.removeprefix(source.upper()))
        newest = table["volume" if source == "volume" else "close"]
        wanted = table[source].shift(lag) / newest
        assert_allclose(made(function), wanted, rtol=1e-9)
        assert warmup(function) == lag


def test_a_shorter_set_of_the_same_kind():
    assert len(alpha360.columns(5)) == 30
    with pytest.raises(ValueError, match="at least 1"):
        alpha360.columns(0)


def test_without_vwap_its_columns_are_left_out(bars):
    built = alpha_set("alpha158").build(bars.drop(columns="vwap"))
    assert sum(c.startswith("feature.") for c in built) == 157
    fewer = alpha_set("alpha360").build(bars.drop(columns="vwap"))
    assert sum(c.startswith("feature.") for c in fewer) == 300
    assert not any("VWAP" in c for c in [*built, *fewer])


def alpha_set(name):
    node = OmegaConf.load(Path(conf.__file__).parent / "features" / f"{name}.yaml")
    return instantiate(OmegaConf.create({"features": node, "rules": {}}).features)


FLAT = np.full(90, 12.5)
ZERO = np.zeros(90)


@pytest.mark.parametrize(
    "name",
    [n for n in ALPHA158 if n[:4] in ("RSQR", "CORR", "CORD", "SUMP", "SUMN", "SUMD")]
    + [n for n in ALPHA158 if n.startswith(("RSV", "VSUM", "WVMA"))]
    + ["KMID2", "KUP2", "KLOW2", "KSFT2"],
)
def test_zero_by_zero_is_unknown_and_not_zero(name):
    function = ALPHA158[name]
    inputs = [FLAT for _ in reads(function)]
    settings = {k: v for k, v in function.keywords.items() if k not in reads(function)}
    assert np.isnan(function.func(*inputs, **settings)).all()


def test_a_bar_without_volume_has_no_ratio_to_it():
    traded = np.ones(90)
    traded[-1] = 0
    for made in (alpha158.vma(traded), alpha158.vstd(traded), alpha158.past(traded, traded, 5)):
        assert np.isnan(made[-1])
        assert np.isfinite(made[-2])


def test_of_equal_extremes_the_oldest_counts():
    high = np.array([1.0, 3, 2, 3, 1])
    assert alpha158.imax(high, 5)[-1] == pytest.approx(2 / 5)
    assert alpha158.imin(high, 5)[-1] == pytest.approx(1 / 5)
