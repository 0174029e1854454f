import json
import shutil

import pytest

from pipeline import artifacts, registry
from pipeline.pointer import history, read_pointer
from pipeline.report.champions import show_models, write_card
from stages.base import ArtifactError, ConfigError
from tests.conftest import command

VALUES = {"recipe": {"@class": "x"}, "learned": {"evaluation_": None}}


@pytest.fixture
def root(tmp_path):
    """Three models: a, its update b, and c that was trained by itself."""
    made = {}
    for place, (name, parent) in enumerate((("a", None), ("b", "a"), ("c", None))):
        facts = {"made": f"2026-01-0{place + 1}", "data": f"data of {name}"}
        facts |= {"parent": made[parent]} if parent else {}
        values = VALUES | {"name": name}
        digest = artifacts.digest_of(values, {})
        made[name] = artifacts.write(tmp_path / "models" / digest[:16], values, {}, facts)
    run = tmp_path / "runs" / "2026" / "one"
    run.mkdir(parents=True)
    record = {"artifact": made["a"], "commit": "abc1234", "command": "train", "trials": {"t": "9"}}
    (run / "run.json").write_text(json.dumps(record))
    return tmp_path, made


def test_roles_move_and_come_back(root):
    root, made = root
    registry.promote(root, made["a"], "first")
    registry.challenge(root, made["c"])
    pointer = read_pointer(root)
    assert (pointer.champion, pointer.challenger) == (made["a"], made["c"])
    registry.promote(root, made["c"], "won")
    pointer = read_pointer(root)
    assert (pointer.champion, pointer.challenger, pointer.previous) == (made["c"], None, made["a"])
    pointer = registry.roll_back(root, "lost")
    assert (pointer.champion, pointer.previous) == (made["a"], made["c"])
    assert artifacts.champion(root).name == made["a"][:16]
    said = [(change.action, change.why) for change in history(root)]
    assert said == [
        ("promote", "first"),
        ("challenge", ""),
        ("promote", "won"),
        ("roll back", "lost"),
    ]


def test_an_update_of_the_champion_takes_its_place_and_keeps_the_one_before(root):
    root, made = root
    registry.promote(root, made["c"])
    registry.promote(root, made["a"])
    pointer = registry.advance(root, made["b"])
    assert (pointer.champion, pointer.previous) == (made["b"], made["c"])


def test_there_must_be_something_to_roll_back_to(root):
    root, made = root
    with pytest.raises(ArtifactError) as error:
        registry.roll_back(root)
    assert error.value.code == "SV-X410"
    registry.promote(root, made["a"])
    with pytest.raises(ArtifactError) as error:
        registry.roll_back(root)
    assert error.value.code == "SV-X411"


def test_any_former_champion_can_be_gone_back_to_and_no_other_model(root):
    root, made = root
    registry.promote(root, made["a"])
    registry.advance(root, made["b"])  # an update that turns out to be bad
    assert read_pointer(root).previous is None
    with pytest.raises(ArtifactError) as error:
        registry.roll_back(root, to=made["c"])
    assert error.value.code == "SV-X411"
    pointer = registry.roll_back(root, to=made["a"])
    assert (pointer.champion, pointer.previous) == (made["a"], made["b"])


def test_a_rollback_to_a_damaged_model_leaves_the_champion(root):
    root, made = root
    registry.promote(root, made["a"])
    registry.promote(root, made["c"])
    (root / "models" / made["a"][:16] / "values.json").write_text("{}")
    with pytest.raises(ArtifactError):
        registry.roll_back(root)
    assert read_pointer(root).champion == made["c"]


def test_the_champion_cannot_challenge_itself_and_a_challenger_can_be_withdrawn(root):
    root, made = root
    registry.promote(root, made["a"])
    with pytest.raises(ConfigError):
        registry.challenge(root, made["a"])
    registry.challenge(root, made["b"])
    assert registry.withdraw(root).challenger is None


def test_models_are_named_by_role_folder_or_beginning_of_a_digest(root):
    root, made = root
    registry.promote(root, made["a"])
    assert registry.digest_at(root, "champion") == made["a"]
    assert registry.digest_at(root, made["c"][:6]) == made["c"]
    assert registry.digest_at(root, str(root / "models" / made["b"][:16])) == made["b"]
    for name in ("challenger", "zzzz", made["a"][:2]):
        with pytest.raises(ArtifactError) as error:
            registry.digest_at(root, name)
        assert error.value.code == "SV-X410"


def test_the_lineage_of_an_update_goes_back_to_the_training(root):
    root, made = root
    found = registry.lineage(root, made["b"])
    assert found.ancestors == (made["a"],)
    assert found.data == ("data of b", "data of a")
    assert (found.code, found.command, found.trials) == ("abc1234", "train", {"t": "9"})
    assert found.known
    assert found.first == made["a"]


def test_a_lineage_with_a_hole_is_not_known(root):
    root, made = root
    assert not registry.lineage(root, made["c"]).known  # no run names its code
    shutil.rmtree(root / "models" / made["a"][:16])
    assert registry.lineage(root, made["b"]).ancestors == (made["a"],)
    (root / "models" / made["b"][:16] / "facts.json").unlink()
    assert not registry.lineage(root, made["b"]).known


def test_every_model_is_listed_with_its_roles(root):
    root, made = root
    registry.promote(root, made["a"])
    registry.challenge(root, made["c"])
    table = registry.entries(root)
    assert list(table.index) == [made["c"], made["b"], made["a"]]
    assert table["role"].tolist() == ["challenger", "", "champion"]
    assert table.loc[made["b"], "parent"] == made["a"]


def test_the_card_of_a_trained_model_shows_its_evaluation_and_lineage(trained, tmp_path):
    root = shutil.copytree(trained[0], tmp_path / "root")
    for certificate in root.rglob(artifacts.CERTIFICATE):
        certificate.unlink()  # another test may have had it audited
    digest = registry.digest_at(root, "champion")
    for name in ("card.md", "card.html"):
        assert command("models", f"root={root}", f"card={tmp_path / name}").code == 0
    text, page = ((tmp_path / name).read_text() for name in ("card.md", "card.html"))
    assert f"# Model {digest[:16]}" in text
    assert "## Role\n\nchampion" in text
    assert "| pipeline |" in text
    assert "not audited" in text
    assert "python -m pipeline.train" in text
    assert f"<h1>Model {digest[:16]}</h1>" in page
    assert "<script" not in page
    assert registry.lineage(root, digest).known


def test_a_card_shows_what_others_wrote_as_text(root, tmp_path):
    root, made = root
    registry.promote(root, made["a"], "<b>|`x`</b>")
    write_card(tmp_path / "card.html", root, made["a"])
    write_card(tmp_path / "card.md", root, made["a"])
    assert "&lt;b&gt;" in (tmp_path / "card.html").read_text()
    assert "\\<b>\\|\\`x\\`\\</b>" in (tmp_path / "card.md").read_text()


def test_models_and_changes_are_printed_and_told_as_json(root, capsys):
    root, made = root
    registry.promote(root, made["a"], "first")
    ended = command("models", f"root={root}", "json=true")
    told = json.loads(ended.out)
    assert [row["model"] for row in told["models"]] == [made["c"], made["b"], made["a"]]
    assert told["changes"][0]["why"] == "first"
    show_models(registry.entries(root), history(root))
    assert made["b"][:16] in capsys.readouterr().out
