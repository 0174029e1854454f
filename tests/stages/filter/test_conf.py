"""Every filter config is built and used; a new one is tested by being there."""

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from stages.filter.tree_filter import TreeFilter

CONF = Path(__file__).parents[3] / "conf"
FILTERS = sorted(path.stem for path in (CONF / "filter").glob("*.yaml"))


@pytest.fixture(params=FILTERS)
def config(request, tmp_path):
    # a primary config of this test's own, so that the group is tested without the others
    text = (
        f"hydra: {{searchpath: ['file://{CONF}']}}\ndefaults: [filter: {request.param}, _self_]\n"
    )
    (tmp_path / "alone.yaml").write_text(text + "seed: 3\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        return compose("alone")


def test_it_fits_predicts_and_explains(config, market):
    for name, member in config.filter.members.items():
        member.n_estimators = 5
        if name == "forest":
            member.min_samples_leaf = 20
    stage = instantiate(config.filter, _convert_="all")
    assert isinstance(stage, TreeFilter)
    panel, y = market
    said = stage.fit(panel, y).predict(panel)
    assert np.isfinite(said).all(axis=None)


def test_it_is_seeded_runs_on_one_thread_and_names_its_settings(config):
    members = OmegaConf.to_container(config.filter, resolve=True)["members"]
    for name, settings in members.items():
        assert settings["random_state"] == 3, name
        assert settings["n_jobs"] == 1, name
    stage = instantiate(config.filter, _convert_="all")
    for name, settings in members.items():
        # the libraries pass on what they do not know, so a misspelt setting would go unnoticed
        known = {*type(stage.members[name])().get_params()}
        known |= {"force_row_wise", "deterministic", "verbosity", "max_bin"}  # LightGBM only
        assert set(settings) - {"_target_"} <= known, name
