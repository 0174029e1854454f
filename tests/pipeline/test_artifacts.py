import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from safetensors.numpy import save

from pipeline import artifacts, files, versions
from pipeline.artifacts import champion, digest_of, find, promote, read, write
from stages.base import ArtifactError, StoreError

SCHEMA = Path(__file__).parents[2] / "schemas" / "artifact-v1.json"
VALUES = {"recipe": {"@class": "x", "settings": {"b": 1, "a": 0.1}}, "states": [None, 1e-300, True]}
PARTS = {
    "filter.lightgbm.txt": b"tree\nversion=v4\n" * 40,
    "forest.safetensors": save({"value": np.arange(60, dtype="float64").reshape(20, 3)}),
}
FILES = ["manifest.json", "manifest.sha256", "values.json", *PARTS]


@pytest.fixture
def stored(tmp_path) -> Path:
    write(tmp_path / "model", VALUES, PARTS, {"made": "today"})
    return tmp_path / "model"


def refused(folder: Path) -> ArtifactError:
    with pytest.raises(ArtifactError) as error:
        read(folder)
    return error.value


def test_what_is_read_is_what_was_written(stored):
    artifact = read(stored)
    assert artifact.values == VALUES
    assert list(artifact.values["recipe"]["settings"]) == ["b", "a"]
    assert artifact.parts == PARTS
    assert artifact.digest == digest_of(VALUES, PARTS)
    assert artifact.libraries == versions.versions()


def test_the_manifest_follows_its_published_schema(stored):
    manifest = json.loads((stored / "manifest.json").read_text())
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(manifest)


def test_the_digest_covers_content_and_nothing_else(tmp_path):
    one = write(tmp_path / "a", VALUES, PARTS, {"made": "today", "machine": "here"})
    two = write(tmp_path / "b", VALUES, dict(reversed(PARTS.items())), {"made": "tomorrow"})
    assert one == two
    assert write(tmp_path / "c", VALUES | {"seed": 1}, PARTS) != one
    assert write(tmp_path / "d", VALUES, PARTS | {"x.txt": b""}) != one


@given(st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False) | st.text()))
@settings(max_examples=25)
def test_every_float_and_text_comes_back_exactly(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("any") / "model"
    write(folder, values, {})
    assert read(folder).values == values


def test_writing_the_same_again_changes_nothing(stored):
    before = {path.name: path.stat().st_mtime_ns for path in stored.iterdir()}
    write(stored, VALUES, PARTS, {"made": "tomorrow"})
    assert {path.name: path.stat().st_mtime_ns for path in stored.iterdir()} == before


def test_a_folder_with_another_content_is_left_alone(stored):
    with pytest.raises(StoreError, match="taken") as error:
        write(stored, VALUES, {})
    assert error.value.code == "SV-F34"
    assert read(stored).parts == PARTS


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "A.txt", "", ".", "..", ".x", "-x", "manifest.json", "facts.json", "é"]
)
def test_a_part_cannot_be_named_into_another_place(tmp_path, name):
    with pytest.raises(ValueError, match="may not be called"):
        write(tmp_path / "model", VALUES, {name: b""})
    assert list(tmp_path.iterdir()) == []


def test_nan_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write(tmp_path / "model", {"x": float("nan")}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FILES)
def test_every_mutation_of_every_part_is_refused(stored, name):
    rng = random.Random(name)
    path = stored / name
    intact = path.read_bytes()
    for _ in range(200):
        damaged = mutate(rng, intact)
        if damaged == intact:
            continue
        path.write_bytes(damaged)
        assert refused(stored).code == "SV-F29"
    path.write_bytes(intact)
    assert read(stored).parts == PARTS


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Flip a bit, cut, insert, swap or repeat a piece."""
    at, other = sorted(rng.sample(range(len(data)), 2))
    return [
        data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :],
        data[:at],
        data[:at] + data[other:],
        data[:at] + rng.randbytes(3) + data[at:],
        data + data[at:other],
        data[other:] + data[:other],
        b"",
    ][rng.randrange(7)]


def swap(folder):
    one, two = (folder / name for name in PARTS)
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


def link(folder):
    (folder / "values.json").rename(folder.parent / "elsewhere")
    (folder / "values.json").symlink_to(folder.parent / "elsewhere")


def hard_link(folder):
    os.link(folder / "values.json", folder.parent / "elsewhere")


def pipe(folder):
    (folder / "values.json").unlink()
    os.mkfifo(folder / "values.json")


def sparse(folder):
    with (folder / "values.json").open("r+b") as file:
        file.truncate(10 * 1024**3)


def folder_for_file(folder):
    (folder / "values.json").unlink()
    (folder / "values.json").mkdir()


def of_another_run(folder):
    write(folder.parent / "other", VALUES | {"seed": 2}, PARTS)
    for name in ("manifest.json", "manifest.sha256"):
        shutil.copy(folder.parent / "other" / name, folder / name)


def huge_manifest(folder):
    (folder / "manifest.json").write_bytes(b" " * (artifacts.MANIFEST_LIMIT + 1))


@pytest.mark.parametrize(
    "spoil",
    [
        swap,
        link,
        hard_link,
        pipe,
        sparse,
        folder_for_file,
        of_another_run,
        huge_manifest,
        lambda folder: (folder / "forest.safetensors").unlink(),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.sha256").unlink(),
        lambda folder: (folder / "added.txt").write_bytes(b""),
        lambda folder: (folder / "sub").mkdir(),
        lambda folder: shutil.rmtree(folder),
    ],
)
def test_a_folder_with_another_set_of_files_is_refused(stored, spoil):
    spoil(stored)
    assert refused(stored).exit_code == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m | {"schema_version": 2}, "schema_version is 2"),
        (lambda m: m | {"signature": ""}, "does not follow"),
        (lambda m: m | {"libraries": []}, "does not follow"),
        (lambda m: m | {"libraries": {"numpy": 2}}, "does not follow"),
        (lambda m: m | {"files": []}, "does not follow"),
        (lambda m: m | {"files": {}}, "does not follow"),
        (lambda m: entry(m, "../../etc/passwd", {}), "does not follow"),
        (lambda m: entry(m, "facts.json", {}), "does not follow"),
        (lambda m: entry(m, "values.json", {"size": -1}), "does not follow"),
        (lambda m: entry(m, "values.json", {"size": True}), "does not follow"),
        (lambda m: entry(m, "values.json", {"size": 1 << 40}), "does not follow"),
        (lambda m: entry(m, "values.json", {"sha256": None}), "does not follow"),
        (lambda m: entry(m, "values.json", {"sha256": "0" * 64}), "not what was written"),
        (lambda m: entry(m, "values.json", {"more": 1}), "does not follow"),
        (lambda m: [m], "not JSON"),
    ],
)
def test_a_manifest_of_another_shape_is_refused(stored, change, message):
    manifest = json.loads((stored / "manifest.json").read_text())
    seal(stored, change(manifest))
    assert message in refused(stored).what


def entry(manifest, name, change):
    known = manifest["files"].get(name, manifest["files"]["values.json"])
    return manifest | {"files": manifest["files"] | {name: known | change}}


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":NaN}', '{"a":1,"a":1}', '{"a": 1}', '{"a":1e999}', "\u00e9", ""]
)
def test_json_in_another_spelling_is_refused_even_if_its_hash_agrees(stored, text):
    (stored / "values.json").write_text(text, encoding="utf-8")
    reseal(stored, "values.json")
    assert "not JSON as it was written" in refused(stored).what


def reseal(folder: Path, name: str) -> None:
    """Let the manifest agree with a changed file, as an attacker would."""
    data = (folder / name).read_bytes()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"size": len(data), "sha256": sha256(data).hexdigest()}
    seal(folder, manifest)


def seal(folder: Path, manifest) -> None:
    data = files.json_bytes(manifest)
    (folder / "manifest.json").write_bytes(data)
    (folder / "manifest.sha256").write_text(f"{sha256(data).hexdigest()}  manifest.json\n")


def test_a_manifest_that_agrees_with_itself_must_still_have_the_digest_asked_for(stored):
    asked = read(stored).digest
    (stored / "filter.lightgbm.txt").write_bytes(b"another tree")
    reseal(stored, "filter.lightgbm.txt")
    with pytest.raises(ArtifactError, match="hashes to"):
        read(stored, asked)


class Payload:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return (os.mkdir, (str(self.canary),))


def test_a_pickle_among_the_parts_runs_no_code(tmp_path):
    """Even resealed: reading opens files, hashes them and parses JSON, and does nothing else."""
    folder, canary = tmp_path / "model", tmp_path / "canary"
    bomb = pickle.dumps(Payload(canary))
    write(folder, VALUES, {"forest.safetensors": bomb})
    write(tmp_path / "harmless", VALUES, PARTS)
    code = (
        "import sys\n"
        "from pipeline.artifacts import read\n"
        f"read({str(tmp_path / 'harmless')!r})\n"  # what it imports late is imported now
        "seen = []\n"
        "sys.addaudithook(lambda event, args: seen.append((event, str(args[:1]))))\n"
        f"read({str(folder)!r})\n"
        "bad = ('exec', 'compile', 'subprocess', 'socket', 'os.system', 'os.mkdir', 'pickle',\n"
        "       'os.exec', 'os.posix_spawn', 'os.fork', 'shutil', 'ctypes')\n"
        "found = [e for e in seen if e[0].startswith(bad)]\n"
        "known = ('dist-info', 'egg-info', '.zip', '(3,)')  # versions; a descriptor\n"
        "opened = [a for e, a in seen if e == 'open' and not any(k in a for k in known)]\n"
        f"opened = [a for a in opened if {str(folder)!r} not in a]\n"
        "assert seen and not found and not opened, (found, opened)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not canary.exists()


@pytest.mark.parametrize("failing", ["fsync", "replace", "mkdir"])
def test_a_disk_that_refuses_leaves_nothing_behind(tmp_path, monkeypatch, failing):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    target = Path if failing == "mkdir" else os
    monkeypatch.setattr(target, failing, full)
    with pytest.raises(StoreError, match="No space left") as error:
        write(tmp_path / "model", VALUES, PARTS)
    monkeypatch.undo()
    assert error.value.exit_code == 5
    assert list(tmp_path.iterdir()) == []


def test_a_reader_never_sees_half_an_artifact(tmp_path, monkeypatch):
    """Whatever write or rename fails, the folder is either absent or whole."""
    real, calls = os.fsync, []

    def failing_at(count):
        def fsync(descriptor):
            calls.append(descriptor)
            if len(calls) == count:
                raise OSError(5, "Input/output error")
            real(descriptor)

        return fsync

    for count in range(1, 10):  # the last one is beyond all calls
        calls.clear()
        folder = tmp_path / f"model{count}"
        monkeypatch.setattr(os, "fsync", failing_at(count))
        try:
            write(folder, VALUES, PARTS)
        except StoreError:
            assert not folder.exists() or read(folder).parts == PARTS
        monkeypatch.undo()
    assert read(folder).parts == PARTS


def test_promotion_moves_one_pointer(tmp_path):
    one = write(tmp_path / "models" / "one", VALUES, PARTS)
    two = write(tmp_path / "runs" / "2020" / "two", VALUES, {})
    promote(tmp_path, one)
    assert champion(tmp_path) == tmp_path / "models" / "one"
    promote(tmp_path, two)
    assert champion(tmp_path) == tmp_path / "runs" / "2020" / "two"
    assert (tmp_path / "champion").read_text().splitlines()[0] == two
    promote(tmp_path, one)
    assert champion(tmp_path) == tmp_path / "models" / "one"


def test_a_damaged_model_is_not_promoted(tmp_path):
    good = write(tmp_path / "models" / "good", VALUES, PARTS)
    bad = write(tmp_path / "models" / "bad", VALUES, {"a.txt": b"abc"})
    (tmp_path / "models" / "bad" / "a.txt").write_bytes(b"abd")
    promote(tmp_path, good)
    with pytest.raises(ArtifactError):
        promote(tmp_path, bad)
    assert champion(tmp_path).name == "good"


def test_no_champion_yet_says_what_to_do(tmp_path):
    with pytest.raises(ArtifactError, match="no champion") as error:
        champion(tmp_path)
    assert "pipeline.train" in error.value.cure


@pytest.mark.parametrize("pointer", ["../../etc", "", "0" * 63, "0" * 64, "\x00" * 64])
def test_a_champion_that_points_nowhere_is_refused(tmp_path, pointer):
    (tmp_path / "champion").write_text(pointer)
    with pytest.raises(ArtifactError):
        champion(tmp_path)


def test_a_folder_without_a_model_says_where_models_are(tmp_path):
    with pytest.raises(ArtifactError, match="no model at") as error:
        read(tmp_path / "nowhere")
    assert error.value.code == "SV-X410"
    assert "leave `model` out" in error.value.cure
    promote(tmp_path, write(tmp_path / "models" / "m", {"a": 1}, {}))
    with pytest.raises(ArtifactError) as error:
        read(tmp_path)
    root = error.value.cure.split()[0].removeprefix("root=")  # the cure, taken at its word
    assert champion(root).name == "m"


def test_the_same_model_in_a_broken_folder_does_not_hide_the_good_one(tmp_path):
    digest = write(tmp_path / "models" / "good", VALUES, PARTS)
    (tmp_path / "models" / "a").mkdir()
    (tmp_path / "models" / "a" / "manifest.json").mkdir()
    assert find(tmp_path, digest).name == "good"


@pytest.mark.parametrize(
    ("trained", "outcome"), [("2.4.0", "warned"), ("1.26.4", "refused"), ("3.0.0", "refused")]
)
def test_a_library_of_another_version_is_told(tmp_path, monkeypatch, caplog, trained, outcome):
    monkeypatch.setattr(artifacts, "versions", lambda: {"numpy": trained})
    write(tmp_path / "model", VALUES, PARTS)
    monkeypatch.setattr(versions, "versions", lambda: {"numpy": "2.4.6"})
    if outcome == "refused":
        error = refused(tmp_path / "model")
        assert (error.code, error.cure[:19]) == ("SV-F35", f"install numpy {trained}"[:19])
    else:
        read(tmp_path / "model")
        assert "trained with numpy 2.4.0, here is 2.4.6" in caplog.text


def test_a_version_is_the_same_whether_or_not_the_library_is_loaded(monkeypatch):
    before = versions.versions()
    for name in versions.LIBRARIES:
        monkeypatch.setitem(sys.modules, name, None)
    assert versions.versions() == before
    monkeypatch.setattr(versions, "LIBRARIES", {"nothing": ("no-such-distribution",)})
    assert versions.versions() == {"nothing": "absent"}
