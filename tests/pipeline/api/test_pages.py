"""The page: what it shows is what is stored, it asks the network for nothing, texts are texts."""

import html
import re
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest

from pipeline import artifacts
from pipeline.api.tokens import Tokens, new_token
from pipeline.store.signal_store import SignalStore
from tests.pipeline.api.conftest import CONFIG, serving, told

HTML = {"Accept": "text/html"}
RUN = re.compile("<script[^>]*>alert")  # pages give each script a nonce
PLACES = ("/", "/?show=latest", "/performance", "/model", "/login")


class Seen(HTMLParser):
    """What a page refers to, its labelled fields, and whether its elements close."""

    VOID = {"meta", "link", "input", "br", "img"}

    def __init__(self, text):
        super().__init__()
        self.places, self.open, self.inline, self.tags = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.places += [found[name] for name in ("href", "src", "action") if name in found]
        if tag == "script" and "src" not in found:
            self.inline.append(found.get("nonce"))
        assert not any(name.startswith("on") for name in found)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def now(parts):
    """The service as it stood when the newest signals were made."""
    newest = parts.store.latest(1)[0]
    return replace(parts, clock=lambda: newest.time + pd.Timedelta("5min"))


def page(client, place, status=200):
    answer = client.get(place, headers=HTML)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    return answer.text


def places(parts):
    some = next(one for one in parts.store.latest(100) if one.outcome)
    return [*PLACES, f"/signals/{some.id}"]


def test_pages_ask_nothing_of_the_network_and_run_no_foreign_script(now):
    with serving(now) as client:
        for place in places(now):
            answer = client.get(place, headers=HTML)
            assert answer.status_code == 200, (place, answer.text)
            policy = answer.headers["content-security-policy"]
            seen = Seen(answer.text)
            assert all(p.startswith(("/", "#", "data:,")) for p in seen.places), place
            [nonce] = re.findall("'nonce-([^']+)'", policy)
            assert set(seen.inline) <= {nonce}
            assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
            for own in seen.places:
                if own.startswith("/static/"):
                    assert client.get(own).status_code == 200


def test_every_field_has_a_label_and_every_page_a_heading_a_title_and_a_language(now):
    with serving(now) as client:
        for place in places(now):
            text = page(client, place)
            seen = Seen(text)
            names = [tag for tag, _ in seen.tags]
            assert names.count("h1") == names.count("main") == names.count("title") == 1
            assert ("html", {"lang": "en"}) in seen.tags
            for tag, found in seen.tags:
                if tag in ("select", "input") and found.get("type") != "hidden":
                    assert f'for="{found.get("id")}"' in text or re.search(
                        rf'<label>[^<]*<{tag} name="{found["name"]}"', text
                    ), (place, found)


def test_active_signals_are_shown_and_link_to_their_pages(now):
    with serving(now) as client:
        text = page(client, "/")
        active = now.store.active(now.clock())
        assert len(active) > 1
        newest = {}
        for found in active:
            newest.setdefault(found.asset, found)
        shown = [int(i) for i in re.findall(r'href="/signals/(\d+)"', text)]
        assert sorted(shown) == sorted(found.id for found in newest.values())
        for found in active:
            one = page(client, f"/signals/{found.id}")
            assert found.row["side"] in one
            for why in found.signal.reasons.text:
                assert why.split(" ")[0] in one
            assert "From stage to stage" in one


def test_the_table_is_narrowed_by_class_asset_side_and_status(now):
    with serving(now) as client:
        shown = page(client, "/?show=latest&asset=A1&kind=&side=")
        assert set(re.findall(r'href="/signals/\d+">(\w+)<', shown)) == {"A1"}
        assert 'value="A1"' in shown
        assert "No signal is like that" in page(client, "/?show=latest&kind=etf")
        assert page(client, "/?show=latest&kind=equity").count("<tr>") > 10
        for side in ("BUY", "SELL", "HOLD"):
            count = len(now.store.latest(50, side=side))
            assert page(client, f"/?show=latest&side={side}").count('<th scope="row">') == count
        page(client, "/?side=up", 422)


def test_older_signals_are_a_link_away(now):
    with serving(now) as client:
        first = page(client, "/?show=latest&status=")
        [older] = re.findall(r'href="(/\?[^"]*cursor[^"]*)"', first)
        second = page(client, older.replace("&amp;", "&"))
    shown = re.findall(r'href="/signals/(\d+)"', first) + re.findall(
        r'href="/signals/(\d+)"', second
    )
    assert [int(i) for i in shown] == [one.id for one in now.store.latest(100)]


def test_an_outcome_is_told_as_right_or_wrong(now):
    judged = [s for s in now.store.latest(100) if s.outcome and s.row["side"] in ("BUY", "SELL")]
    with serving(now) as client:
        for found in judged[:3]:
            text = page(client, f"/signals/{found.id}")
            right = found.signal.side == found.outcome.label
            assert ("<strong>right</strong>" in text) == right
            assert f"{100 * found.outcome.ret:+.2f} %" in text


HEADS = ("What would have had to be different", "When it last looked like this", "A second opinion")


def test_what_was_found_out_is_shown(asked, inquired):
    with serving(asked) as client:
        text = page(client, "/signals/1")
    seen = Seen(text)
    assert all(p.startswith(("/", "#", "data:,")) for p in seen.places)
    places = [text.index(head) for head in ("What stood in the way", *HEADS, "From stage to stage")]
    assert places == sorted(places)
    plain = " ".join(html.unescape(text).split())
    parts = inquired.sentence, inquired.change, inquired.episodes, inquired.lime
    for words in (part.text for part in parts):
        assert " ".join(words.split()) in plain
    for episode in inquired.episodes.episodes[:10]:
        assert f"<td>{episode.time[:10]}</td>" in text
    for move in inquired.change.moves or inquired.lean.moves:
        assert f"<td>{move.start:.4g}</td><td>{move.end:.4g}</td>" in text
    assert "Found out with full reasons, kept since 20" in plain
    for tag, found in seen.tags:  # what scrolls is reached by keyboard, and named
        if found.get("class") == "scroll":
            assert (tag, found["tabindex"], found["role"]) == ("div", "0", "region")
            assert found["aria-label"]


def test_what_nobody_asked_is_left_out(now, asked, inquired):
    newest = now.store.latest(1)[0]
    with serving(now) as client:
        text = page(client, f"/signals/{newest.id}")
    assert not any(words in text for words in (*HEADS, "Found out with"))
    bare = replace(inquired, change=None, lean=None, episodes=None, lime=None)
    asked.store.note([(bare.signal, told(bare))], CONFIG)
    with serving(asked) as client:
        text = page(client, "/signals/1")
    Seen(text)
    assert not any(words in text for words in HEADS)
    assert html.escape(bare.sentence.text[:20]) in text


def test_of_an_abstention_the_sentence_is_shown(own, tiny, tiny_market):
    [none] = tiny.inquire(tiny_market.panel, "A2", pd.Timestamp("2000-01-04", tz="UTC"))
    own.store.append([none.signal], CONFIG)
    own.store.note([(none.signal, told(none))], CONFIG)
    with serving(own) as client:
        text = page(client, "/signals/1")
    Seen(text)
    assert "No view: history" in text
    assert "nan" not in text
    assert not any(words in text for words in HEADS)


def test_what_was_found_out_is_shown_and_never_run(asked, inquired):
    evil = "<script>alert('x')</script>\"onload=1"
    name = "</script><script>alert(1)</script>"
    moved = inquired.change if inquired.change.moves else inquired.lean
    [move, *_] = moved.moves
    move = replace(move, name=evil, along_names=(evil,), companions=(evil,))
    past = tuple(replace(one, asset=name) for one in inquired.episodes.episodes)
    hostile = replace(
        inquired,
        sentence=replace(inquired.sentence, text=evil),
        change=replace(moved, text=evil, moves=(move,)),
        lean=replace(moved, text=evil),
        episodes=replace(inquired.episodes, text=evil, episodes=past),
        lime=replace(inquired.lime, text=evil, effects={name: 0.1, **inquired.lime.effects}),
    )
    asked.store.note([(hostile.signal, told(hostile))], CONFIG)
    with serving(asked) as client:
        text = page(client, "/signals/1")
    assert not RUN.search(text)
    assert text.count("&lt;script&gt;alert") >= 8
    Seen(text)


def test_performance_and_calibration_are_those_of_the_store(now):
    with serving(now) as client:
        text = page(client, "/performance")
        table = now.store.performance("side")
        for side, row in table.iterrows():
            assert f'<th scope="row">{side}</th><td>{row["signals"]:,.0f}</td>' in text
        assert "Does confidence mean what it says" in text
        assert "No signal with a side" in page(client, "/performance?strategy=none")


def test_the_model_page_tells_what_is_in_service_and_what_is_refused(now, tiny):
    with serving(now) as client:
        text = page(client, "/model")
        assert tiny.digest[:16] in text
        assert "champion, in service" in text
        assert "Has it shown skill?" in text


def test_an_empty_service_says_what_to_do(own, tmp_path):
    with serving(replace(own, root=tmp_path)) as client:
        assert "no model in service" in page(client, "/")
        assert "pipeline.train" in page(client, "/model")
        page(client, "/performance")


def test_names_from_elsewhere_are_shown_and_never_run(own, said):
    evil = "<script>alert('x')</script>\"onload=1"
    with serving(own) as client:
        own.store.append([replace(said[0], asset=evil)], CONFIG, strategy=evil)
        for place in ("/?show=latest", "/signals/1", f"/?asset={evil}", "/performance"):
            text = page(client, place)
            assert not RUN.search(text)
            Seen(text)
        assert "&lt;script&gt;alert" in page(client, "/signals/1")


def test_a_browser_is_asked_for_a_token_and_keeps_it_where_scripts_cannot_read(parts):
    text, entry = new_token("desk")
    guarded = replace(parts, tokens=Tokens.of({"SIEVE_TOKENS": entry}))
    with serving(guarded) as client:
        asked = client.get("/model", headers=HTML, follow_redirects=False)
        assert (asked.status_code, asked.headers["location"]) == (303, "/login?next=/model")
        digest = artifacts.read(artifacts.champion(parts.root)).digest[:12]
        assert digest not in client.get("/login", headers=HTML).text
        wrong = client.post("/login", data={"token": "x", "next": "/model"})
        assert wrong.status_code == 401
        assert "wrong" in wrong.text
        moved = client.post(
            "/login", data={"token": text, "next": "/model"}, follow_redirects=False
        )
        assert (moved.status_code, moved.headers["location"]) == (303, "/model")
        assert {"HttpOnly", "SameSite=strict"} <= set(moved.headers["set-cookie"].split("; "))
        assert digest in page(client, "/model")
        away = client.post(
            "/login", data={"token": text, "next": "//evil.example"}, follow_redirects=False
        )
        assert away.headers["location"] == "/"


def test_a_browser_gets_a_page_for_an_error_and_a_program_a_problem(client):
    assert "there is no signal 999999" in page(client, "/signals/999999", 404)
    assert client.get("/signals/999999").headers["content-type"] == "application/problem+json"
    page(client, "/nothing", 404)


def test_the_page_can_be_left_out(parts):
    with serving(parts, page=False) as client:
        assert client.get("/").status_code == 404
        assert client.get("/v1/signals").status_code == 200


def test_files_come_compressed_and_for_good(client):
    plain = client.get("/static/plotly.js", headers={"Accept-Encoding": "identity"})
    packed = client.get("/static/plotly.js", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content
    assert int(packed.headers["content-length"]) < len(plain.content) / 3
    assert "immutable" in packed.headers["cache-control"]
    assert client.get("/static/../app.py").status_code == 404


def test_a_store_that_is_gone_is_a_problem_and_not_an_empty_page(parts, tmp_path):
    path = tmp_path / "lost.db"
    with SignalStore(str(path), wait=0.1) as store, serving(replace(parts, store=store)) as client:
        path.write_bytes(b"no database at all, " * 100)
        answer = client.get("/v1/signals")
        assert answer.status_code in (500, 503)
        assert answer.json()["code"] == "SV-X532"
        assert client.get("/", headers=HTML).status_code in (500, 503)
