import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp

from stages.online.shift import shift

NAMES = [f"feature.x{k}" for k in range(5)]


def panel(seed, bars, assets=5, memory=0.0, begin="2015-01-01"):
    """Inputs that the assets share in part, and whose bars hang together by `memory`."""
    rng = np.random.default_rng(seed)
    x_ATF = 0.7 * (rng.standard_normal((assets, bars, 5)) + rng.standard_normal((bars, 5)))
    for t in range(1, bars):
        x_ATF[:, t] = memory * x_ATF[:, t - 1] + np.sqrt(1 - memory**2) * x_ATF[:, t]
    times = pd.date_range(begin, periods=bars, tz="UTC").as_unit("us")
    index = pd.MultiIndex.from_product([[f"A{a}" for a in range(assets)], times])
    return pd.DataFrame(x_ATF.reshape(-1, 5), index.set_names(["asset", "time"]), NAMES)


def halves(table, cut):
    times = table.index.unique("time")
    late = table.index.get_level_values("time") >= times[cut]
    return table[~late], table[late].copy()


@pytest.mark.parametrize("memory", [0.0, 0.6])
def test_without_a_shift_p_values_are_as_small_as_chance_has_it(memory):
    least = [
        shift(*halves(panel(seed, 400, 3, memory), 250), NAMES, draws=199).least
        for seed in range(20)
    ]
    assert np.mean(np.array(least) <= 0.1) <= 0.25


def test_without_dependence_in_mind_the_same_windows_would_alarm():
    found = [
        min(ks_2samp(*(half[name] for half in halves(table, 250))).pvalue for name in NAMES)
        for table in (panel(seed, 400, 3, 0.6) for seed in range(10))
    ]
    assert np.mean(np.array(found) <= 0.1 / 5) > 0.5


def test_a_shifted_input_is_found_and_named():
    before, after = halves(panel(0, 500, memory=0.3), 300)
    after["feature.x2"] += 1.0
    found = shift(before, after, NAMES, draws=1999)
    assert found.table.index[0] == "feature.x2"
    assert found.least <= 3 / 2000 + 1e-12
    assert found.table.loc["feature.x2", "psi"] > 0.25
    assert found.table.drop("feature.x2")["psi"].max() < 0.25


def test_a_change_of_what_inputs_have_to_do_with_each_other_is_found_by_mmd_alone():
    before, after = halves(panel(1, 600), 300)
    after["feature.x1"] = after["feature.x0"]
    found = shift(before, after, NAMES, draws=999)
    assert found.p["mmd"] <= 0.01
    assert min(found.p["psi"], found.p["ks"]) > 0.01


def test_an_input_that_goes_missing_is_a_shift():
    before, after = halves(panel(2, 500), 300)
    after["feature.x4"] = np.nan
    found = shift(before, after, NAMES, draws=999)
    assert found.table.index[0] == "feature.x4"
    assert found.p["psi"] <= 0.002


def test_inputs_whose_bars_hang_together_for_too_long_are_not_judged():
    before, after = halves(panel(3, 500, memory=0.99), 350)
    found = shift(before, after, NAMES, draws=99)
    assert not found.table["judged"].any()
    assert found.least == 1


def test_windows_too_short_to_tell_are_not_judged():
    found = shift(*halves(panel(4, 300), 260), NAMES, draws=99)
    assert not found.table["judged"].any()


def test_the_same_seed_gives_the_same_figures_and_the_order_of_rows_does_not_matter():
    before, after = halves(panel(5, 500), 300)
    one, other = (shift(before, after, NAMES, draws=99, seed=3) for _ in range(2))
    assert one.p == other.p
    pd.testing.assert_frame_equal(one.table, other.table)
