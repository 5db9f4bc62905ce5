"""What the REST side needs to know of a market, be it random or recorded."""

from __future__ import annotations

from typing import Any, Protocol


class RefusedError(Exception):
    """A request that the venue refuses, with its own code and words."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        self.code, self.message, self.status = code, message, status
        super().__init__(message)


class MarketSource(Protocol):
    """A market that answers for its past and its present. Bodies are in the venue's own words."""

    def now_ms(self) -> int:
        """Give the venue's time."""
        ...

    def exchange_info(self) -> dict[str, Any]:
        """Give the body of exchangeInfo."""
        ...

    def knows(self, symbol: str) -> bool:
        """Say whether a symbol is listed."""
        ...

    def depth(self, symbol: str, limit: int) -> dict[str, Any]:
        """Give a snapshot of the best ``limit`` levels of both sides."""
        ...

    def agg_trades(
        self, symbol: str, *, from_id: int | None, start_ms: int | None, end_ms: int | None, limit: int
    ) -> list[dict[str, Any]]:
        """Give aggregate trades, oldest first: from an id on, in [start, end], or the newest."""
        ...

    def trades(self, symbol: str, *, from_id: int | None, limit: int) -> list[dict[str, Any]]:
        """Give raw trades, oldest first: from an id on, or the newest."""
        ...

    def open_interest(self, symbol: str) -> dict[str, Any]:
        """Give the open interest of a contract."""
        ...

    def premium_index(self, symbol: str) -> dict[str, Any]:
        """Give mark price, index price and funding of a contract."""
        ...

    def status(self) -> dict[str, Any]:
        """Give what only a simulator can say, for its own status page."""
        ...
