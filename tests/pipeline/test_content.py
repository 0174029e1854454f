import json

import pandas as pd
import pytest

from pipeline import recipe
from pipeline.signal_pipeline import SignalPipeline
from stages.base import ArtifactError, State
from tests.conftest import tiny_pipeline


def test_an_artifact_is_json_and_native_parts(tiny):
    values, parts = tiny.content()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert sorted(parts) == [
        "filter.forest.safetensors",
        "filter.lightgbm.txt",
        "filter.xgboost.ubj",
        "novelty.novelty.safetensors",
        "record.coverage.coverage.safetensors",
        "record.rows.safetensors",
        "record.skill.skill.safetensors",
        "references.safetensors",
        "refiner.lstm.0.safetensors",
        "replay.replay.safetensors",
    ]
    pickles = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))  # how they begin
    assert not any(part.startswith(pickles) for part in parts.values())


def test_what_is_restored_gives_the_same_content(tiny):
    values, parts = tiny.content()
    read = recipe.build(json.loads(json.dumps(values["recipe"])))
    assert read.restore(State(values, parts)).content() == (values, parts)


def test_what_was_learnt_of_time_is_kept(tiny, copy):
    assert copy.learned_until_ == tiny.learned_until_
    assert copy.learned_rows_ == tiny.learned_rows_
    assert copy.step_ == tiny.step_ == pd.Timedelta(days=1)
    pd.testing.assert_frame_equal(copy.references_, tiny.references_, check_exact=True)
    assert copy.fidelity_ == tiny.fidelity_


def test_a_pipeline_without_a_refiner_and_one_with_a_fitted_width_are_kept(barrier, tiny_market):
    values, parts = barrier.content()
    assert not any(name.startswith("refiner") for name in parts)
    read = recipe.build(values["recipe"]).restore(State(values, parts))
    assert read.labels_.width_ == barrier.labels_.width_
    assert read.signals(tiny_market.panel) == barrier.signals(tiny_market.panel)


def test_the_evaluation_travels_with_the_model(copy, tmp_path):
    before = copy.digest
    copy.evaluation_ = {"rows": 3, "printed": {"pipeline": ["0.4"]}}
    assert copy.digest != before
    assert SignalPipeline.load(copy.save(tmp_path)).evaluation_ == copy.evaluation_


def test_a_new_training_forgets_the_old_evaluation(copy, tiny_market):
    copy.evaluation_ = {"rows": 3}
    assert copy.fit(tiny_market.panel, tiny_market.y).evaluation_ is None


def test_a_copy_shares_nothing_with_what_it_was_read_from(tiny, tiny_folder, tiny_market):
    one, other = SignalPipeline.load(tiny_folder), SignalPipeline.load(tiny_folder)
    one.learned_rows_ = dict.fromkeys(one.learned_rows_, pd.Timestamp("2000-06-01", tz="UTC"))
    one.update(tiny_market.panel, tiny_market.y)
    assert one.digest != other.digest == tiny.digest


@pytest.mark.parametrize("part", ["filter.lightgbm.txt", "references.safetensors"])
def test_a_flipped_byte_is_refused_before_any_loader_sees_it(tiny, tmp_path, part):
    folder = tiny.save(tmp_path)
    data = bytearray((folder / part).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / part).write_bytes(data)
    with pytest.raises(ArtifactError) as error:
        SignalPipeline.load(folder)
    assert (error.value.code, error.value.exit_code) == ("SV-F29", 4)
    assert part in error.value.what


def test_an_unfitted_pipeline_survives_its_recipe():
    pipeline = tiny_pipeline()
    again = recipe.build(json.loads(json.dumps(recipe.describe(pipeline))))
    assert recipe.describe(again) == recipe.describe(pipeline)
