import multiprocessing
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ledger import Trial, beside, digest_of, enter, place, read
from stages.base import StoreError

TIMES = pd.date_range("2020-01-01 21:00", periods=300, tz="UTC", name="time").as_unit("us")


def trial(recipe: str = "aa", seed: int = 0, **changed) -> Trial:
    returns = pd.Series(np.random.default_rng(seed).normal(0, 0.01, len(TIMES)), TIMES)
    given = {"kind": "train", "recipe": recipe, "data": "dd", "name": "market", "part": "test"}
    return Trial(**given | {"returns": returns, "seed": seed, "figures": {"ic": 0.1}} | changed)


def test_a_trial_comes_back_as_it_was_entered(tmp_path):
    ledger, entered = enter(tmp_path, trial(cost=7.5, span=5))
    [back] = read(tmp_path).trials
    assert (back.key, back.seed, back.cost, back.span) == (("aa", "dd", "test"), 0, 7.5, 5)
    assert (back.digest, back.figures, back.time) == (entered.digest, {"ic": 0.1}, entered.time)
    pd.testing.assert_series_equal(
        back.returns, trial().returns, check_freq=False, check_names=False, rtol=1e-6
    )
    assert ledger.find(entered.digest).digest == back.digest == read(tmp_path).head
    assert ledger.find("none") is None


def test_a_trial_without_a_book_is_counted_all_the_same(tmp_path):
    none = pd.Series(dtype="float64", index=pd.DatetimeIndex([], tz="UTC"))
    ledger, entered = enter(tmp_path, trial(returns=none))
    enter(tmp_path, trial("bb"))
    assert read(tmp_path).count == 2
    assert np.isnan(ledger.standing(entered).sharpe)


def test_a_rerun_is_no_new_trial_and_a_new_recipe_data_or_part_is(tmp_path):
    assert read(tmp_path).count == 0
    for entry in (trial(), trial(), trial(kind="evaluate", seed=1)):
        ledger, _ = enter(tmp_path, entry)
    assert (ledger.count, len(ledger.trials)) == (1, 3)
    for entry in (trial("bb"), trial(data="ee"), trial(part="valid")):
        ledger, _ = enter(tmp_path, entry)
    assert (ledger.count, len(ledger.trials)) == (4, 6)
    assert ledger.distinct[trial().key].seed == 1  # the newest


def enter_some(root, job, many):
    for number in range(many):
        enter(root, trial(f"{job}-{number}", seed=job))


def test_jobs_of_many_processes_are_all_counted(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    jobs = [spawn.Process(target=enter_some, args=(tmp_path, job, 6)) for job in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(120)
    assert [job.exitcode for job in jobs] == [0] * 3
    ledger = read(tmp_path)
    assert (ledger.count, len(ledger.trials), ledger.torn) == (18, 18, 0)
    assert {t.recipe for t in ledger.trials} == {f"{j}-{n}" for j in range(3) for n in range(6)}


def enter_without_end(root):
    number = 0
    while True:
        enter(root, trial(f"child-{number}"))
        number += 1


def test_a_process_killed_while_it_enters_leaves_a_ledger_that_goes_on(tmp_path):
    enter(tmp_path, trial())
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=enter_without_end, args=(tmp_path,))
    process.start()
    while read(tmp_path).count < 4:
        time.sleep(0.02)
    process.kill()
    process.join(30)
    before = read(tmp_path)
    after, _ = enter(tmp_path, trial("after"))
    assert after.count == read(tmp_path).count == before.count + 1


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_line_cut_short_anywhere_is_seen_kept_and_counted(data, tmp_path_factory):
    root = tmp_path_factory.mktemp("torn")
    for recipe in ("one", "two", "three"):
        enter(root, trial(recipe))
    whole = place(root).read_bytes()
    last = whole[:-1].rindex(b"\n") + 1
    cut = data.draw(st.integers(last + 1, len(whole) - 1))
    place(root).write_bytes(whole[:cut])
    torn = read(root)
    complete = cut == len(whole) - 1  # only its end of line is lost
    assert (torn.count, torn.torn, len(torn.trials)) == (3, int(not complete), 2 + complete)
    ledger, entered = enter(root, trial("four"))
    again = read(root)
    assert (again.count, again.torn, again.head) == (4, int(not complete), entered.digest)
    assert ledger.count == 4
    assert place(root).read_bytes().startswith(whole[:cut])  # nothing was taken away


@pytest.mark.parametrize("spoil", ["drop", "change", "swap", "garbage"])
def test_a_ledger_that_was_changed_is_refused_and_not_written_to(tmp_path, spoil):
    for number in range(4):
        enter(tmp_path, trial(str(number)))
    lines = place(tmp_path).read_bytes().splitlines(keepends=True)
    spoilt = {
        "drop": [lines[0], *lines[2:]],
        "change": [lines[0], lines[1].replace(b'"ic":0.1', b'"ic":0.9'), *lines[2:]],
        "swap": [lines[1], lines[0], *lines[2:]],
        "garbage": [lines[0], b"{torn\n", *lines[2:]],
    }[spoil]
    place(tmp_path).write_bytes(b"".join(spoilt))
    for act in (lambda: read(tmp_path), lambda: enter(tmp_path, trial("new"))):
        with pytest.raises(StoreError, match="does not follow the line before it") as error:
            act()
        assert error.value.code == "SV-X523"
    assert place(tmp_path).read_bytes() == b"".join(spoilt)


def test_the_best_of_many_trials_without_skill_stands_as_luck(tmp_path):
    for seed in range(30):
        enter(tmp_path, trial(str(seed), seed))
    ledger = read(tmp_path)
    known = {}
    standings = [ledger.standing(t, resamples=50, known=known) for t in ledger.trials]
    assert len(known) == 1  # all share their bars
    best = max(standings, key=lambda s: s.sharpe)
    assert best.trials == best.compared == 30
    assert best.common == 300
    assert best.above_zero > 0.95 > best.deflated
    assert 1 < best.by_luck < 4
    assert 0.2 < best.overfitting < 0.9


def test_trials_on_other_data_count_but_are_not_compared(tmp_path):
    enter(tmp_path, trial("a", 1))
    ledger, alone = enter(tmp_path, trial("b", 2, name="another market"))
    said = ledger.standing(alone, resamples=50)
    assert (said.trials, said.compared) == (2, 1)
    assert np.isnan(said.overfitting)
    assert said.by_luck > 0  # what luck gives in so many bars stands in for the spread of trials
    later = trial("c", 3)
    moved = later.returns.set_axis(later.returns.index + pd.Timedelta("900D"))
    ledger, apart = enter(tmp_path, trial("c", 3, returns=moved))
    assert ledger.standing(apart, resamples=50).compared == 1


def test_the_ledger_of_a_folder_is_that_of_the_root_above_it(tmp_path):
    enter(tmp_path / "root", trial())
    runs = tmp_path / "root" / "sweeps" / "today"
    assert beside(runs, "elsewhere") == (tmp_path / "root").resolve()
    assert str(beside(tmp_path / "other", "elsewhere")) == "elsewhere"


def test_a_digest_is_of_what_is_said_and_in_which_order():
    assert digest_of({"a": 1}, None) == digest_of({"a": 1}, None)
    assert (
        len({digest_of({"a": 1}, None), digest_of({"a": 2}, None), digest_of(None, {"a": 1})}) == 3
    )
