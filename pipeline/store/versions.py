"""Bring a store to the version that this code knows, or say why not."""

from pathlib import Path
from threading import Lock

import sqlalchemy as sa

from pipeline.store.tables import METADATA
from stages.base import StoreError

HEAD = "0003"
FOLDER = Path(__file__).parent / "migrations"
TABLE = "sieve_alembic_version"  # `alembic_version` is that of other tools (MLflow, Optuna)
_ONE = Lock()  # Alembic's context belongs to the process


def version(connection: sa.Connection) -> str | None:
    """Version of the store, None for an empty database."""
    if not sa.inspect(connection).has_table(TABLE):
        return None
    return connection.execute(sa.text(f"SELECT version_num FROM {TABLE}")).scalar()


def upgrade(connection: sa.Connection, name: str) -> str | None:
    """Take the store to `HEAD` within the transaction of `connection`: wholly or not at all.

    Parameters
    ----------
    connection : Connection
        In a transaction that holds the lock of writers: of two starters one upgrades.
    name : str
        Of the store, for errors.

    Returns
    -------
    str or None
        The version before.

    Raises
    ------
    StoreError
        SV-X530 if the store is of a later version, SV-X531 if the database is someone else's.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    found = version(connection)
    if found == HEAD:
        return found
    settings = Config(attributes={"connection": connection, "version_table": TABLE})
    settings.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    settings.set_main_option("path_separator", "os")
    known = {script.revision for script in ScriptDirectory.from_config(settings).walk_revisions()}
    if found is not None and found not in known:
        raise _newer(name, found)
    if found is None:
        theirs = set(sa.inspect(connection).get_table_names()) & set(METADATA.tables)
        if theirs:
            raise _foreign(name, sorted(theirs))
    with _ONE:
        command.upgrade(settings, "head")
    return found


def _newer(name: str, found: str) -> StoreError:
    return StoreError(
        f"the store is of version {found}, later than {HEAD}, which is known here",
        code="SV-X530",
        where=name,
        why="a later version of Sieve has written to it; an older one could misread it",
        cure="update Sieve, or name another store",
    )


def _foreign(name: str, tables: list[str]) -> StoreError:
    return StoreError(
        f"the database holds tables of someone else: {', '.join(tables)}",
        code="SV-X531",
        where=name,
        why="the names are those of a store of signals, but none was made here",
        cure="name an empty database, or another file",
    )
