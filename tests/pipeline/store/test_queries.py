"""The queries that must stay fast ask an index, as the databases themselves say."""

import contextlib

import pytest
from sqlalchemy import text

from pipeline.store import queries
from pipeline.store.append import LOOKUP
from pipeline.store.rows import micros
from pipeline.store.signal_store import SignalStore
from pipeline.store.tables import json_text
from tests.pipeline.store.conftest import new_schema
from tests.pipeline.store.samples import MINUTE, START, abstention


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def filled(request, tmp_path_factory):
    """3,000 signals of 10 assets, of which few are active at a time."""
    with contextlib.ExitStack() as stack:
        sqlite = f"sqlite:///{tmp_path_factory.mktemp('filled')}/signals.db"
        url = sqlite if request.param == "sqlite" else stack.enter_context(new_schema())
        store = stack.enter_context(SignalStore(url))
        store.append((short(f"A{n % 10}", n // 10) for n in range(3000)), "c")
        if request.param == "postgres":
            with store.database.engine.begin() as connection:
                connection.execute(text("ANALYZE signals"))
        yield store


def short(asset, minute):
    return abstention(asset, minute, expires=START + (minute + 2) * MINUTE)


def plan(store, query):
    """What the database says it will do."""
    written = str(
        query.compile(store.database.engine, compile_kwargs={"literal_binds": True})
    )  # with its values: the plan of PostgreSQL depends on them
    explain = "EXPLAIN QUERY PLAN " if store.database.is_sqlite else "EXPLAIN "
    with store.database.engine.connect() as connection:
        found = connection.exec_driver_sql((explain + written).replace("%", "%%"))
        return "\n".join(str(row[-1]) for row in found)


def page(**where):
    return queries.select_page(11, 3000, None, where)


@pytest.mark.parametrize(
    ("index", "query"),
    [
        ("signals_by_time", page()),
        ("signals_by_asset", page(asset="A7")),
        ("signals_by_model", page(model="m2")),
        ("signals_by_time", queries.select_page(11, 3000, (micros(START + 15 * MINUTE), 9), {})),
        ("signals_by_expiry", queries.select_active(micros(START + 299 * MINUTE), {})),
    ],
    ids=["latest", "of an asset", "of a model", "next page", "active"],
)
def test_latest_and_active_ask_their_index_and_read_no_whole_table(filled, index, query):
    said = plan(filled, query)
    assert index in said, said
    assert "Seq Scan on signals" not in said, said
    assert "SCAN signals" not in said or f"SCAN signals USING INDEX {index}" in said, said


@pytest.mark.parametrize("where", [{}, {"asset": "A7"}], ids=["latest", "of an asset"])
def test_the_latest_are_read_in_order_and_never_sorted(filled, where):
    said = plan(filled, page(**where))
    assert "TEMP B-TREE" not in said, said
    assert "Sort" not in said.replace("Incremental Sort", ""), said


def test_the_keys_of_a_delivery_are_looked_up_by_index(filled):
    lookup = LOOKUP[filled.database.engine.dialect.name]
    pairs = [(f"A{number}", micros(START)) for number in range(3)]
    said = plan(filled, lookup.bindparams(pairs=json_text(pairs)))
    assert "signals_key" in said or "signals_by_asset" in said, said
    assert "Seq Scan" not in said, said
    assert "SCAN signals" not in said, said
