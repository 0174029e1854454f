from decimal import Decimal

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base import DataError
from stages.portfolio.book import Book, Fill, Position, exact, money

DAY = pd.Timestamp("2024-03-01 21:00", tz="UTC")


def fill(shares, price, cost="0", asset="A"):
    return Fill(asset, shares, Decimal(price), Decimal(cost), DAY)


def test_a_binary_fraction_is_read_as_it_is_written():
    assert exact(0.1) == Decimal("0.1")
    assert exact(0.29) * 100 == 29  # int(0.29 * 100) is 28


def test_buying_averages_the_price_and_selling_all_forgets_it():
    book = Book.opened(1000).filled(fill(10, "20", "1.50")).filled(fill(5, "26", "0.50"))
    held = book.positions["A"]
    assert (held.shares, held.entry_price, held.highest) == (15, 22.0, 20.0)
    assert book.cash == Decimal("668.00")
    sold = book.filled(fill(-15, "30", "2"))
    assert (sold.cash, dict(sold.positions)) == (Decimal("1116.00"), {})


def test_selling_a_part_keeps_when_and_at_what_it_was_bought():
    book = Book.opened(1000).filled(fill(10, "20")).filled(fill(-4, "30"))
    assert (book.positions["A"].shares, book.positions["A"].entry_price) == (6, 20.0)
    assert book.positions["A"].entered == DAY


@pytest.mark.parametrize(
    ("deal", "what"),
    [
        (fill(11, "100"), "1100.00 to pay from 1000.00"),
        (fill(10, "100", "0.01"), "1000.01 to pay"),
        (fill(-1, "100"), "1 sold where 0 are held"),
    ],
)
def test_what_is_not_there_is_neither_paid_nor_sold(deal, what):
    with pytest.raises(DataError, match=what) as caught:
        Book.opened(1000).filled(deal)
    assert caught.value.code == "SV-X610"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("ABC"),
            st.integers(-50, 50).filter(bool),
            st.decimals("0.001", "999", places=4),
            st.decimals(0, 5, places=3),
        ),
        max_size=30,
    )
)
def test_cash_and_positions_are_the_value_to_the_cent_whatever_is_traded(deals):
    book, spent, shares = Book.opened(10_000), Decimal(0), {"A": 0, "B": 0, "C": 0}
    for asset, n, price, cost in deals:
        try:
            book = book.filled(Fill(asset, n, price, cost, DAY))
        except DataError:
            continue
        spent += money(price * n) + money(cost)
        shares[asset] += n
    prices = {"A": 3.333, "B": 0.07, "C": 1234.5678}
    worth = sum(money(exact(prices[a]) * n) for a, n in shares.items())
    assert {a: n for a, n in shares.items() if n} == {
        a: p.shares for a, p in book.positions.items()
    }
    assert book.cash == 10_000 - spent >= 0
    assert book.value(prices) == 10_000 - spent + worth


def test_a_position_without_a_price_is_not_worth_nothing():
    book = Book.opened(1000).filled(fill(1, "20"))
    for prices in ({}, {"A": float("nan")}, {"A": 0.0}):
        with pytest.raises(DataError, match="A is held and has no price"):
            book.value(prices)


@pytest.mark.parametrize("shares", [0, -1, 1.5, True])
def test_a_position_is_whole_shares_and_long(shares):
    with pytest.raises(ValueError, match="whole number of shares"):
        Position(shares, DAY, 1.0, 1.0)


@pytest.mark.parametrize(
    "wrong",
    [{"shares": 0}, {"price": Decimal(0)}, {"price": Decimal("NaN")}, {"cost": Decimal(-1)}],
)
def test_a_fill_that_cannot_be_is_refused(wrong):
    right = {"asset": "A", "shares": 1, "price": Decimal(1), "cost": Decimal(0), "time": DAY}
    with pytest.raises(ValueError, match="A: need"):
        Fill(**{**right, **wrong})


def test_cash_finer_than_a_cent_is_refused():
    with pytest.raises(ValueError, match="to the cent"):
        Book(None, Decimal("1.001"))
