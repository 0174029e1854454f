"""The five commands from end to end, on a planted market and in folders of their own."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pandas as pd
import pytest

from pipeline import artifacts
from pipeline.data.sources import frame
from pipeline.overview import stored
from pipeline.report import terminal
from pipeline.signal_pipeline import SignalPipeline
from pipeline.signals_io import read_records
from pipeline.store.signal_store import SignalStore
from stages.markets.planted import mixed
from tests.conftest import PLANTED, ROOT, command

SCHEMA = json.loads((ROOT / "schemas" / "signal-v1.json").read_text())
LEAN = [word for word in PLANTED if not word.startswith("refiner")] + ["refiner=none"]


def ok(ended):
    assert ended.code == 0, ended.err
    return ended


def models(root):
    return sorted(path.name for path in (root / "models").iterdir())


def digest(root):
    return (root / "champion").read_text().split()[0]


@pytest.fixture
def root(trained, tmp_path) -> Path:
    """A root of this test's own, in which a model was trained."""
    shutil.copytree(trained[0] / "models", tmp_path / "models")
    shutil.copy(trained[0] / "champion", tmp_path / "champion")
    return tmp_path


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """A root whose champion has seen the first part of the market only."""
    root = tmp_path_factory.mktemp("split")
    words = ["split=dates", "split.train_end=2000-10-31", "split.test_end=2001-12-31"]
    return root, ok(command("train", *LEAN, f"root={root}", "bootstrap=20", *words))


# train


def test_training_stores_records_and_promotes(trained):
    root, ended = trained
    ok(ended)
    [model] = models(root)
    assert digest(root).startswith(model)
    assert SignalPipeline.load(root / "models" / model).evaluation_["part"] == "out-of-fold"
    [run] = (path.parent for path in root.rglob("run.json"))
    record = json.loads((run / "run.json").read_text())
    assert record["artifact"] == digest(root)
    assert record["seed"] == 7
    assert SignalPipeline.load(run / "artifact").digest == digest(root)
    metrics = json.loads((run / "metrics.json").read_text())["out-of-fold"]["pipeline"]
    assert {"accuracy", "base_rate", "mcc", "log_loss", "ece", "rank_ic"} <= metrics.keys()
    assert f"root={root}" in (run / "command.txt").read_text()
    assert "times: 300" in (run / "config.yaml").read_text()
    [importance] = stored(root / "runs").values()
    assert importance.inputs["share"].sum() == pytest.approx(1)


def test_training_prints_base_rate_and_mcc_beside_accuracy(trained):
    said = trained[1].out
    title, header = (line for line in said.splitlines() if re.search("base rate 0|accuracy", line))
    assert re.search(r"out-of-fold: \d+ unseen rows, .* base rate 0\.3\d\d ±", title)
    assert re.search(r"model +accuracy +mcc", header)
    assert re.search(r"\n pipeline +0\.\d{3} ±", said)
    assert "models/" in trained[1].err  # where it lies is a remark, not a result


def test_training_writes_every_evaluated_row(trained):
    rows = pd.read_parquet(trained[0] / "rows.parquet")
    assert rows["session"].notna().all()
    assert set(rows["label"]) == {-1, 0, 1}
    assert str(len(rows)) in trained[1].out


def test_training_again_gives_the_same_model(trained, tmp_path):
    ok(command("train", *PLANTED, f"root={tmp_path}", "bootstrap=20"))
    assert digest(tmp_path) == digest(trained[0])


def test_training_prints_one_json_document_when_asked(tmp_path):
    ended = ok(
        command(
            "train",
            *PLANTED,
            f"root={tmp_path}",
            "bootstrap=5",
            "json=true",
            "promote=false",
            "refiner.progress=true",
        )
    )
    said = json.loads(ended.out)
    assert Path(said["model"]).is_dir()
    assert said["metrics"]["out-of-fold"]["pipeline"]["base_rate"]["value"] > 0.3
    assert not (tmp_path / "champion").exists()


def test_a_split_reports_only_what_was_not_learnt(split):
    root, ended = split
    [model] = models(root)
    fitted = SignalPipeline.load(root / "models" / model)
    assert fitted.learned_until_ < pd.Timestamp("2000-11-01", tz="UTC")
    assert fitted.evaluation_["part"] == "test"
    assert fitted.evaluation_["span"][0] == "2000-11-01"
    assert "test: 328 unseen rows, 2000-11-01 to 2001-02-22" in ended.out


def test_a_walk_forward_reports_all_its_blocks(tmp_path):
    words = ["split=walk_forward", "split.blocks.n_folds=2", "split.blocks.first=0.6"]
    ended = ok(command("train", *LEAN, f"root={tmp_path}", "bootstrap=5", *words))
    assert re.search(r"test: 480 unseen rows, 2000-09-08 to 2001-02-22", ended.out)


def test_embedded_names_are_called_survivors(tmp_path):
    words = [
        *("data.start=2019-06-03", "data.assets=[AAPL,GE,XOM]", "filter=lightgbm", "refiner=none"),
        *("filter.members.lightgbm.n_estimators=5", "folds.n_folds=3", "bootstrap=5"),
    ]
    ended = ok(command("train", f"root={tmp_path}", *words))
    assert terminal.SURVIVORS in " ".join(ended.out.split())
    shown = ok(command("predict", f"root={tmp_path}", *words[:2], f"report={tmp_path}/page.html"))
    assert terminal.SURVIVORS in " ".join(shown.out.split())
    assert "today&#39;s survivors" in (tmp_path / "page.html").read_text()
    assert "2022-12-28" in shown.out


# predict


def test_predicting_writes_signals_to_the_schema_and_repeating_adds_nothing(root):
    path = root / "out" / "signals.jsonl"
    words = [*PLANTED, f"root={root}", f"output={path}"]
    shown = ok(command("predict", *words))
    records = read_records(path)
    assert [r["asset"] for r in records] == ["A0", "A1", "A2", "A3"]
    for record in records:
        jsonschema.validate(record, SCHEMA, cls=jsonschema.Draft202012Validator)
        assert record["model"] == digest(root)
        assert record["explanation"] is not None
        for word in record["explanation"]["text"][0].split():  # a cell may break the line
            assert word in shown.out
    written = path.read_bytes()
    ok(command("predict", *words))
    assert path.read_bytes() == written


def test_signals_are_stored_once(root, tmp_path):
    words = [*PLANTED, f"root={root}", f"store={tmp_path / 'signals.db'}"]
    for _ in range(2):
        ok(command("predict", *words))
    with SignalStore(str(tmp_path / "signals.db")) as store:
        assert [stored.signal.asset for stored in store.latest(9)] == ["A3", "A2", "A1", "A0"]
    refused = command("predict", *words[:-1], f"store={tmp_path}")  # a folder
    assert refused.code != 0
    assert "SV-" in refused.err


def test_every_row_is_a_signal_or_an_abstention(root):
    path = root / "signals.parquet"
    words = ["rows=all", "explain_rows=false", f"output={path}"]
    ended = ok(command("predict", *PLANTED, f"root={root}", *words))
    records = read_records(path)
    assert len(records) == 1200
    assert "older bars not shown" in ended.out
    newest = [r for r in records if r["time"] == max(r["time"] for r in records)]
    with_reasons = ok(command("predict", *PLANTED, f"root={root}", "json=true"))
    for record, other in zip(newest, json.loads(with_reasons.out), strict=True):
        apart = ("explanation", "config", "appraisal")  # checks look at reasons too
        assert {k: v for k, v in record.items() if k not in apart} == {
            k: v for k, v in other.items() if k not in apart
        }


def test_settings_that_change_a_record_do_not_contradict_an_earlier_one(root):
    words = [*PLANTED, f"root={root}", f"output={root}/signals.jsonl"]
    ok(command("predict", *words))
    ok(command("predict", *words, "explain_rows=false"))
    ok(command("predict", *words, "as_of=2001-04-01"))
    records = read_records(root / "signals.jsonl")
    assert len(records) == 12
    stale = [r["why_not"][0] for r in records if r["status"] == "abstain"]
    assert len(stale) == 4
    assert all(why["text"].startswith("staleness: expired") for why in stale)


def test_predicting_needs_no_labels_and_no_training_data(root):
    pipeline = SignalPipeline.load(artifacts.champion(root))
    bars = mixed(seed=7, times=300, assets=4, snr=2.0).panel
    short = frame(bars.groupby(level="asset").tail(pipeline.warmup).reset_index()).bars
    said = json.loads(ok(command("predict", *PLANTED, f"root={root}", "json=true")).out)
    for signal, record in zip(pipeline.signals(short), said, strict=True):
        assert (signal.asset, signal.confidence) == (record["asset"], record["confidence"])
        assert signal.reasons.contributions == record["explanation"]["contributions"]


def test_the_page_shows_the_model_and_its_evaluation(root):
    page = root / "pages" / "page.html"
    ok(command("predict", *PLANTED, f"root={root}", f"report={page}"))
    text = page.read_text()
    assert text.count('"type":"waterfall"') == 4
    assert "Does it work?" in text
    assert digest(root)[:16] in text


def test_a_model_may_be_named(root, trained):
    folder = trained[0] / "models" / models(trained[0])[0]
    ended = ok(
        command(
            "predict",
            *PLANTED,
            "root=/nowhere",
            f"model={folder}",
            "json=true",
            f"hydra.run.dir={root}/run",
        )
    )
    assert {s["model"] for s in json.loads(ended.out)} == {digest(trained[0])}


@pytest.mark.realdata
def test_a_vendor_file_goes_from_training_to_an_update(realdata, tmp_path):
    path = realdata("us_etf_daily_unadjusted_4_1998_2021.parquet")
    words = [
        *("data=parquet", f"data.path={path}", "data.calendar=XNYS", "data.start=2018-01-02"),
        *("data.columns.asset=symbol", "data.columns.time=date", "data.on_bad=quarantine"),
        *("filter=lightgbm", "refiner=none", "folds.n_folds=3", f"root={tmp_path}"),
    ]
    small = ["filter.members.lightgbm.n_estimators=5", "bootstrap=5"]
    ok(command("train", *words, *small, "data.end=2020-06-30"))
    shown = ok(command("predict", *words, f"output={tmp_path}/signals.jsonl"))
    assert "unproven" in shown.out or "hold" in shown.out
    assert {r["session"] for r in read_records(tmp_path / "signals.jsonl")} == {"2021-03-31"}
    judged = ok(command("evaluate", *words, "bootstrap=5"))
    assert re.search(r"since 2020-07-\d\d: \d{3} unseen rows", judged.out)
    learnt = ok(command("update", *words))
    assert re.search(r"\d{3} new labels learnt", learnt.out)
    assert len(models(tmp_path)) == 2


# explain


def test_one_signal_is_explained_stage_by_stage(root):
    ended = ok(command("explain", *PLANTED, f"root={root}", "asset=A2", "time=2000-12-28", "top=4"))
    assert "A2 2000-12-28 21:00 UTC" in ended.out
    rows = dict(re.findall(r"^ *(\S+|\d others) +([+-]\d\.\d{4}) *$", ended.out, re.M))
    parts = [float(v) for name, v in rows.items() if name != "margin"]
    # baseline, four inputs and the others; then the same once more by member, less the baseline
    assert sum(parts[:6]) == pytest.approx(float(rows["margin"]), abs=1e-3)
    assert {"filter.forest", "refiner.lstm", "context"} <= rows.keys()


def test_every_asset_is_explained_at_its_newest_bar(root):
    alone = ["effort=fast", "why_not=false", "episodes=0"]
    ended = ok(command("explain", *PLANTED, f"root={root}", "json=true", *alone))
    records = json.loads(ended.out)
    assert {"change", "lean", "episodes"} <= records[0].pop("inquiry").keys()
    for record in records[1:]:
        record.pop("inquiry")
    assert [r["asset"] for r in records] == ["A0", "A1", "A2", "A3"]
    predicted = json.loads(ok(command("predict", *PLANTED, f"root={root}", "json=true")).out)
    assert records == predicted


def test_an_abstention_is_explained_by_what_it_lacks(root):
    ended = ok(command("explain", *PLANTED, f"root={root}", "asset=A2", "time=2000-01-04"))
    assert re.search(r"A2 2000-01-04 21:00 UTC: abstain \(history: \d+ bars missing\)", ended.out)


def test_what_drives_the_model_is_shown_written_and_stored(root, tmp_path):
    words = [*PLANTED, f"root={root}", "global=true", "since=2000-10-02", f"pages={tmp_path}"]
    told = ok(command("explain", *words)).out
    assert "what moves the margin" in told
    assert "against 2000-10-02 to" in told
    assert "x0" in (tmp_path / "overview.html").read_text()
    said = json.loads(ok(command("explain", *words, "json=true")).out)
    assert said["drift"]["level"] == 0.05
    runs = stored(root / "runs")
    assert len(runs) == 2
    shares = [found.inputs["share"].sort_index() for found in runs.values()]
    pd.testing.assert_series_equal(*shares)


def test_a_signal_has_a_page_of_its_own(root, tmp_path):
    words = [f"root={root}", "asset=A2", "time=2000-12-28", f"pages={tmp_path}", "episodes=3"]
    ok(command("explain", *PLANTED, *words))
    [page] = tmp_path.glob("*.html")
    assert page.name.startswith("A2")
    assert "log-odds of" in page.read_text()


# update


def test_an_update_makes_a_new_champion_and_keeps_the_old_model(split, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(split[0], root)
    [old] = models(root)
    words = [*LEAN, f"root={root}"]
    ended = ok(command("update", *words, "json=true"))
    said = json.loads(ended.out)
    assert said["learned"] > 300
    assert said["parent"].startswith(old)
    assert set(models(root)) == {old, Path(said["model"]).name}
    assert digest(root).startswith(Path(said["model"]).name)
    artifacts.read(root / "models" / old)  # still whole
    facts = json.loads((Path(said["model"]) / "facts.json").read_text())
    assert facts["parent"] == said["parent"]
    again = ok(command("update", *words))
    assert "0 new labels learnt" in again.out
    assert "unchanged" in again.out
    assert len(models(root)) == 2


def test_an_update_may_leave_the_champion(split, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(split[0], root)
    before = digest(root)
    ok(command("update", *LEAN, f"root={root}", "promote=false"))
    assert digest(root) == before
    assert len(models(root)) == 2


# evaluate


def test_a_model_is_judged_on_bars_after_what_it_learnt(split, tmp_path):
    root, _ = split
    words = [*LEAN, f"root={root}", "bootstrap=20", f"hydra.run.dir={tmp_path}"]
    ended = ok(command("evaluate", *words, f"predictions={tmp_path}/rows.parquet"))
    assert re.search(r"since 2000-\d\d-\d\d: \d+ unseen rows, .*base rate", ended.out)
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert rows["time"].min() > SignalPipeline.load(artifacts.champion(root)).learned_until_
    later = ok(command("evaluate", *words, "since=2001-01-02", "json=true"))
    said = json.loads(later.out)
    assert said["part"] == "since 2001-01-02"
    assert said["metrics"]["pipeline"]["rank_ic"]["value"] is not None


def test_a_start_inside_what_was_learnt_is_refused(split, tmp_path):
    words = [*LEAN, f"root={split[0]}", "since=2000-06-01", f"hydra.run.dir={tmp_path}"]
    ended = command("evaluate", *words)
    assert ended.code == 3
    assert "SV-F25" in ended.err
    assert "cure" in ended.err


def test_a_model_that_learnt_from_everything_has_nothing_left(root):
    ended = command("evaluate", *PLANTED, f"root={root}")
    assert ended.code == 3
    assert "hold no label of a bar after 2001-02-23" in ended.err


# sweeps


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweep")
    return root, ok(command("train", "-m", *LEAN, f"root={root}", "bootstrap=5", "seed=1,2"))


def test_a_sweep_leaves_one_record_a_job_and_one_table(sweep):
    root, _ = sweep
    assert len(list(root.rglob("run.json"))) == 2
    ended = ok(command("evaluate", f"root={root}", f"runs={root}/sweeps"))
    assert re.search(r"accuracy +mcc", ended.out)
    assert "base_rate" in ended.out
    for seed in (1, 2):
        figures = r"0\.\d{3} +0\.\d{3} +[+-]0\.\d{3}"  # base rate, accuracy, mcc
        assert re.search(rf"seed={seed} +out-of-fold +{figures}", ended.out)
    records = json.loads(
        ok(command("evaluate", f"root={root}", f"runs={root}/sweeps", "json=true")).out
    )
    assert {r["seed"] for r in records} == {1, 2}
    assert all(r["metrics.out-of-fold.pipeline.mcc.value"] is not None for r in records)


def test_runs_that_are_not_there_are_refused(tmp_path):
    ended = command("evaluate", f"root={tmp_path}", f"runs={tmp_path}/nothing")
    assert ended.code == 3
    assert "no runs to compare" in ended.err


# refusals: exit code, what, where, why, cure


def test_a_tampered_part_is_refused_and_nothing_is_predicted(root):
    part = root / "models" / models(root)[0] / "filter.lightgbm.txt"
    data = bytearray(part.read_bytes())
    data[100] ^= 1
    part.write_bytes(data)
    for name in ("predict", "explain", "update", "evaluate"):
        ended = command(name, *PLANTED, f"root={root}")
        assert ended.code == 4
        assert "SV-F29  filter.lightgbm.txt is not what was written" in ended.err
        assert ended.out == ""


def test_a_root_without_a_model_is_refused(tmp_path):
    ended = command("predict", *PLANTED, f"root={tmp_path}")
    assert ended.code == 4
    lines = ended.err.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("SV-X410"))
    assert [line.split()[0] for line in lines[at + 1 : at + 4]] == ["where", "why", "cure"]
    assert "python -m pipeline.train" in lines[at + 3]


@pytest.mark.parametrize(
    ("name", "words", "code", "said"),
    [
        ("predict", ["rows=some"], 2, "rows=some is neither newest nor all"),
        ("predict", ["as_of=soon"], 2, "as_of=soon is no date or time"),
        ("predict", ["explain_rows=maybe"], 2, "explain_rows=true or explain_rows=false"),
        ("predict", ["model=/nowhere"], 4, "no model at /nowhere"),
        ("predict", ["data.assets=A0"], 2, "data.assets=[A0]"),
        ("predict", ["data.assets=[ZZ]"], 3, "asset 'ZZ' is not in the data"),
        ("explain", ["top=some"], 2, "top=some is no whole number of at least 1"),
        ("evaluate", ["bootstrap=1"], 2, "bootstrap=1 is no whole number of at least 2"),
        ("update", ["promote=perhaps"], 2, "promote=perhaps is neither true nor false"),
        ("train", ["bootstrap=some"], 2, "bootstrap=some is no whole number"),
        ("predict", ["output=/tmp/signals.txt"], 2, "not as '.txt'"),
        ("predict", ["data.assets=[A0]", "data.market.times=5"], 3, "SV-F18"),
        ("explain", ["asset=B7"], 3, "no bar of asset=B7"),
        ("explain", ["time=2050-01-01"], 3, "2000-01-03 to 2001-02-23"),
        ("evaluate", ["since=once"], 2, "since=once is no date or time"),
        ("train", ["costs=default"], 2, "SV-X102"),
        ("train", ["data.market.times=20"], 3, "SV-F"),
        ("train", ["split=dates", "split.train_end=1990-01-01"], 3, "split.train_end"),
        (
            "train",
            ["split=dates", "split.train_end=2000-06-30", "split.valid_end=2000-06-30"],
            3,
            "no label lies in the valid part",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_fault_has_its_exit_code_and_a_cure(trained, tmp_path, name, words, code, said):
    ended = command(name, *PLANTED, f"root={trained[0]}", f"hydra.run.dir={tmp_path}", *words)
    assert ended.code == code, ended.err
    assert said in " ".join(ended.err.split())
    assert "\ncure " in ended.err
    assert "Traceback" not in ended.err
    assert json.loads((tmp_path / "error.json").read_text())["exit_code"] == code


def test_bars_that_lack_a_column_are_refused_by_name(root, tmp_path):
    bars = pd.DataFrame({"asset": "A", "time": ["2020-01-02T21:00Z"], "closing": 1.0})
    bars.to_csv(tmp_path / "bars.csv", index=False)
    ended = command("predict", f"root={root}", "data=csv", f"data.path={tmp_path}/bars.csv")
    assert ended.code == 3
    assert "SV-F20" in ended.err
    assert "closing" in ended.err


# in a shell


def shell(name, *words, cwd):
    return subprocess.run(
        [sys.executable, "-m", f"pipeline.{name}", *words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_a_model_trained_here_says_the_same_in_another_process(trained, tmp_path):
    here = command("predict", *PLANTED, f"root={trained[0]}", "json=true")
    words = [*PLANTED, f"root={trained[0]}", "json=true", f"hydra.run.dir={tmp_path}"]
    there = shell("predict", *words, cwd=tmp_path)
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout) == json.loads(ok(here).out)


def test_a_refusal_in_a_shell_ends_with_its_code(tmp_path):
    ended = shell("predict", *LEAN, cwd=tmp_path)
    assert ended.returncode == 4
    assert ended.stdout == ""
    assert "SV-X410" in ended.stderr


@pytest.mark.parametrize("name", ["train", "predict", "update", "explain", "evaluate"])
def test_help_is_quick_and_names_the_choices(name, tmp_path):
    heavy = ["torch", "pandas", "numpy", "lightgbm", "sklearn", "plotly"]
    code = (
        "import sys\n"
        f"sys.argv = ['{name}', '--help']\n"
        f"from pipeline.{name} import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"assert not {set(heavy)} & set(sys.modules), set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"refiner: .*lstm.*transformer", done.stdout)
