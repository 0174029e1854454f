"""A service on a planted market: a store with signals in it, a model, and a client."""

from contextlib import contextmanager
from dataclasses import asdict, replace

import pandas as pd
import pytest

pytest.importorskip("fastapi", reason="the extra [api] is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

from starlette.testclient import TestClient  # noqa: E402

from pipeline import artifacts  # noqa: E402
from pipeline.api.app import build  # noqa: E402
from pipeline.api.service import Parts  # noqa: E402
from pipeline.api.settings import Settings  # noqa: E402
from pipeline.api.tokens import Tokens, new_token  # noqa: E402
from pipeline.data.sources import frame  # noqa: E402
from pipeline.inquiry import Ask  # noqa: E402
from pipeline.store.signal_store import SignalStore  # noqa: E402

CONFIG = "c0ffee"
BARS = 12  # of an asset in a request


def rows(bars: pd.DataFrame) -> list[dict]:
    """Bars as they are posted."""
    flat = bars.reset_index()
    flat["time"] = flat["time"].dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    kept = flat.drop(columns=[name for name in ("session",) if name in flat])
    return kept.astype(object).where(kept.notna(), None).to_dict("records")


@pytest.fixture(scope="session")
def recent(tiny_market) -> list[dict]:
    """The newest bars of the planted market, as they are posted."""
    return rows(tiny_market.panel.groupby(level="asset").tail(BARS))


@pytest.fixture(scope="session")
def said(tiny, tiny_market):
    """Signals of many bars, explained."""
    bars = tiny_market.panel[
        tiny_market.panel.index.get_level_values("time")
        >= tiny_market.panel.index.unique("time")[-40]
    ]
    return tiny.signals(bars, newest=False)


@pytest.fixture(scope="session")
def inquired(tiny, tiny_market):
    """All that can be found out about the newest signal of an asset."""
    [found] = tiny.inquire(tiny_market.panel, "A2", ask=Ask(lime=True))
    return found


@pytest.fixture
def asked(own, inquired):
    """A service whose store holds that signal as the first, and what was found out about it."""
    own.store.append([inquired.signal], CONFIG)
    own.store.note([(inquired.signal, told(inquired))], CONFIG)
    return own


def told(found):
    """What the command stores of an inquiry with everything asked."""
    return {"asked": asdict(Ask(lime=True)), **found.record()}


@pytest.fixture(scope="session")
def root(tiny, tmp_path_factory):
    """A root whose champion is the tiny model."""
    folder = tmp_path_factory.mktemp("served")
    tiny.save(folder / "models")
    artifacts.promote(folder, tiny.digest)
    return folder


@pytest.fixture(scope="session")
def stored(said, tmp_path_factory):
    """A store of those signals; tests must not change it."""
    path = tmp_path_factory.mktemp("store") / "signals.db"
    with SignalStore(str(path)) as store:
        store.append(said, CONFIG, strategy="planted")
        for found in store.latest(40)[20:]:
            ended = found.time + pd.Timedelta(days=1)
            store.outcome(found.id, found.signal.side or 0, 0.01 * found.id, ended)
    return path


@pytest.fixture
def parts(root, stored):
    """What a service on loopback without tokens is made of."""
    with SignalStore(str(stored)) as store:
        yield Parts(
            Settings(names=["testserver"], poll=0.05, rate=1e6, burst=1_000_000),
            Tokens([]),
            store,
            root,
            lambda table: frame(table).bars,
            lambda as_of, explain: f"{CONFIG}{as_of}{explain}",
        )


@pytest.fixture
def own(parts, tmp_path):
    """The same with a store of the test's own."""
    with SignalStore(str(tmp_path / "own.db")) as store:
        yield replace(parts, store=store)


@contextmanager
def serving(parts: Parts, **settings):
    """A client of a running application."""
    changed = replace(parts, settings=replace(parts.settings, **settings))
    with TestClient(build(changed), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def client(parts):
    with serving(parts) as found:
        yield found


@pytest.fixture
def guarded(parts):
    """A client of a service that asks for a token, and that token."""
    text, entry = new_token("tests")
    with serving(replace(parts, tokens=Tokens.of({"SIEVE_TOKENS": entry}))) as found:
        yield found, text
