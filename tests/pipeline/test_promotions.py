"""A challenger in the shadow of a champion: what is said, judged, refused, promoted, undone."""

import json
import shlex
import shutil
from dataclasses import replace

import pandas as pd
import pytest
from lightgbm import LGBMClassifier

from pipeline import artifacts, promotions, registry, shadow
from pipeline.data.sources import frame
from pipeline.pointer import read_pointer
from pipeline.report import champions
from pipeline.retraining import Due, due, retrain
from pipeline.watching import watched
from stages.audit.certificate import Certificate
from stages.base import ArtifactError, DataError, SieveError, StoreError
from stages.filter.tree_filter import TreeFilter
from stages.markets.planted import mixed
from stages.online.ab import Comparison
from stages.online.drift import DriftWatch
from stages.online.promotion import Promotion
from stages.panel import until
from tests.conftest import command, tiny_pipeline

RULES = Promotion(gates=["evidence", "bars", "loss", "calibration"], bars=40)
LEARNT, BARS, ASSETS = 120, 260, 6  # bars that the models learn from, and all there are
DATA = (  # the same market, for the commands
    *("data=synthetic", "features=given", "labels=given", "costs=none", "horizon=1", "delay=0"),
    *(f"data.market.times={BARS}", f"data.market.assets={ASSETS}", "data.market.snr=3.0"),
)
TREES = TreeFilter(
    {"lightgbm": LGBMClassifier(n_estimators=8, num_leaves=7, n_jobs=1, verbosity=-1)}
)
GATES = "promotion.gates=[evidence,bars,loss,calibration,additivity]"


@pytest.fixture(scope="module")
def market():
    return mixed(seed=7, times=BARS, assets=ASSETS, snr=3.0)


def up_to(market, bars):
    """The market as it was known after so many bars, as a source of data."""
    time = market.panel.index.unique("time").sort_values()[bars - 1]
    y = market.y[market.y["end"] <= time]
    return frame(until(market.panel, time), y=y)


@pytest.fixture(scope="module")
def models(market, tmp_path_factory):
    """A root with a champion that learnt from labels turned round, and one that learnt well."""
    root, made = tmp_path_factory.mktemp("models"), {}
    early = up_to(market, LEARNT)
    turned = early.y.assign(side=(-early.y["side"]).astype("int8"))
    for name, y in (("bad", turned), ("good", early.y)):
        pipeline = tiny_pipeline(refiner=None, filter=TREES, coverage=None).fit(early.bars, y)
        pipeline.save(root / "models", {"data": early.digest, "made": name})
        made[name] = pipeline.digest
    return root, made


@pytest.fixture
def root(models, tmp_path):
    shutil.copytree(models[0], tmp_path, dirs_exist_ok=True)
    return tmp_path, models[1]


def test_a_better_challenger_is_promoted_and_a_worse_one_undone(root, market):
    root, made = root
    registry.promote(root, made["bad"], bar=promotions.newest(up_to(market, LEARNT)))
    registry.challenge(root, made["good"])
    early = promotions.stand(root, up_to(market, LEARNT + 20), RULES)
    assert early.action == "wait"
    assert "bars" in {check.gate for check in early.promotion.closed}
    with pytest.raises(ArtifactError) as error:
        promotions.refuse_closed_gates(early)
    assert (error.value.code, error.value.exit_code) == ("SV-X412", 4)
    assert "bars" in error.value.what
    assert promotions.act(root, early, "") is None
    source = up_to(market, LEARNT + 80)
    later = promotions.stand(root, source, RULES)
    assert later.action == "promote", later.promotion.text
    pointer = promotions.act(root, later, promotions.newest(source))
    assert (pointer.champion, pointer.previous) == (made["good"], made["bad"])
    # the other way round: the worse one was put in by hand, and the former comes back
    bad = registry.promote(root, made["bad"], "by hand", promotions.newest(source))
    assert (bad.champion, bad.previous) == (made["bad"], made["good"])
    assert promotions.stand(root, up_to(market, LEARNT + 100), RULES).action == "wait"
    last = up_to(market, 255)
    undone = promotions.stand(root, last, RULES)
    assert undone.action == "roll back", undone.rollback.text
    assert promotions.act(root, undone, promotions.newest(last)).champion == made["good"]


def test_what_was_said_stays_said_and_labels_come_when_they_are_known(root, market):
    root, made = root
    registry.promote(root, made["good"])
    lineage = registry.lineage(root, made["good"])
    first = promotions.stand(root, up_to(market, LEARNT + 10), RULES).models["champion"].rows
    assert first["side"].isna().any()
    again = promotions.stand(root, up_to(market, LEARNT + 10), RULES).models["champion"].rows
    pd.testing.assert_frame_equal(first, again)
    later = promotions.stand(root, up_to(market, LEARNT + 30), RULES).models["champion"].rows
    pd.testing.assert_frame_equal(later.loc[first.index, shadow.ODDS], first[shadow.ODDS])
    assert later.loc[first.index, "side"].notna().all()
    stored = shadow.read(root, lineage.first)
    pd.testing.assert_frame_equal(stored, later, check_freq=False)


def test_no_label_whose_horizon_is_open_is_noted(root, market):
    root, made = root
    registry.promote(root, made["good"])
    source = up_to(market, LEARNT + 10)
    future = market.y[market.y.index.isin(source.bars.index)]  # labels of the future are at hand
    source = frame(source.bars, y=future)
    rows = promotions.stand(root, source, RULES).models["champion"].rows
    assert (rows["end"].dropna() <= source.bars.index.get_level_values("time").max()).all()
    assert rows["side"].isna().any()


def test_a_model_speaks_of_no_row_that_it_learnt_from(root, market):
    root, made = root
    registry.promote(root, made["good"])
    standing = promotions.stand(root, up_to(market, LEARNT + 10), RULES)
    model = standing.models["champion"]
    assert model.rows.index.get_level_values("time").min() >= model.pipeline.learned_until_


def test_a_model_that_never_spoke_in_the_shadow_is_refused(root):
    root, made = root
    registry.promote(root, made["bad"])
    with pytest.raises(ArtifactError) as error:
        promotions.refuse_untried(root, made["good"])
    assert error.value.code == "SV-X412"
    registry.challenge(root, made["good"])
    promotions.refuse_untried(root, made["good"])


def test_without_a_challenger_there_is_nothing_to_promote(root, market):
    root, made = root
    registry.promote(root, made["good"])
    standing = promotions.stand(root, up_to(market, LEARNT + 10), RULES)
    with pytest.raises(ArtifactError, match="no challenger"):
        promotions.refuse_closed_gates(standing)


def test_the_gate_of_the_leak_audit_reads_the_certificate(root):
    root, made = root
    folder = artifacts.find(root, made["good"])
    assert promotions.audit(folder) == "none"
    from pipeline.certificates import code_digest, write_certificate

    recipe = registry.config_of(folder)
    sound = {"data": "d", "audit": {}, "checked": {}, "times": ()}
    for said, fields in (
        ("pass", {"verdict": "passed", "recipe": recipe, "code": code_digest()}),
        ("stale", {"verdict": "passed", "recipe": "other", "code": code_digest()}),
        ("stale", {"verdict": "passed", "recipe": recipe, "code": "older"}),
        ("leak", {"verdict": "leak", "recipe": recipe, "code": code_digest(), "findings": ("x",)}),
    ):
        write_certificate(folder, Certificate(**sound, **fields))
        assert promotions.audit(folder) == said


def test_models_that_foresee_other_spans_are_not_compared(root, market):
    root, made = root
    registry.promote(root, made["good"])
    registry.challenge(root, made["bad"])
    standing = promotions.stand(root, up_to(market, LEARNT + 10), RULES)
    other = standing.models["challenger"]
    other.pipeline.labels.horizon += 1
    with pytest.raises(DataError):
        promotions._same_question(standing.models["champion"], other)


def test_a_damaged_record_of_the_shadow_is_refused(root, market):
    root, made = root
    registry.promote(root, made["good"])
    promotions.stand(root, up_to(market, LEARNT + 10), RULES)
    [path] = (root / "shadow").iterdir()
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(StoreError) as error:
        promotions.stand(root, up_to(market, LEARNT + 10), RULES)
    assert error.value.code == "SV-X524"
    assert read_pointer(root).champion == made["good"]


# the commands


def ok(ended):
    assert ended.code == 0, ended.err
    return ended


def test_the_commands_from_a_challenger_to_a_rollback(root, tmp_path_factory):
    root, made = root
    registry.promote(root, made["bad"])
    where = f"root={root}"
    ok(command("promote", where, f"model={made['good'][:8]}", "to=challenger"))
    refused = command("promote", where, *DATA)
    assert refused.code == 4
    assert "SV-X412" in refused.err
    assert "leak audit" in refused.err
    assert read_pointer(root).champion == made["bad"]
    page = tmp_path_factory.mktemp("page") / "monitor.html"
    ended = ok(command("monitor", where, *DATA, GATES, "act=true", "json=true", f"report={page}"))
    told = json.loads(ended.out)
    assert (told["action"], told["changed"]) == ("promote", True)
    assert told["models"]["champion"]["model"] == made["bad"]
    assert read_pointer(root).champion == made["good"]
    text = page.read_text()
    assert "Champion and challenger" in text
    assert made["bad"][:16] in text
    ok(command("rollback", where, "why=a test"))
    assert read_pointer(root).champion == made["bad"]
    assert read_pointer(root).why == "a test"


def test_what_the_monitor_prints_names_models_gates_drift_and_what_comes_next(root, market, capsys):
    root, made = root
    registry.promote(root, made["bad"])
    registry.challenge(root, made["good"])
    found = watched(root, up_to(market, BARS), RULES, DriftWatch())
    champions.show_watched(found)
    text = capsys.readouterr().out
    for word in (made["bad"][:16], "evidence", "covariate", "what would happen next"):
        assert word in text
    assert found.next[0].startswith("python -m pipeline.promote: the challenger has won")
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert record["promotion"]["action"] == "promote"
    assert found.drift.shift.bars == (LEARNT, BARS - LEARNT)


def test_two_models_can_be_compared_without_a_role(root, market):
    root, made = root
    registry.promote(root, made["bad"])
    sides = made["bad"], made["good"]
    outcome = promotions.against(root, up_to(market, BARS), Comparison(), *sides)
    assert outcome.winner == "B"
    assert outcome.bars > 100


# training again


def watched_with(root, market, bars, action="nothing"):
    found = watched(root, up_to(market, bars), RULES, DriftWatch())
    return replace(found, drift=replace(found.drift, action=action))


def recorded(root, digest, *words):
    folder = root / "runs" / "first"
    folder.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "-m", "pipeline.train", *words])
    (folder / "run.json").write_text(json.dumps({"artifact": digest, "command": command}))


def test_a_training_is_due_by_the_clock_or_by_an_alarm_and_not_beside_a_challenger(root, market):
    root, made = root
    registry.promote(root, made["bad"])
    recorded(root, made["bad"], "+experiment=x", "root=a b", "split=dates", "promote=true")
    calm = watched_with(root, market, LEARNT + 60)
    asked = due(calm, 50, words=["seed=8"])
    assert (asked.due, asked.words) == (True, ("+experiment=x", "seed=8"))
    assert not due(calm, 100).due
    assert not due(calm, 0).due
    alarmed = replace(calm, drift=replace(calm.drift, action="retrain"))
    assert due(alarmed, 0).due
    assert not due(alarmed, 0, drift=False).due
    registry.challenge(root, made["good"])
    assert not due(watched_with(root, market, LEARNT + 60, "retrain"), 50).due


def test_a_champion_whose_training_nobody_recorded_is_not_trained_again(root, market):
    root, made = root
    registry.promote(root, made["bad"])
    with pytest.raises(ArtifactError) as error:
        due(watched_with(root, market, LEARNT + 10), 5)
    assert error.value.code == "SV-X413"


def test_a_training_that_fails_leaves_the_champion(root):
    root, made = root
    registry.promote(root, made["bad"])
    with pytest.raises(SieveError) as error:
        retrain(root, Due(True, "a test", ("=",)))
    assert error.value.code == "SV-X414"
    assert read_pointer(root).champion == made["bad"]
    assert read_pointer(root).challenger is None
