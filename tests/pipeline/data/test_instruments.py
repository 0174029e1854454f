import json
import logging
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from pipeline.data.instruments import Instrument, Instruments, read_instruments
from stages.base import ConfigError, DataError


def composed(*overrides: str) -> Instruments:
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose(None, list(overrides))
    return instantiate(cfg.instruments, _convert_="all")


@pytest.fixture(scope="module")
def table() -> Instruments:
    return composed("+instruments=default")


def test_a_row_differs_from_the_default_in_what_it_names(table):
    assert table.of("TLT") == Instrument(asset_class="bond", sector="government_bonds")
    assert table.of("AAPL").asset_class == "equity"
    assert table.of("SP500").asset_class == "index"


def test_funds_of_bonds_and_of_bills_have_classes_of_their_own(table):
    assert set(table.classes(["AGG", "IEF", "LQD", "HYG", "SEGA.L"])) == {"bond"}
    assert set(table.classes(["BIL", "SGOV", "SHY"])) == {"safe"}
    assert set(table.classes(["SPY", "XLK", "GLD"])) == {"etf"}


def test_the_embedded_assets_all_have_a_sector(table):
    from skfolio.datasets import load_sp500_dataset

    assert "unknown" not in table.column("sector", load_sp500_dataset().columns)


def test_an_asset_that_is_not_there_gets_the_default_and_is_logged_once(table, caplog):
    with caplog.at_level(logging.INFO, "pipeline.data.instruments"):
        classes = table.classes(["ZZZ", "AAPL", "ZZZ", "SPY"])
        table.of("ZZZ")
    assert classes.tolist() == ["equity", "equity", "equity", "etf"]
    assert caplog.text.count("ZZZ") == 1


def test_no_assets_have_no_classes(table):
    assert table.classes([]).tolist() == []


def test_the_table_survives_json(table):
    again = Instruments(**json.loads(json.dumps({"table": table.table, "default": table.default})))
    assert again == table


def test_a_name_that_yaml_reads_as_something_else_stays_text():
    assert Instruments({True: {}}).of("True") == Instrument()


def test_an_unknown_field_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="AAPL has no field 'sectr'") as fault:
        Instruments({"AAPL": {"sectr": "technology"}})
    assert fault.value.cure == "did you mean sector?"


@pytest.mark.parametrize("row", [{"tick": 0}, {"lot": -1}])
def test_steps_must_be_positive(row):
    with pytest.raises(ValueError, match="tick > 0"):
        Instruments({"A": row})


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_table_comes_from_a_file(tmp_path, suffix):
    path = tmp_path / f"instruments.{suffix}"
    rows = pd.DataFrame(
        {"asset": ["NA", "CL"], "tick": [None, 0.05], "negative_price": [False, True]}
    )
    rows.to_csv(path, index=False) if suffix == "csv" else rows.to_parquet(path)
    table = composed("+instruments=file", f"instruments.path={path}")
    assert table.of("NA").tick == 0.01
    assert asdict(table.of("CL")) | {"tick": 0.05, "negative_price": True} == asdict(table.of("CL"))
    json.dumps(table.table)


def test_a_file_that_is_no_table_is_refused(tmp_path):
    with pytest.raises(DataError, match="not there"):
        read_instruments(str(tmp_path / "none.csv"))
    path = tmp_path / "instruments.csv"
    path.write_text("assets,tick\nA,1\n")
    with pytest.raises(DataError, match="no column 'asset'") as fault:
        read_instruments(str(path))
    assert fault.value.cure == "did you mean assets?"
    path.write_text("asset,tick\nA,1\nA,2\n")
    with pytest.raises(DataError, match="A stands twice"):
        read_instruments(str(path))


def test_a_sector_has_a_number_that_does_not_depend_on_the_table():
    table = {"A": {"sector": "mines"}, "B": {"sector": "banks"}, "C": {"sector": "mines"}}
    numbers = Instruments(table).sectors(["C", "A", "B", "Z", "A"])
    assert numbers[0] == numbers[1] == numbers[4] != numbers[2]
    assert np.isnan(numbers[3])
    assert (Instruments({"X": {"sector": "mines"}}).sectors(["X"]) == numbers[0]).all()
    assert (numbers[:3] % 1 == 0).all()
