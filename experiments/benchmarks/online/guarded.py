"""Does the guard hold? ``python -m experiments.benchmarks.online.guarded``.

What a nightly job does, every 20 bars: the models speak, alarms are heard, a challenger that has
won takes over, and the rest learns as the alarms ask for it (``pipeline.update drifted=watch``).

Words: ``markets=flip,poisoned,covariate``, ``seeds=1``, ``first=100``, ``assets=10``, ``until=760``
(the last bar), ``forced=true`` (members learn every 20 bars, alarm or not), ``readme=true`` (puts
the table into the README).
"""

import os
import sys

from pipeline.cli import THREADS

for name in THREADS:  # before numpy and numba are imported and count the cores
    os.environ.setdefault(name, "1")

from dataclasses import dataclass, field, replace  # noqa: E402
from pathlib import Path  # noqa: E402
from tempfile import mkdtemp  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from experiments.benchmarks.online.streams import (  # noqa: E402
    FLIP,
    POISON,
    TRAINED,
    Stream,
    members,
    pipeline,
    stream,
)
from pipeline import artifacts, promotions  # noqa: E402
from pipeline.answers import Answer, answer  # noqa: E402
from pipeline.data.sources import frame  # noqa: E402
from pipeline.lock import lock  # noqa: E402
from pipeline.pointer import history, read_pointer  # noqa: E402
from pipeline.signal_pipeline import SignalPipeline  # noqa: E402
from pipeline.succession import carry_out, plan  # noqa: E402
from pipeline.updates import answered  # noqa: E402
from pipeline.watching import watched  # noqa: E402
from stages.ensemble.conformal import Coverage  # noqa: E402
from stages.online.drift import DriftWatch  # noqa: E402
from stages.online.promotion import Promotion  # noqa: E402
from stages.signal import ODDS  # noqa: E402

README = Path(__file__).with_name("README.md")
STEP = 20  # bars between two nights
CHANGE = {"flip": FLIP, "poisoned": POISON[0], "covariate": FLIP}
GATES = ("evidence", "bars", "loss", "calibration", "additivity")  # nobody audited these models
WATCH = DriftWatch(draws=9_999)


@dataclass
class Night:
    """What one night brought.

    Attributes
    ----------
    bar : int
        Number of the newest bar.
    skill : float
        Of what the champion had said of the bars since the last night, nats.
    alarms : tuple of str
        Kinds that are active.
    actions : tuple of str
        Asked for by them.
    lessons : int
        Of members.
    change : str
        Of the pointer, in words.
    """

    bar: int
    skill: float
    alarms: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    lessons: int = 0
    change: str = ""


@dataclass
class Life:
    """Nights, and the coverage of sets by bar."""

    nights: list[Night] = field(default_factory=list)
    coverage: pd.Series = field(default_factory=lambda: pd.Series(dtype="float64"))


def lived(at: Stream, seed: int, until: int, root: Path, forced: bool = False) -> Life:
    """Train on the first bars, then live night by night; `forced` lets members learn each night."""
    coverage = Coverage(level=0.9, horizon=1, delay=0)
    sieve = replace(pipeline(seed, False), coverage=coverage).fit(*at.upto(TRAINED))
    sieve.save(root / "models", {"data": "planted"})
    artifacts.promote(root, sieve.digest)
    rules, learning, life = Promotion(GATES), members(0.1), Life()
    for bar in range(TRAINED + STEP, until + 1, STEP):
        bars, y = at.upto(bar)
        source = frame(bars, y=y)
        with lock(root, wait=60):
            found = watched(root, source, rules, WATCH)
            before = read_pointer(root)
            promotions.act(root, found.standing, found.bar)
        heard = answer(found.drift, learning, answered(root))
        asked = Answer(learning=learning, told=False) if forced else heard
        todo = plan(root, None, asked.learning)
        done = list(carry_out(root, todo, (bars, y), asked, rules, {}))
        rows = found.standing.models["champion"].rows
        kinds = tuple(dict.fromkeys(alarm.kind for alarm in found.drift.active))
        changes = [c for c in history(root) if c.number > before.number]
        said = [f"{c.action} ({c.why[:40]})" for c in changes if c.action != "advance"]
        skill = _skill(rows, at, bar)
        lessons = sum(step.update.counts["lessons"] for step in done)
        life.nights.append(Night(bar, skill, kinds, heard.actions, lessons, "; ".join(said)))
    model = SignalPipeline.load(artifacts.champion(root))
    if model.record_.coverage_ is not None:
        life.coverage = model.record_.coverage_.history_["set_coverage"]
    return life


def _skill(rows: pd.DataFrame, at: Stream, bar: int) -> float:
    """Log 3 less the log-loss of what was said of the last bars, by what truly came."""
    late = rows[rows.index.get_level_values("time") > at.times[bar - STEP - 1]]
    came = at.market.y["side"].reindex(late.index).dropna().astype(int) + 1
    p = late.loc[came.index, ODDS].to_numpy("float64")
    return float(np.log(3) + np.log(p[np.arange(len(p)), came.to_numpy()]).mean())


def lines(market: str, life: Life, at: Stream) -> list[str]:
    """A table of the nights, and what is to be shown."""
    head = ["bar", "skill of what served", "alarms", "asked for", "lessons", "who serves"]
    out = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for n in life.nights:
        cells = [n.bar, f"{n.skill:.3f}", ", ".join(n.alarms), ", ".join(n.actions), n.lessons]
        out.append(f"| {' | '.join(map(str, [*cells, n.change]))} |")
    held = life.coverage
    if len(held):
        since = held[held.index > at.times[CHANGE[market]]]
        share = [f"{since.iloc[a : a + 50].mean():.3f}" for a in range(0, len(since) - 49, 50)]
        out += ["", f"Sets promised at 0.90 held, by 50 bars since the change: {', '.join(share)}."]
    return [*out, ""]


def main(words: list[str]) -> None:
    """Live through the markets, and print the nights."""
    given = {"markets": "flip,poisoned,covariate", "seeds": "1", "first": "100", "assets": "10"}
    given |= {"until": "760", "forced": "false", "readme": "false"}
    given |= dict(word.partition("=")[::2] for word in words)
    out = []
    for market in given["markets"].split(","):
        for seed in range(int(given["first"]), int(given["first"]) + int(given["seeds"])):
            at = stream(market, seed, int(given["assets"]))
            forced = given["forced"] == "true"
            life = lived(at, seed, int(given["until"]), Path(mkdtemp()), forced)
            learns = "members learn each night" if forced else "members learn if an alarm asks"
            out += [f"**{market}**, seed {seed}; {learns}", "", *lines(market, life, at)]
            print("\n".join(out[-len(life.nights) - 6 :]), file=sys.stderr, flush=True)
    text = "\n".join(out)
    print(text)
    if given["readme"] == "true":
        begin, end = "<!-- guarded begins -->", "<!-- guarded ends -->"
        first, _, rest = README.read_text().partition(begin)
        README.write_text(f"{first}{begin}\n{text}{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    main(sys.argv[1:])
