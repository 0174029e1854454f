"""Books on disk: what comes back is what was written, or nothing does."""

import json
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.books import Snapshot, before, read_snapshot, snapshots, write_snapshot
from stages.base import DataError, StoreError
from stages.portfolio.book import Book, Order, Position
from stages.portfolio.restate import restated

DAY = pd.Timestamp("2024-03-01 21:00", tz="UTC").as_unit("us")
prices = st.floats(1e-3, 1e6)
position = st.builds(
    Position, st.integers(1, 10**7), st.just(DAY - pd.Timedelta(days=9)), prices, prices
)
order = st.builds(
    Order,
    st.sampled_from("ABC"),
    st.sampled_from(["BUY", "SELL"]),
    st.integers(1, 10**6),
    st.text(max_size=30),
    st.floats(-9, 9) | st.just(float("nan")),
    st.floats(-9, 9),
    st.floats(0, 1),
    prices,
    prices,
)


@st.composite
def snapshot(draw):
    held = draw(st.dictionaries(st.text(min_size=1, max_size=8), position, max_size=6))
    book = Book(
        DAY,
        draw(st.decimals(0, 10**9, places=2)),
        held,
        draw(st.dictionaries(st.text(min_size=1, max_size=8), st.integers(0, 9), max_size=6)),
        draw(st.none() | st.just(DAY)),
        draw(st.none() | st.just(DAY)),
        draw(st.floats(0, 1e12)),
    )
    closes = {asset: draw(prices) for asset in held}
    orders = tuple(draw(st.lists(order, max_size=3)))
    return Snapshot("2024-03-01", book, closes, orders, {"policy": "x"})


def same(one, other):
    """Equal, an unknown number too."""
    return repr(one) == repr(other)


@settings(max_examples=60, deadline=None)
@given(snapshot())
def test_a_book_comes_back_as_it_was(tmp_path_factory, written):
    folder = tmp_path_factory.mktemp("books")
    path = write_snapshot(folder, written)
    found = read_snapshot(path)
    assert found.book == written.book
    assert same(sorted(found.prices.items()), sorted(written.prices.items()))
    assert same(found.orders, written.orders)
    content = path.read_bytes()
    assert write_snapshot(folder, found).read_bytes() == content


def stored(folder, key="2024-03-01", cash="123.45"):
    held = {"510300": Position(100, DAY, 3.456, 3.6)}
    book = Book(DAY, Decimal(cash), held, {"510300": 0}, DAY, DAY, 1000.0)
    return write_snapshot(folder, Snapshot(key, book, {"510300": 3.5}))


def test_the_file_says_what_a_person_would_ask(tmp_path):
    content = json.loads(stored(tmp_path).read_text())
    assert content["as_of_date"] == "2024-03-01"
    assert (content["cash"], content["total_value"]) == ("123.45", "473.45")
    assert content["holdings"]["510300"]["shares"] == 100
    assert content["cluster_assignments"] == {"510300": 0}


def test_any_changed_byte_is_noticed(tmp_path):
    path = stored(tmp_path)
    content, rng = path.read_bytes(), np.random.default_rng(4)
    meaning = json.loads(content)
    for place in rng.choice(len(content), 150, replace=False):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(0, 7))
        path.write_bytes(flipped)
        try:
            changed = json.loads(bytes(flipped)) != meaning
        except ValueError:
            changed = True
        if changed:  # a blank between two keys may become another blank
            with pytest.raises(StoreError) as caught:
                read_snapshot(path)
            assert (caught.value.code, caught.value.exit_code) == ("SV-X613", 5)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "null",
        lambda text: "[]",
        lambda text: text.replace('"123.45"', '"123.46"'),
        lambda text: text.replace('"shares": 100', '"shares": 101'),
        lambda text: text.replace('"schema_version": "1"', '"schema_version": "2"'),
        lambda text: text.replace('"sha256"', '"sha255"'),
    ],
)
def test_a_damaged_book_is_an_error_and_never_empty(tmp_path, damage):
    path = stored(tmp_path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(StoreError, match=r"the book book_2024-03-01.json cannot be restored"):
        read_snapshot(path)


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="cannot be restored"):
        read_snapshot(tmp_path / "book_2024-03-01.json")


def test_the_newest_older_book_is_where_a_day_begins(tmp_path):
    assert before(tmp_path, "2024-03-04") is None
    for key in ("2024-03-01", "2024-02-29", "2024-03-04"):
        stored(tmp_path, key)
    (tmp_path / "book_old.json").write_text("{}")
    assert before(tmp_path, "2024-03-04").name == "book_2024-03-01.json"
    assert before(tmp_path, "2024-03-05").name == "book_2024-03-04.json"
    assert before(tmp_path, "2024-02-29") is None


def test_so_many_books_are_kept(tmp_path):
    days = pd.bdate_range("2024-01-01", periods=8)
    for day in days:
        held = Snapshot(f"{day:%Y-%m-%d}", Book.opened(1))
        write_snapshot(tmp_path, held, keep=3)
    assert [p.stem for p in snapshots(tmp_path)] == [f"book_{d:%Y-%m-%d}" for d in days[-3:]]
    again = write_snapshot(tmp_path, Snapshot("2024-01-01", Book.opened(1)), keep=3)
    assert again.exists()


# a history that was adjusted anew


def bought(**shares):
    held = {asset: Position(n, DAY, 50.0, 80.0) for asset, n in shares.items()}
    return Book(DAY, Decimal("1.00"), held)


def test_a_dividend_scales_what_stops_hang_from_and_no_shares():
    found = restated(bought(A=10, B=10), {"A": 70.0, "B": 70.0}, {"A": 68.6, "B": 70.0})
    assert found.positions["A"] == Position(10, DAY, 50 * (68.6 / 70), 80 * (68.6 / 70))
    assert found.positions["B"] == bought(B=10).positions["B"]


@pytest.mark.parametrize(("factor", "shares"), [(4, 40), (0.5, 5), (1.5, 15)])
def test_a_named_split_changes_shares_and_prices(factor, shares):
    found = restated(bought(A=10), {"A": 70.0}, {"A": 70.0 / factor}, {"A": factor})
    assert found.positions["A"].shares == shares
    assert found.positions["A"].entry_price == pytest.approx(50 / factor)
    assert found.positions["A"].highest == pytest.approx(80 / factor)


@pytest.mark.parametrize(
    ("now", "splits", "what"),
    [
        ({"A": 35.0}, {}, "closed at 70 and today's history says 35"),
        ({"A": 70.0}, {"A": 2}, "a split into 2 is named"),
        ({"A": 210.0}, {"A": 1 / 3}, "no whole number"),
        ({"A": float("nan")}, {}, "has none today"),
        ({}, {}, "has none today"),
    ],
)
def test_a_history_that_does_not_fit_the_book_is_refused(now, splits, what):
    with pytest.raises(DataError, match=what) as caught:
        restated(bought(A=10), {"A": 70.0}, now, splits)
    assert caught.value.code == "SV-X616"


def test_cash_that_comes_in_is_booked_to_the_cent():
    assert bought().paid(Decimal("0.125")).cash == Decimal("1.12")
    assert replace(bought(), cash=Decimal("2.00")).paid(Decimal(0)).cash == 2
