import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from pipeline.data.sources import synthetic
from pipeline.evaluation import judge
from pipeline.report.page import gate_sentence, waterfall, write_page
from pipeline.signals import Signals, skill_sentence
from stages.filter.gate import OPEN
from stages.signal import WhyNot

LIMIT = 6 * 2**20  # bytes


class Elements(HTMLParser):
    """Tags with their attributes, the text outside of scripts, and tags left open."""

    EMPTY = {"meta", "br", "hr", "img", "link", "input"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def signals(tiny, tiny_market):
    """Two bars of each asset, the young one an abstention."""
    panel = tiny_market.panel
    bars = panel.groupby(level="asset").head(60)
    young = bars.index.get_level_values("asset") == "A3"
    bars = bars[~young | (bars.index.get_level_values("time") >= bars.index[-3][1])]
    return Signals(s for s in tiny.signals(bars, newest=False) if s.time >= bars.index[-2][1])


@pytest.fixture(scope="module")
def card(tiny, tiny_market):
    source = synthetic(tiny_market)
    return judge(tiny, tiny.unseen_, source.y, source, resamples=10).card()


@pytest.fixture(scope="module")
def page(signals, card, tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "below" / "page.html"
    write_page(path, signals, card, "Not advice & nothing <else>.", tiny.record_)
    return path


@pytest.fixture(scope="module")
def elements(page):
    return Elements(page.read_text(encoding="utf-8"))


def test_the_page_asks_nothing_of_the_network(elements):
    for tag, attributes in elements.tags:
        assert tag not in ("link", "iframe", "img", "object", "form")
        assert not {"src", "href", "action", "data"} & set(attributes), (tag, attributes)
    [policy] = [a["content"] for t, a in elements.tags if a.get("http-equiv")]
    assert "default-src 'none'" in policy


def test_the_page_is_small_and_whole(page, elements):
    assert page.stat().st_size < LIMIT
    assert elements.open == []
    assert elements.tags[0][0] == "html"


def test_a_page_of_a_hundred_assets_is_small_too(signals, card, tmp_path):
    [one] = [s for s in signals.newest() if s.asset == "A0"]
    many = Signals(replace(one, asset=f"S{k:03d}") for k in range(100))
    write_page(tmp_path / "page.html", many, card, "")
    assert (tmp_path / "page.html").stat().st_size < LIMIT * 0.9


def test_the_page_holds_the_newest_signal_of_each_asset_and_its_reasons(page, signals, elements):
    text = page.read_text(encoding="utf-8")
    rows = signals.newest().frame()
    for _, row in rows.iterrows():
        for cell in row[["asset", "time", "status", "confidence", "certainty"]]:
            assert cell in elements.text
    explained = [s for s in signals.newest() if s.reasons]
    assert text.count('"type":"waterfall"') == len(explained) == 3
    for signal in explained:
        figure = text[text.index(f"<strong>{signal.asset}</strong>") :]
        assert f"{signal.reasons.margin:+.3f}" in figure[:6000]
        assert signal.reasons.text[0] in elements.text
    assert "4 older signals are not shown" in elements.text
    assert skill_sentence(signals.newest()[0].skill) in elements.text


def test_an_abstention_and_a_hold_say_why(elements):
    assert re.search(r"A3 .{0,60}abstain .{0,20}history: \d+ bars missing", elements.text)


def test_the_table_stands_beside_its_base_rate(elements, card):
    said = f"{card['rows']:,} unseen rows (out-of-fold), {card['span'][0]} to {card['span'][1]}"
    assert said in elements.text
    assert f"would have scored: {card['base_rate']}" in elements.text
    assert " base_rate " not in elements.text
    for model, cells in card["printed"].items():
        assert model in elements.text
        assert cells[0] in elements.text


def test_the_gate_is_told_in_a_sentence(elements, card):
    assert gate_sentence(card["gate"]) in elements.text
    assert "{" not in elements.text
    known = {"threshold": -0.5, "discarded": 0.123, "rows": 4100.0}
    assert gate_sentence(known) == (
        "The gate stops rows whose first score is below -0.50 log-odds: "
        "12.3% of 4,100 rows later than those that set it."
    )
    assert gate_sentence(known | {"discarded": None}).endswith("-0.50 log-odds.")
    for threshold in (OPEN, None):
        assert "open" in gate_sentence(known | {"threshold": threshold})


def test_what_the_data_are_is_said_and_escaped(page, elements):
    assert "Not advice & nothing <else>." in elements.text
    assert "nothing <else>" not in page.read_text()


def test_a_hostile_name_stays_text(signals, tmp_path):
    [one] = [s for s in signals.newest() if s.asset == "A0"]
    name = "</script><script>alert(1)</script>"
    reasons = replace(
        one.reasons, contributions={name: sum(one.reasons.contributions.values())}, text=(name,)
    )
    hostile = Signals(
        [replace(one, asset=name, why_not=(WhyNot("gate", f"gate {name}"),), reasons=reasons)]
    )
    write_page(tmp_path / "page.html", hostile, {}, name)
    assert "<script>alert" not in (tmp_path / "page.html").read_text()


def test_a_page_without_evaluation_or_reasons_still_opens(signals, tmp_path):
    bare = Signals(replace(s, reasons=None) for s in signals)
    write_page(tmp_path / "page.html", bare, {}, "")
    text = Elements((tmp_path / "page.html").read_text()).text
    assert "Does it work?" not in text
    assert "No signal carries its reasons" in text
    write_page(tmp_path / "page.html", Signals(), {}, "")
    assert "0 assets" in Elements((tmp_path / "page.html").read_text()).text


def test_a_waterfall_runs_from_the_baseline_to_the_margin(signals):
    signal = next(s for s in signals if s.reasons)
    bars = waterfall(signal).data[0]
    assert (bars.y[0], bars.y[-1]) == ("baseline", "margin")
    assert bars.x[0] + sum(bars.x[1:-1]) == pytest.approx(bars.x[-1])
    with pytest.raises(ValueError, match="no reasons"):
        waterfall(replace(signal, reasons=None))


def test_many_reasons_are_summed_into_one(signals):
    signal = next(s for s in signals if s.reasons)
    pushes = {f"x{k}": 0.01 * k for k in range(60)}
    baseline = signal.reasons.margin - sum(pushes.values())
    long = replace(signal, reasons=replace(signal.reasons, contributions=pushes, baseline=baseline))
    bars = waterfall(long).data[0]
    assert bars.y[1] == "x59"
    assert bars.y[-2] == "48 others"
    assert sum(bars.x[:-1]) == pytest.approx(bars.x[-1])


def test_the_page_shows_a_picture_of_each_claim(page):
    text = page.read_text(encoding="utf-8")
    for heading in (
        "Does confidence mean",
        "surer half",
        "doubt what it",
        "Do sets and",
        "shown skill",
    ):
        assert heading in text
