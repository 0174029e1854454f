"""Pictures of the page: ``python -m experiments.benchmarks.service.picture ROOT FOLDER [NAME]``.

ROOT holds a champion and ``signals.db``, as the commands of the README leave them; NAME, such as
``signals-desktop-light``, takes one picture alone. The clock stands five minutes after the newest
signal. Needs chromium and Pillow.
"""

import sys
import tempfile
from pathlib import Path

import pandas as pd
from PIL import Image

from pipeline.api.service import Parts
from pipeline.api.settings import Settings
from pipeline.api.tokens import Tokens
from pipeline.store.signal_store import SignalStore
from tests.pipeline.api.browser import Browser
from tests.pipeline.api.test_browser import running

SHOTS = (("desktop", "light"), ("desktop", "dark"), ("phone", "light"), ("phone", "dark"))


def places(store):
    """Name and address of each page, with the surest signal as the one that is opened."""
    newest = store.latest(200)
    one = max(newest, key=lambda found: found.row["certainty"] or 0.0)
    yield "signals", "/"
    yield "signal", f"/signals/{one.id}"
    yield "performance", "/performance"
    yield "model", "/model"


def main():
    root, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    with SignalStore(str(root / "signals.db")) as store, tempfile.TemporaryDirectory() as profile:
        now = store.latest(1)[0].time + pd.Timedelta("5min")
        parts = Parts(
            Settings(rate=1e6, burst=1_000_000),
            Tokens([]),
            store,
            root,
            lambda table: table,
            lambda as_of, explain: "",
            clock=lambda: now,
        )
        with running(parts) as url:
            browser = Browser(Path(profile))
            for name, place in places(store):
                for size, scheme in SHOTS:
                    if f"{name}-{size}-{scheme}" not in (
                        sys.argv[3:] or [f"{name}-{size}-{scheme}"]
                    ):
                        continue
                    browser.look(size, scheme)
                    browser.open(url + place)
                    path = folder / f"{name}-{size}-{scheme}.png"
                    browser.shoot(path)
                    with Image.open(path) as found:  # flat colours: a palette holds them
                        found.convert("RGB").quantize(64).save(path, optimize=True)
            browser.close()


if __name__ == "__main__":
    main()
