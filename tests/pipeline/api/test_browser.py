"""The page in a real browser: drawn without a network, by keyboard, on a phone, dark and light."""

import threading
import time
from dataclasses import replace

import pandas as pd
import pytest
import uvicorn

from pipeline.api.app import build
from pipeline.store.signal_store import SignalStore
from tests.pipeline.api.browser import SIZES, Browser, program

pytestmark = pytest.mark.skipif(program() is None, reason="no chromium: apt-get install chromium")

PLACES = ("/", "/?show=latest", "/performance", "/model")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def site(parts):
    """A service in a thread, as it stood when the newest signals were made."""
    newest = parts.store.latest(1)[0]
    now = replace(parts, clock=lambda: newest.time + pd.Timedelta("5min"))
    with running(now) as url:
        yield url, parts


class running:  # noqa: N801  reads as a statement
    def __init__(self, parts):
        config = uvicorn.Config(build(parts), port=0, log_config=None, ws="none")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join(20)


def brightness(text):
    """Of a colour as the browser writes it, 0 to 1."""
    numbers = text[text.index("(") + 1 :].split(",")[:3]
    return sum(float(n.strip(" )")) for n in numbers) / (3 * 255)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_and_draw_their_figures_in_their_colours(browser, site, size, scheme):
    url, parts = site
    browser.look(size, scheme)
    browser.asked.clear()
    browser.complaints.clear()
    signal = next(one for one in parts.store.latest(100) if one.outcome)
    for place in (*PLACES, f"/signals/{signal.id}"):
        browser.open(url + place)
        assert browser.value("document.documentElement.scrollWidth <= innerWidth"), place
        paper = browser.value("getComputedStyle(document.body).backgroundColor")
        ink = browser.value("getComputedStyle(document.body).color")
        assert (brightness(paper) < 0.3 < 0.7 < brightness(ink)) == (scheme == "dark"), place
        figures = browser.value("document.querySelectorAll('.plotly-graph-div').length")
        drawn = browser.value("document.querySelectorAll('.plotly-graph-div .main-svg').length")
        assert drawn >= figures
        assert (figures > 0) == (place in ("/performance", "/model") or "signals/" in place)
        if figures:
            texts = browser.value(
                "getComputedStyle(document.querySelector('.plotly-graph-div .xtick text')).fill"
            )
            assert (brightness(texts) > 0.5) == (scheme == "dark"), place
    assert browser.complaints == []
    assert {address.startswith((url, "data:", "about:")) for address in browser.asked} == {True}


@pytest.mark.parametrize("size", SIZES)
def test_what_was_found_out_fits_and_is_drawn(browser, asked, inquired, size):
    now = replace(asked, clock=lambda: inquired.signal.time + pd.Timedelta("5min"))
    with running(now) as url:
        browser.look(size)
        browser.asked.clear()
        browser.complaints.clear()
        browser.open(f"{url}/signals/1")
        assert browser.value("document.documentElement.scrollWidth <= innerWidth")
        drawn = "[...document.querySelectorAll('.plotly-graph-div')].map(f => f.data[0].name)"
        names = browser.value(f"JSON.stringify({drawn})")
        assert "ended as SELL" in names
        assert "push" in names
        assert browser.complaints == []
        assert {address.startswith((url, "data:", "about:")) for address in browser.asked} == {True}


def test_a_signal_is_reached_by_keyboard_alone(browser, site):
    url, parts = site
    browser.look()
    browser.open(f"{url}/")
    newest = parts.store.active(parts.store.latest(1)[0].time + pd.Timedelta("5min"))[0]
    for _ in range(40):
        browser.press("Tab")
        if browser.value("document.activeElement.getAttribute('href')") == f"/signals/{newest.id}":
            break
        outline = browser.value("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
    browser.press("Enter")
    for _ in range(100):
        if browser.value("location.pathname") == f"/signals/{newest.id}":
            break
        time.sleep(0.05)
    assert browser.value("location.pathname") == f"/signals/{newest.id}"


def test_the_table_follows_the_store_and_can_be_paused(browser, own, said):
    newest = max(signal.time for signal in said)
    with SignalStore(own.store.database.url.database) as store:
        now = replace(own, store=store, clock=lambda: newest + pd.Timedelta("5min"))
        store.append([s for s in said if s.time == newest][:1], "c")
        with running(now) as url:
            browser.look()
            browser.open(f"{url}/")
            assert browser.value("document.querySelectorAll('#live tbody tr').length") == 1
            store.append([s for s in said if s.time == newest], "c")
            # the page looks every ten seconds; what it then does is asked for here
            browser.value("window.sieveLook()")
            for _ in range(100):
                if browser.value("document.querySelectorAll('#live tbody tr').length") > 1:
                    break
                time.sleep(0.05)
            assert browser.value("document.querySelectorAll('#live tbody tr').length") > 1
            browser.value("document.querySelector('#pause').click()")
            assert browser.value("document.querySelector('#pause').ariaPressed") == "true"
