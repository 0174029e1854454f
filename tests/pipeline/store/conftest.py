"""Every test of the store runs on a new SQLite file and on a new schema in PostgreSQL."""

import contextlib
import os
import secrets

import psycopg
import pytest

from pipeline.store.signal_store import SignalStore

SERVER = os.environ.get("SIEVE_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/test")


@contextlib.contextmanager
def new_schema():
    """The URL of a schema of the test's own, dropped afterwards."""
    try:
        server = psycopg.connect(SERVER, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no PostgreSQL at $SIEVE_TEST_POSTGRES or 127.0.0.1: {error}")
    schema = f"sieve_{secrets.token_hex(6)}"
    with server:
        server.execute(f"CREATE SCHEMA {schema}")
        try:
            yield f"{SERVER}?options=-csearch_path%3D{schema}"
        finally:
            server.execute("SET client_min_messages = error")
            server.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture
def sqlite_url(tmp_path):
    return f"sqlite:///{tmp_path}/signals.db"


@pytest.fixture
def postgres_url():
    with new_schema() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def url(request):
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def store(url):
    with SignalStore(url, wait=10) as opened:
        yield opened
