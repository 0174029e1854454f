import json

from pipeline.signals_io import read_records
from pipeline.store.signal_store import SignalStore
from tests.conftest import PLANTED, command


def test_signals_are_judged_stored_settled_and_archived(trained, tmp_path):
    root, url = trained[0], str(tmp_path / "signals.db")
    words = [*PLANTED, f"root={root}", f"store={url}"]
    said = command("predict", *words, "rows=all", "explain_rows=false", "strategy=trend")
    assert said.code == 0, said.err
    assert "1,200 signals: 1,200 new in the store," in said.err
    with SignalStore(url) as store:
        verdicts = store.verdicts()
        assert sum(verdicts.values()) == 1200
        assert verdicts[""] > 0
        assert verdicts["status"] > 0
        assert store.get(1).verdict.asset_class == "equity"
    shown = command("outcomes", *words)
    assert shown.code == 0, shown.err
    assert "strategy" in shown.out
    assert "base rate" in shown.out
    archived = [f"archive={tmp_path / 'old'}", "keep_rows=1", "json=true", "by=[side]"]
    told = json.loads(command("outcomes", *words, *archived).out)
    assert (told["outcomes"], told["archived"]) == (0, 0)  # one call, of which the last stays
    assert {row["group"] for row in told["performance"]} <= {-1, 1}
    with SignalStore(url) as store:
        assert store.verify().outcomes > 0


def test_risk_can_be_left_out_of_records(trained, tmp_path):
    words = [*PLANTED, f"root={trained[0]}", f"output={tmp_path}/s.jsonl"]
    assert command("predict", *words).code == 0
    assert command("predict", *words, "appraise=false").code == 0
    records = read_records(tmp_path / "s.jsonl")
    assert [record["appraisal"] is None for record in records].count(True) == len(records) / 2 == 4


def test_a_store_must_be_named(trained):
    refused = command("outcomes", *PLANTED, f"root={trained[0]}")
    assert refused.code == 2
    assert "no store was named" in refused.err
