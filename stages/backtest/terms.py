"""What is assumed of the market that orders meet: when they fill, at what price, how much."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from stages.base import ConfigError

At = Literal["open", "close"]


@dataclass(frozen=True)
class Terms:
    """How orders are filled at the bar after the decision, and what cash earns.

    Parameters
    ----------
    fill : {'open', 'close'}, default='open'
        Price of the next bar at which orders fill; its close where it has no open.
    slippage : float in [0, 1), default=0
        Share of the price that it is worse than that, beside the costs.
    commission : float >= 0, default=0
        Currency per order that is filled, beside the costs.
    volume_cap : float in (0, 1] or None, default=0.05
        Largest share of the bar's volume in one order; the rest is cancelled. None has no limit,
        and so has a bar whose volume is not known.
    cash_rate : float, default=0
        Interest on cash, a year, simple, over 365 days.
    delisted : int >= 1, default=10
        Rows without a bar, up to the end of the data, from which an asset counts as delisted.
    recovered : float in [0, 1], default=1
        Share of its last close that a holding pays out when it is delisted.
    lot : int >= 1, default=1
        Shares that trade together.
    lots : mapping of str to int, optional
        The same for single assets.
    """

    fill: At = "open"
    slippage: float = 0.0
    commission: float = 0.0
    volume_cap: float | None = 0.05
    cash_rate: float = 0.0
    delisted: int = 10
    recovered: float = 1.0
    lot: int = 1
    lots: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cap = 1.0 if self.volume_cap is None else self.volume_cap
        sound = {
            "fill": self.fill in get_args(At),
            "slippage": 0 <= self.slippage < 1,
            "commission": 0 <= self.commission < float("inf"),
            "volume_cap": 0 < cap <= 1,
            "cash_rate": -1 < self.cash_rate < 1,
            "delisted": self.delisted >= 1,
            "recovered": 0 <= self.recovered <= 1,
            "lot": all(lot >= 1 and int(lot) == lot for lot in (self.lot, *self.lots.values())),
        }
        for name, well in sound.items():
            if not well:
                raise ConfigError(
                    f"backtest.{name}={getattr(self, name)} is out of range",
                    code="SV-F33",
                    where=f"key backtest.{name}",
                    cure="see conf/backtest/default.yaml",
                )

    def lot_of(self, asset: str) -> int:
        """Shares of `asset` that trade together."""
        return self.lots.get(asset, self.lot)

    def in_words(self, costs: str) -> list[str]:
        """The assumptions, one sentence each; `costs` says what trading costs."""
        said = [
            "Orders are decided at the close and filled at the next bar's "
            + ("open, or its close where it has no open." if self.fill == "open" else "close."),
            costs,
        ]
        if self.slippage:
            said.append(f"Every fill is {self.slippage * 1e4:g} bps worse than that price.")
        if self.commission:
            said.append(f"Every filled order pays {self.commission:g} beside its costs.")
        said.append(
            "The volume of a bar sets no limit to an order."
            if self.volume_cap is None
            else f"An order takes at most {self.volume_cap:.1%} of the bar's volume, where that is "
            "known; the rest is cancelled."
        )
        return [
            *said,
            "An order without a bar to fill it is cancelled; the policy may ask again.",
            f"Cash earns {self.cash_rate:.2%} a year.",
            f"A holding whose asset is delisted pays out {self.recovered:.0%} of its last close.",
            "Prices are those of the data: if they are adjusted, dividends are invested again.",
            "Nothing is borrowed and nothing sold short. Taxes are left out.",
        ]
