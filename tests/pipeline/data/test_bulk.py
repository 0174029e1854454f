"""From Parquet to Parquet in chunks: the bits of one table, whatever the chunks are."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from experiments.benchmarks.features import drawn
from pipeline.data.bulk import write_features
from pipeline.data.chunks import chunks_of, read_chunk
from pipeline.data.intake import Intake
from pipeline.data.sources import parquet
from pipeline.recipe import instantiate
from stages.base import DataError
from tests.conftest import command, composed

INTAKE = Intake(columns={"vwap": "vwap", "sector": "sector"}, calendar="24/7")


@pytest.fixture(scope="module")
def table():
    """Seven assets with gaps, one listed late, one that stops."""
    bars = drawn.bars(7, 400)
    rng = np.random.default_rng(0)
    place, asset = bars.groupby("asset").cumcount().to_numpy(), bars.index.codes[0]
    kept = rng.random(len(bars)) > 0.02
    kept &= ~((asset == 1) & (place < 60)) & ~((asset == 2) & (place > 350))
    bars = bars.assign(sector=(asset % 2).astype("float64"))[kept]
    return bars.reset_index()


@pytest.fixture(scope="module")
def path(table, tmp_path_factory):
    file = tmp_path_factory.mktemp("bars") / "bars.parquet"
    table.to_parquet(file, row_group_size=500)
    return str(file)


def whole(path, features):
    return replace(features).build(parquet(path, **vars(INTAKE)).bars)


def read_back(files):
    found = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    found["asset"] = found["asset"].astype("str")
    return found.set_index(["asset", "time"])


def feature_set(name, rules="technical"):
    return instantiate(composed("config", f"features={name}", f"rules={rules}").features)


@pytest.mark.parametrize(
    ("name", "rules", "chunk"),
    [("default", "technical", 600), ("alpha158", "technical", 1), ("next_day", "ranks", 900)],
)
def test_chunks_give_the_bits_of_one_table(name, rules, chunk, path, tmp_path):
    features = feature_set(name, rules)
    written = write_features(features, path, tmp_path / "out", INTAKE, chunk)
    expected = whole(path, features)
    made = read_back(written.files)
    assert_frame_equal(made, expected, check_exact=True, check_freq=False)
    assert len(written.files) == {600: 7, 1: 7, 900: 4}[chunk]
    assert (written.rows, written.assets) == (len(expected), 7)
    assert written.columns == expected.shape[1] + 2
    assert {p.name for p in (tmp_path / "out").iterdir()} == {f.name for f in written.files}


def test_processes_give_the_same(path, tmp_path):
    features = drawn.feature_set("core")
    one = write_features(features, path, tmp_path / "one", INTAKE, 900)
    two = write_features(features, path, tmp_path / "two", INTAKE, 900, workers=2)
    assert_frame_equal(read_back(one.files), read_back(two.files), check_exact=True)


def test_a_table_sorted_by_time_and_files_by_asset_are_read_too(table, path, tmp_path):
    features = drawn.feature_set("core")
    expected = whole(path, features)
    table.sort_values(["time", "asset"]).to_parquet(tmp_path / "t.parquet", row_group_size=300)
    written = write_features(features, str(tmp_path / "t.parquet"), tmp_path / "t", INTAKE, 900)
    assert_frame_equal(read_back(written.files), expected, check_exact=True)
    (tmp_path / "each").mkdir()
    for asset, rows in table.groupby("asset"):
        rows.drop(columns="asset").to_parquet(tmp_path / "each" / f"{asset}.parquet")
    by_file = replace(INTAKE, columns=INTAKE.columns | {"asset": None})
    written = write_features(features, str(tmp_path / "each"), tmp_path / "f", by_file, 900)
    assert_frame_equal(read_back(written.files), expected, check_exact=True)


def test_a_chunk_holds_whole_assets_and_the_market_that_it_needs(path):
    intake = replace(INTAKE, market="A0003", assets=["A0001", "A0000", "A0005"])
    chunks = chunks_of(path, intake, 800)
    assert [chunk.assets for chunk in chunks] == [("A0000", "A0001"), ("A0005",)]
    expected = parquet(path, **vars(intake)).bars
    made = pd.concat([read_chunk(chunk, intake).bars for chunk in chunks])
    assert_frame_equal(made, expected, check_exact=True)


def test_a_bad_row_is_refused_with_its_place_in_the_file(table, tmp_path):
    broken = table.copy()
    broken.loc[1777, "close"] = -1.0
    broken.to_parquet(tmp_path / "bars.parquet", row_group_size=500)
    with pytest.raises(DataError, match=r"close = -1") as error:
        write_features(
            drawn.feature_set("core"), str(tmp_path / "bars.parquet"), tmp_path / "out", INTAKE
        )
    assert "row 1778" in str(error.value)
    assert not list((tmp_path / "out").iterdir())


def test_a_folder_with_parts_and_an_unknown_asset_are_refused(path, tmp_path):
    (tmp_path / "part-00000.parquet").write_bytes(b"")
    with pytest.raises(DataError, match="parts already"):
        write_features(drawn.feature_set("core"), path, tmp_path, INTAKE)
    with pytest.raises(DataError, match="'ZZ' is not in the data"):
        chunks_of(path, replace(INTAKE, assets=["ZZ"]), 10)


def test_the_command_writes_what_training_would_compute(path, table, tmp_path):
    words = [f"data.path={path}", "features=alpha158", f"root={tmp_path}", "json=true"]
    words += ["data.calendar=24/7", "+data.columns.vwap=vwap", "workers=1"]
    ended = command("compute", *words, f"output={tmp_path}/out")
    assert ended.code == 0, ended.err
    said = json.loads(ended.out)
    assert (said["rows"], said["assets"]) == (len(table), 7)
    made = read_back(said["files"])
    features = instantiate(composed("config", "features=alpha158").features)
    assert_frame_equal(made, whole(path, features).drop(columns="sector"), check_exact=True)
    refused = command("compute", *words, f"output={tmp_path}/other", "data=us_index")
    assert refused.code == 2
    assert "only Parquet" in refused.err or "data.path" in refused.err
