import numpy as np
import pandas as pd
import pytest

from pipeline.report import figures
from stages.ensemble.skill import PATH
from stages.evaluate import doubt


def bins(n: int = 4, shift: float = 0.0) -> list[dict]:
    said = np.linspace(0.2, 0.5, n) + shift
    return [
        {"confidence": c, "accuracy": c + 0.01, "low": c - 0.02, "high": c + 0.04, "rows": 100}
        for c in said
    ]


def test_a_reliability_diagram_has_a_line_a_group_and_the_exact_one():
    figure = figures.reliability({"SELL": bins(), "BUY": bins(shift=0.1)})
    exact, sell, buy = figure.data
    assert list(exact.x) == list(exact.y)
    assert list(sell.x) == [b["confidence"] for b in bins()]
    assert buy.error_y.array[0] == pytest.approx(0.03)
    assert figure.layout.showlegend
    assert len(figures.reliability({"one": []}).data) == 2


def test_a_bin_without_an_interval_is_drawn_without_one():
    empty = {"confidence": 0.3, "accuracy": None, "low": None, "high": None, "rows": 0}
    [_, line] = figures.reliability({"one": [*bins(), empty]}).data
    assert line.error_y.array[-1] is None


def test_coverage_over_time_is_that_of_the_rows_not_of_the_bars():
    times = pd.date_range("2020-01-01", periods=40, tz="UTC")
    history = pd.DataFrame(
        {
            "interval_coverage": np.tile([1.0, 0.5], 20),
            "interval_rows": np.tile([30.0, 10.0], 20),
            "set_coverage": 1.0,
            "set_rows": 20.0,
        },
        times,
    )
    intervals, sets = figures.coverage(history, level=0.95, window=10).data
    assert np.isnan(intervals.y[:9]).all()
    np.testing.assert_allclose(intervals.y[9:], (30 + 5) / 40)
    np.testing.assert_allclose(sets.y[9:], 1)


def test_a_long_line_is_thinned_and_keeps_its_end():
    times = pd.date_range("2020-01-01", periods=5003, freq="h", tz="UTC", name="time")
    path = pd.DataFrame(0.5, times, PATH)
    path.iloc[-1] = 30.0
    worst, _ = figures.skill(path, needed=20).data
    assert len(worst.y) <= figures.POINTS
    assert worst.y[-1] == 30
    assert worst.x[-1] == times[-1].to_datetime64() or pd.Timestamp(worst.x[-1]) == times[-1]


def test_risk_and_coverage_have_the_interval_around_the_line():
    curve = [
        {"coverage": c, "accuracy": 0.6 - 0.2 * c, "low": 0.5 - 0.2 * c, "high": 0.7 - 0.2 * c}
        for c in (0.1, 0.5, 1.0)
    ]
    band, line = figures.risk_coverage(curve, base_rate=0.35).data
    assert list(line.x) == [0.1, 0.5, 1.0]
    assert list(band.y[:3]) == [c["high"] for c in curve]
    assert list(band.y[3:]) == [c["low"] for c in reversed(curve)]


def test_doubt_rises_where_it_does():
    rng = np.random.default_rng(0)
    novelty = rng.gamma(4, 0.25, 1000)
    rows = pd.DataFrame({"novelty": novelty, "epistemic": novelty**2 / 100})
    rows.loc[:4, "novelty"] = np.nan
    tenths = doubt(rows)
    assert tenths["rows"].sum() == 995
    assert tenths["epistemic"].is_monotonic_increasing
    assert (tenths["low"] <= tenths["epistemic"]).all()
    [points] = figures.doubt(tenths.to_dict("records")).data
    assert list(points.x) == tenths["novelty"].tolist()


def test_doubt_of_no_rows_is_an_empty_table():
    assert doubt(pd.DataFrame({"novelty": [np.nan], "epistemic": [0.1]})).empty
