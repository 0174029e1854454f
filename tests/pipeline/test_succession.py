"""What follows from an alarm, where an updated model goes, and that no leak ever serves."""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
from lightgbm import LGBMClassifier

from pipeline import artifacts, promotions, registry, updates
from pipeline.answers import Answer, answer, refuse_unanswerable
from pipeline.certificates import write_certificate
from pipeline.data.sources import frame
from pipeline.lock import lock
from pipeline.pointer import history, move, read_pointer
from pipeline.retraining import due
from pipeline.signal_pipeline import SignalPipeline
from pipeline.succession import branch, carry_out, plan
from pipeline.updating import repeat
from pipeline.watching import watched
from stages.audit.certificate import Certificate
from stages.base import ArtifactError, ConfigError
from stages.filter.relearn import TreeLearning
from stages.filter.tree_filter import TreeFilter
from stages.markets.drift import drift_rotation
from stages.online.drift import Alarm, DriftReport, DriftWatch
from stages.online.learning import Learning
from stages.online.promotion import Promotion
from stages.panel import until
from stages.refiner.relearn import NetLearning
from tests.conftest import PLANTED, command, tiny_pipeline
from tests.pipeline.test_promotions import recorded

BOTH = Learning(TreeLearning(decay=0.5), NetLearning(), every=20, share=0.1)
TURN, TRAINED, BARS = 320, 160, 441  # bars: of the market's turn, of the training, all there are
NIGHTS = [280, 320, 360, 400, 440]
TREES = TreeFilter(
    {"lightgbm": LGBMClassifier(n_estimators=20, learning_rate=0.15, n_jobs=1, verbosity=-1)}
)
GROWING = Learning(TreeLearning("grow", trees=20), every=20)
RULES = Promotion(gates=["evidence", "bars", "loss"], bars=40)
WATCH = DriftWatch(run_length=1000)
FOUND = DriftReport((), (), 0, pd.DataFrame(), {}, None, {}, "nothing", "")
SIZE = "data.market.times"
LATER = [*(word for word in PLANTED if not word.startswith(SIZE)), f"{SIZE}=340"]


def alarms(**kinds):
    """A report with an alarm of each kind, which asks for what is named."""
    time = pd.Timestamp("2020-01-01", tz="UTC")
    found = tuple(
        Alarm(k, "both", time, action.replace("_", " "), "") for k, action in kinds.items()
    )
    return replace(FOUND, alarms=found, active=found)


def test_each_alarm_gets_what_the_configuration_says():
    calm = answer(alarms(), BOTH, ())
    assert (calm.drifted, calm.learning.trees, calm.learning.nets) == (False, None, None)
    mild = answer(alarms(covariate="recalibrate", labels="nothing"), BOTH, ())
    assert (mild.drifted, mild.at_once, mild.stop) == (False, False, False)
    refit = answer(alarms(concept="refit"), BOTH, ())
    assert (refit.learning.trees, refit.learning.nets) == (BOTH.trees, None)
    assert (refit.drifted, refit.at_once) == (True, True)
    tuned = answer(alarms(concept="fine-tune"), BOTH, ())
    assert (tuned.learning.trees, tuned.learning.nets) == (BOTH.trees, BOTH.nets)
    more = answer(alarms(confirmed="retrain", worthless="stop firing"), BOTH, ())
    assert (more.actions, more.stop, more.drifted) == (("retrain", "stop firing"), True, False)


def test_an_alarm_is_new_once():
    found = alarms(concept="refit", worthless="stop_firing")
    first = answer(found, BOTH, ())
    again = answer(found, BOTH, first.alarms)
    assert (first.at_once, first.stop) == (True, True)
    assert (again.at_once, again.stop, again.drifted) == (False, False, True)


@pytest.mark.parametrize(
    ("actions", "learning", "needed"),
    [
        ({"concept": "refit"}, None, 20.0),
        ({"concept": "fine-tune"}, Learning(TreeLearning()), 20.0),
        ({"worthless": "stop firing"}, BOTH, 1.0),
    ],
)
def test_what_nothing_could_answer_is_refused_before_it_is_heard(actions, learning, needed):
    with pytest.raises(ConfigError, match="nothing would do that"):
        refuse_unanswerable(actions, learning, needed)
    refuse_unanswerable({"concept": "recalibrate", "confirmed": "retrain"}, learning, needed)


# a market that turns


@pytest.fixture(scope="module")
def market():
    turn = {"at": TURN / BARS, "until": (TURN + 5) / BARS}
    return drift_rotation(1, times=BARS, assets=8, snr=4.0, **turn)


def up_to(market, bars):
    time = market.panel.index.unique("time").sort_values()[bars - 1]
    return frame(until(market.panel, time), y=market.y[market.y["end"] <= time])


def night(root, market, bars):
    """Hear the alarms, and do what they ask for; the answer, and the updates that were made."""
    source = up_to(market, bars)
    with lock(root):
        found = watched(root, source, RULES, WATCH)
        promotions.act(root, found.standing, found.bar)
    asked = answer(found.drift, GROWING, updates.answered(root))
    todo = plan(root, None, asked.learning)
    known = source.bars, source.y
    return found, asked, list(carry_out(root, todo, known, asked, RULES, {}))


@pytest.fixture(scope="module")
def young(market, tmp_path_factory):
    """A root whose champion was trained well before the turn."""
    root, early = tmp_path_factory.mktemp("young"), up_to(market, TRAINED)
    sieve = tiny_pipeline(refiner=None, filter=TREES, coverage=None).fit(early.bars, early.y)
    sieve.save(root / "models", {"data": early.digest})
    artifacts.promote(root, sieve.digest)
    recorded(root, sieve.digest, "data=synthetic")
    return root, sieve


@pytest.fixture
def turning(young, tmp_path):
    return shutil.copytree(young[0], tmp_path / "root"), young[1]


def test_a_turn_is_heard_learnt_in_the_shadow_and_promoted_on_evidence(market, turning):
    root, sieve = turning
    for bars in NIGHTS[:2]:
        _, asked, [calm] = night(root, market, bars)
        assert (asked.alarms, asked.drifted) == ((), False)
        assert (calm.placed.role, calm.update.counts["lessons"]) == ("champion", 0)
    assert branch(root) is None
    found, asked, (learnt, kept_up) = night(root, market, NIGHTS[2])
    assert (asked.actions, asked.at_once) == (("refit",), True)
    assert learnt.placed.role == "challenger"
    assert learnt.update.counts["lessons"] > 0
    assert "evidence" in learnt.placed.why
    assert (kept_up.placed.role, kept_up.update.counts["lessons"]) == ("champion", 0)
    now = read_pointer(root)
    assert (now.champion, now.challenger) == (kept_up.update.child, learnt.update.child)
    lines = [registry.lineage(root, digest).line for _, digest in now.roles()]
    assert lines == [sieve.digest, now.challenger]  # they are heard apart
    champion = SignalPipeline.load(artifacts.champion(root))
    assert champion.stack_.filter.state() == sieve.stack_.filter.state()
    strong = replace(found, drift=replace(found.drift, action="retrain"))
    assert due(strong, 0).due  # a branch of the champion is not in the way of a new training
    _, asked, steps = night(root, market, NIGHTS[3])
    assert (asked.drifted, asked.at_once) == (True, False)
    assert [step.placed.role for step in steps] == ["champion", "challenger"]
    night(root, market, NIGHTS[4])
    [won] = [change for change in history(root)[1:] if change.action == "promote"]
    assert registry.lineage(root, won.champion).line == lines[1]
    assert registry.lineage(root, read_pointer(root).previous).line == lines[0]
    answers = [update.answer["actions"] for update in updates.read(root)]
    assert answers[0] == []
    assert ["refit"] in answers


def test_an_alarm_that_stops_firing_takes_the_proof_of_skill_back(market, turning):
    root, sieve = turning
    assert sieve.record_.skill_.proven_
    source = up_to(market, TRAINED + 5)
    known, stop = (source.bars, source.y), Answer(("stop firing",), ("x",), stop=True)
    [step] = carry_out(root, plan(root, None, None), known, stop, RULES, {})
    stopped = SignalPipeline.load(step.model)
    assert stopped.record_.skill_.restarts_ == 1
    assert not stopped.record_.skill_.proven_
    newest = stopped.predict(source.bars, newest=True)
    assert not (newest["status"] == "fire").any()
    [(update, digest)] = repeat(root, *known)
    assert update.answer["stop"]
    assert digest == update.child


# the command


@pytest.fixture
def root(trained, tmp_path):
    unaudited = shutil.ignore_patterns(artifacts.CERTIFICATE)  # another test may have left one
    shutil.copytree(trained[0] / "models", tmp_path / "models", ignore=unaudited)
    shutil.copy(trained[0] / "champion", tmp_path / "champion")
    return tmp_path


def leaky(root, digest):
    folder = artifacts.find(root, digest)
    found = {"data": "d", "audit": {}, "checked": {}, "times": (), "recipe": "r", "code": "c"}
    write_certificate(folder, Certificate(**found, verdict="leak", findings=("return_1",)))


def test_members_that_learnt_go_into_the_shadow_and_stage_3_goes_on(root):
    was = SignalPipeline.load(artifacts.champion(root))
    ended = command("update", *LATER, f"root={root}", "online=trees", "json=true")
    assert ended.code == 0, ended.err
    said = json.loads(ended.out)
    assert (said["role"], said["lessons"]) == ("challenger", 2)
    assert "leak audit" in said["why"]
    [other] = said["also"]
    assert (other["role"], other["lessons"]) == ("champion", 0)
    now = SignalPipeline.load(artifacts.champion(root))
    assert now.stack_.filter.state() == was.stack_.filter.state()
    assert now.stack_.ensemble.state() != was.stack_.ensemble.state()
    refused = command("update", *LATER, f"root={root}", "drifted=watch")
    assert (refused.code, "drift.actions.concept" in refused.err) == (2, True)


def test_no_model_with_a_leak_ever_serves(root):
    was = read_pointer(root)
    leaky(root, was.champion)
    ended = command("update", *LATER, f"root={root}", "promotion.gates=[]", "online=trees")
    assert ended.code == 4
    assert "closed: leak audit" in ended.err
    assert read_pointer(root) == was
    child = next(d for d in registry.models(root) if d != was.champion)
    for change in (registry.promote, registry.advance):
        with pytest.raises(ArtifactError) as error:
            change(root, child)
        assert error.value.code == "SV-X412"
    move(root, replace(was, champion=child, previous=was.champion))  # as an older version left it
    with pytest.raises(ArtifactError) as error:
        registry.roll_back(root)
    assert error.value.code == "SV-X412"
    path = artifacts.find(root, was.champion) / artifacts.CERTIFICATE
    path.write_text(path.read_text().replace('"leak"', '"passed"'))
    with pytest.raises(ArtifactError) as error:
        registry.promote(root, was.champion)
    assert error.value.code == "SV-F29"
