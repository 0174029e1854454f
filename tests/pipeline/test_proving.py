"""Twelve leaks, one of each kind, and twelve honest pipelines; the benchmark has sixty of both."""

from collections import Counter
from dataclasses import replace

import pytest

from pipeline.proving import QUICK, prove_honest, prove_leaks
from stages.audit.zoo.honest import honest
from stages.audit.zoo.leaks import LEAKS

BRIEF = replace(QUICK, times=8, fits=1, decisions=1, assets=4, bars=130)
ONE_OF_EACH = (
    *("return of 1 bars later", "mean, 1 bars to each side", "bfill over 1 bars"),
    *("nearest stamp, 1 bars away", "close, 1 bars on, at its open", "scale", "window of 2 rows"),
    *("survivors", "end 1 bars early", "no embargo", "gate", "baseline of all bars"),
)
# plain enough to be fitted in a moment, and unlike each other
HONEST = (0, 2, 3, 8, 9, 12, 13, 14, 15, 17, 26, 38)


def test_the_zoo_has_sixty_leaks_of_twelve_kinds_at_several_lags():
    assert len({(leak.kind, leak.name) for leak in LEAKS}) == len(LEAKS) == 60
    assert len({leak.kind for leak in LEAKS}) == 12
    lags = Counter(n for leak in LEAKS for n in (1, 2, 10) if f" {n} bars" in f" {leak.name}")
    assert min(lags.values()) >= 6
    assert len({honest(n) for n in range(60)}) == 60


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_planted_leak_is_found_in_the_part_it_was_planted_in(name):
    (leak,) = [leak for leak in LEAKS if leak.name == name]
    (proof,) = prove_leaks([leak], BRIEF)
    assert proof.right, proof.report


@pytest.mark.parametrize("number", HONEST)
def test_an_honest_pipeline_passes(number):
    (proof,) = prove_honest([honest(number)], BRIEF)
    assert proof.right, proof.report.findings
    assert {"folds", "features", "filter", "ensemble", "learnt"} <= set(proof.report.checked)
