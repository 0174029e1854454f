import pandas as pd
import pytest
from omegaconf import OmegaConf

from pipeline import artifacts
from pipeline.assemble import assemble, count, flag, instant, load_model, load_source
from stages.base import ArtifactError, ConfigError
from stages.folds import PurgedWalkForward

FOLDS = {"_target_": "stages.folds.PurgedWalkForward", "n_folds": 3}


def test_a_group_becomes_what_it_names():
    cfg = OmegaConf.create({"folds": FOLDS, "split": None})
    assert assemble(cfg, "folds") == PurgedWalkForward(n_folds=3)
    assert assemble(cfg, "split") is None


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "stages.panel.np.load"])
def test_a_target_that_is_not_on_the_list_is_refused_before_anything_is_built(target):
    cfg = OmegaConf.create({"folds": FOLDS | {"n_folds": {"_target_": target}}})
    with pytest.raises(ConfigError) as error:
        assemble(cfg, "folds")
    assert error.value.code == "SV-F32"
    assert error.value.where == "key folds.n_folds._target_"


def test_a_source_is_read(tiny_market):
    market = {"_target_": "stages.markets.planted.mixed", "seed": 0, "times": 300, "assets": 4}
    data = {"_target_": "pipeline.data.sources.synthetic", "market": market | {"snr": 2.0}}
    source = load_source(OmegaConf.create({"data": data, "cache": {"folder": None}}))
    pd.testing.assert_frame_equal(source.y, tiny_market.y)


def test_a_model_is_the_champion_or_the_one_named(tiny, tiny_folder, tmp_path):
    cfg = OmegaConf.create({"root": str(tmp_path), "model": None})
    with pytest.raises(ArtifactError) as error:
        load_model(cfg)
    assert error.value.code == "SV-X410"
    tiny.save(tmp_path / "models")
    artifacts.promote(tmp_path, tiny.digest)
    assert load_model(cfg).digest == tiny.digest
    cfg.model = str(tiny_folder)
    assert load_model(cfg).digest == tiny.digest


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2022-12-28", "2022-12-28T00:00Z"),
        ("2022-12-28T21:00", "2022-12-28T21:00Z"),
        ("2022-12-28T16:00-05:00", "2022-12-28T21:00Z"),
        ("2022-12-28T21:00Z", "2022-12-28T21:00Z"),
        (20221228, "2022-12-28T00:00Z"),
    ],
)
def test_a_time_is_utc_unless_it_says_otherwise(text, meant):
    assert instant(OmegaConf.create({"since": text}), "since") == pd.Timestamp(meant)


def test_no_time_stays_none_and_no_time_at_all_is_refused():
    assert instant(OmegaConf.create({"since": None}), "since") is None
    for wrong in ("yesterdayish", "2022-13-45", ""):
        with pytest.raises(ConfigError, match="since=") as error:
            instant(OmegaConf.create({"since": wrong}), "since")
        assert (error.value.code, error.value.where) == ("SV-F33", "key since")


@pytest.mark.parametrize("text", ["maybe", 1, None, "yes"])
def test_a_flag_is_true_or_false_and_nothing_else(text):
    assert flag(OmegaConf.create({"promote": False}), "promote") is False
    with pytest.raises(ConfigError, match="neither true nor false"):
        flag(OmegaConf.create({"promote": text}), "promote")


@pytest.mark.parametrize("text", ["some", 1, 2.5, True, None])
def test_a_count_is_a_whole_number_from_its_least(text):
    assert count(OmegaConf.create({"bootstrap": 2}), "bootstrap", 2) == 2
    with pytest.raises(ConfigError, match="no whole number of at least 2"):
        count(OmegaConf.create({"bootstrap": text}), "bootstrap", 2)
