import numpy as np
import pandas as pd
import pytest

from stages.audit.compare import Said
from stages.audit.components import Ruler, World
from stages.audit.examine import Trial, examine, first_of_each
from stages.audit.futures import cut, garbage
from stages.audit.zoo.honest import Bars
from stages.base import DataError, LeakError


@pytest.fixture(scope="module")
def here():
    return World(Bars(assets=3, times=60, seed=0).draw())


def trials(here, *places, future=garbage):
    times = here.bars.index.unique("time").sort_values()
    for place in places:
        bars = future(here.bars, times[place], np.random.default_rng(place))
        yield Trial(times[place], future.__name__, here, World(bars))


def ahead(bars):
    def run(world):
        close = world.bars["close"]
        later = close.groupby(level="asset").shift(-bars) / close
        yield Said.at_rows("features", pd.DataFrame({"peek": later, "close": close}))

    return run


@pytest.mark.parametrize("bars", [1, 2, 10])
def test_a_look_ahead_is_found_with_its_first_bad_row_and_its_reach(here, bars):
    result = examine(ahead(bars), trials(here, 40, 20, future=cut))
    (finding,) = result.findings
    times = here.bars.index.unique("time").sort_values()
    assert (finding.component, finding.column, finding.ahead) == ("features", "peek", bars)
    assert finding.time == times[20 - bars + 1]
    assert finding.decision == times[20]
    assert finding.rows == 2 * 3 * bars
    assert result.checked == {"features": 2}
    assert result.times == (times[40], times[20])


def test_what_only_looks_back_is_passed(here):
    assert not examine(ahead(0), trials(here, 5, 30)).findings


def test_what_does_not_repeat_itself_is_not_blamed(here):
    rng = np.random.default_rng(0)

    def run(world):
        values = pd.DataFrame({"luck": rng.random(len(world.bars))}, world.bars.index)
        (peek,) = ahead(1)(world)
        yield Said.at_rows("features", peek.values.assign(luck=values["luck"]))

    result = examine(run, trials(here, 30))
    assert [f.column for f in result.findings] == ["peek"]
    assert result.remarks == ("features.luck is not repeatable: it was not compared",)


def test_what_a_pipeline_refuses_itself_is_a_finding(here):
    def run(world):
        raise LeakError("a row has two roles", code="SV-F26")

    (finding,) = examine(run, trials(here, 30)).findings
    assert (finding.component, finding.column, finding.here) == (
        *("roles", "a row has two roles", "SV-F26"),
    )


def test_another_future_that_is_refused_is_told(here):
    calls = []

    def run(world):
        calls.append(world)
        if len(calls) == 2:
            raise DataError("prices are too wild", code="SV-F12")
        yield from ahead(0)(world)

    result = examine(run, trials(here, 30, 40))
    assert not result.findings
    assert len(result.times) == 1
    assert "prices are too wild" in result.remarks[0]


def test_what_could_not_be_compared_at_all_does_not_pass(here):
    def run(world):
        if world is not here:
            raise DataError("prices are too wild", code="SV-F12")
        yield from ahead(0)(world)

    with pytest.raises(DataError, match="too wild"):
        examine(run, trials(here, 30, 40))
    with pytest.raises(DataError, match="too wild"):  # the true world
        examine(run, [Trial(t.time, "x", t.there, t.here) for t in trials(here, 30)])


def test_of_several_findings_the_earliest_is_kept(here):
    parts = [examine(ahead(1), trials(here, place)).findings for place in (40, 20, 50)]
    (first,) = first_of_each([f for part in parts for f in part])
    assert first.time == here.bars.index.unique("time").sort_values()[20]
    assert first.rows == 9


@pytest.mark.parametrize("embargo", [0, 3])
def test_a_label_is_lawful_from_the_first_bar_whose_cut_lies_after_it(here, embargo):
    times = here.bars.index.unique("time").sort_values()
    rule = Ruler(times, embargo)
    lawful = rule.lawful(times[:10])
    for settled, since in zip(times[:10], lawful, strict=True):
        known = [t for t in times[embargo:] if settled < rule.cut(t)]
        assert since == known[0]
    assert rule.lawful(times[-1:])[0] > times[-1]
