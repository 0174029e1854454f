"""Lines of the log: JSON, one line whatever stands in them, with the id of their run or request."""

import json
import logging
import logging.config
import sys

import yaml

from pipeline.jsonlog import JsonFormatter, correlation, run_id
from tests.conftest import ROOT


def line(message, *args, **more):
    record = logging.LogRecord("pipeline.x", logging.INFO, "x.py", 1, message, args, None)
    vars(record).update(more)
    return JsonFormatter().format(record)


def test_a_text_from_outside_cannot_pass_for_a_line():
    text = line("user %s", 'a"\n{"level": "ERROR"}\x1b[31m')
    assert "\n" not in text
    assert "\x1b" not in text
    assert json.loads(text)["message"] == 'user a"\n{"level": "ERROR"}\x1b[31m'


def test_ids_and_further_fields_are_told():
    token = correlation.set("req-7")
    try:
        said = json.loads(line("x", seconds=0.25, assets=["A"]))
    finally:
        correlation.reset(token)
    assert (said["run"], said["correlation"]) == (run_id(), "req-7")
    assert (said["seconds"], said["assets"]) == (0.25, ["A"])
    assert "correlation" not in json.loads(line("x"))


def test_a_fault_is_told_with_its_trace():
    try:
        raise ValueError("bad")
    except ValueError:
        said = json.loads(line("x", exc_info=sys.exc_info()))
    assert "ValueError: bad" in said["fault"]


def test_the_configuration_writes_them_to_a_file_of_bounded_size(tmp_path):
    settings = yaml.safe_load((ROOT / "conf/hydra/job_logging/file_and_console.yaml").read_text())
    settings["handlers"]["file"]["filename"] = str(tmp_path / "x.log")
    assert settings["handlers"]["file"]["maxBytes"] > 0
    own = settings.pop("root") | {"propagate": False}
    logging.config.dictConfig({**settings, "loggers": {"of_a_test": own}})
    logger = logging.getLogger("of_a_test")
    logger.info("hello")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    [text] = (tmp_path / "x.log").read_text().splitlines()
    assert json.loads(text)["message"] == "hello"
