"""Runs and roles in MLflow follow the files; a server that is dead loses none of them."""

import json

import pytest
from omegaconf import OmegaConf

from pipeline import artifacts, registry
from pipeline.mirror import SENT, Mirror

mlflow = pytest.importorskip("mlflow")

VALUES = {"recipe": {"@class": "x"}, "learned": {"evaluation_": None}}
DEAD = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def migrated(tmp_path_factory):
    """A store whose tables were made once: that takes seconds."""
    root = tmp_path_factory.mktemp("migrated")
    assert Mirror().send(root)
    return (root / "mlflow.db").read_bytes()


@pytest.fixture
def root(migrated, tmp_path):
    (tmp_path / "mlflow.db").write_bytes(migrated)
    return tmp_path


def run(root, name, mirror, **metrics):
    """One run, recorded as training does, and its model."""
    values = VALUES | {"name": name}
    digest = artifacts.digest_of(values, {})
    artifacts.write(root / "models" / digest[:16], values, {}, {"data": "d", "made": name})
    folder = root / "runs" / name
    folder.mkdir(parents=True)
    cfg = OmegaConf.create({"root": str(root), "seed": 7, "filter": {"trees": 8}})
    mirror(folder, cfg, {"test": {"pipeline": metrics}}, digest, "d", ["python", "-m", name])
    return digest


def client(root):
    uri = f"sqlite:///{root}/mlflow.db"
    return mlflow.tracking.MlflowClient(uri, uri)


def runs(root):
    there = client(root)
    return there.search_runs([there.get_experiment_by_name("sieve").experiment_id])


def test_a_run_arrives_with_its_figures_settings_and_files(root):
    digest = run(root, "one", Mirror(), ece=0.02, missing=None)
    [found] = runs(root)
    assert found.data.metrics == {"test.pipeline.ece": 0.02}
    assert found.data.params["filter.trees"] == "8"
    assert found.data.tags["sieve.digest"] == digest
    assert found.info.status == "FINISHED"
    names = {file.path for file in client(root).list_artifacts(found.info.run_id)}
    assert names == {"config.yaml", "metrics.json", "command.txt", "run.json"}
    assert not (root / "mlruns").exists()


def test_each_run_arrives_once(root):
    run(root, "one", Mirror(), ece=0.02)
    (root / "runs" / "one" / SENT).unlink()  # as if it had died before it noted that
    run(root, "two", Mirror(), ece=0.03)
    assert Mirror().send(root)
    assert len(runs(root)) == 2


def test_a_dead_server_loses_no_run(root, caplog):
    run(root, "one", Mirror(DEAD), ece=0.02)
    assert "did not answer" in caplog.text
    assert json.loads((root / "runs" / "one" / "run.json").read_text())["seed"] == 7
    assert not (root / "runs" / "one" / SENT).exists()
    assert not runs(root)
    assert Mirror().send(root)  # it is back
    assert len(runs(root)) == 1


def test_aliases_follow_the_pointer(root):
    mirror = Mirror()
    one, two = (run(root, name, mirror) for name in ("one", "two"))
    registry.promote(root, one)
    registry.challenge(root, two)
    mirror.send(root)

    def roles():
        there = client(root)
        aliases = there.get_registered_model("sieve").aliases
        return {
            role: there.get_model_version("sieve", version).tags["sieve.digest"]
            for role, version in aliases.items()
        }

    assert roles() == {"champion": one, "challenger": two}
    registry.promote(root, two)
    mirror.send(root)
    assert roles() == {"champion": two, "previous": one}
    registry.roll_back(root)
    mirror.send(root)
    assert roles() == {"champion": one, "previous": two}
    assert len(client(root).search_model_versions("name = 'sieve'")) == 2
