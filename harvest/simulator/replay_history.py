"""What a recording answers over REST: its snapshots, its trades, and the book where the replay stands."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from harvest.simulator.listing import exchange_info, list_symbols
from harvest.simulator.market_source import RefusedError
from harvest.simulator.streams import split_recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harvest.simulator.recording import Recording
    from harvest.simulator.replay_feed import ReplayPosition
    from harvest.simulator.rules import VenueRules


class _Snapshot(msgspec.Struct, omit_defaults=True):
    last_update_id: int = msgspec.field(name="lastUpdateId")
    bids: list[list[str]]
    asks: list[list[str]]
    E: int | None = None
    T: int | None = None


class _Diff(msgspec.Struct):
    u: int
    b: list[list[str]]
    a: list[list[str]]
    E: int | None = None
    T: int | None = None


class ReplayHistory:
    """A recording as REST serves it, up to where the replay stands."""

    def __init__(
        self, recording: Recording, position: ReplayPosition, rules: VenueRules, symbols: tuple[str, ...]
    ) -> None:
        self._recording = recording
        self._position = position
        self._rules = rules
        self._listing = list_symbols(rules, tuple(dict.fromkeys((*recording.symbols, *symbols))))
        self._served: set[str] = set()

    def now_ms(self) -> int:
        """Give the receive time of the last line that was sent."""
        return self._position.recv_ns // 1_000_000

    def exchange_info(self) -> dict[str, Any]:
        """Give the body of exchangeInfo for the recorded symbols."""
        return exchange_info(self._rules, self._listing, self.now_ms())

    def knows(self, symbol: str) -> bool:
        """Say whether a symbol is recorded, or was listed by the configuration."""
        return symbol in self._listing

    def depth(self, symbol: str, limit: int) -> dict[str, Any]:
        """Give the recording's snapshot at first, and the book where the replay stands to who asks again.

        Raises:
            RefusedError: The recording holds no snapshot of the symbol.
        """
        snapshots = self._recording.snapshots.get(symbol, [])
        if not snapshots:
            raise RefusedError(-1000, f"The recording holds no snapshot of {symbol}.", 503)
        passed = [one for one in snapshots if one[0] < self._position.lines]
        number, body = passed[-1] if passed else snapshots[0]
        snapshot = msgspec.json.decode(body, type=_Snapshot)
        if passed and symbol in self._served:
            self._carry_forward(snapshot, symbol, number)
        self._served.add(symbol)
        snapshot.bids, snapshot.asks = snapshot.bids[:limit], snapshot.asks[:limit]
        answer: dict[str, Any] = msgspec.to_builtins(snapshot)
        return answer

    def agg_trades(
        self, symbol: str, *, from_id: int | None, start_ms: int | None, end_ms: int | None, limit: int
    ) -> list[dict[str, Any]]:
        """Give the recorded aggregate trades; none where the recording has raw ones."""
        rows = (
            row
            for row in self._messages(symbol, "aggTrade")
            if (from_id is None or row["a"] >= from_id)
            and (start_ms is None or row["T"] >= start_ms)
            and (end_ms is None or row["T"] <= end_ms)
        )
        chosen = islice(rows, limit) if from_id is not None or start_ms is not None else deque(rows, limit)
        return [{name: row[name] for name in "apqflTmM" if name in row} for row in chosen]

    def trades(self, symbol: str, *, from_id: int | None, limit: int) -> list[dict[str, Any]]:
        """Give the recorded raw trades; on futures the market trades."""
        rows = (
            row
            for row in self._messages(symbol, "trade")
            if (from_id is None or row["t"] >= from_id) and row.get("X", "MARKET") == "MARKET"
        )
        return [
            {
                "id": row["t"],
                "price": row["p"],
                "qty": row["q"],
                "quoteQty": f"{float(row['p']) * float(row['q']):.8f}",
                "time": row["T"],
                "isBuyerMaker": row["m"],
                **({} if self._rules.futures else {"isBestMatch": True}),
            }
            for row in (islice(rows, limit) if from_id is not None else deque(rows, limit))
        ]

    def open_interest(self, symbol: str) -> dict[str, Any]:
        """Refuse: a recording has none.

        Raises:
            RefusedError: Always.
        """
        raise RefusedError(-1000, f"The recording holds no open interest of {symbol}.", 503)

    def premium_index(self, symbol: str) -> dict[str, Any]:
        """Refuse: a recording has none.

        Raises:
            RefusedError: Always.
        """
        raise RefusedError(-1000, f"The recording holds no premium index of {symbol}.", 503)

    def status(self) -> dict[str, Any]:
        """Say how far the replay has come."""
        return {
            "mode": "replay",
            "replay_started": self._position.started,
            "replay_done": self._position.done,
            "lines": self._position.lines,
        }

    def _messages(self, symbol: str, kind: str) -> Iterator[dict[str, Any]]:
        wanted = {
            name.encode() for name in self._recording.counts if split_recorded(name) == (symbol.lower(), kind)
        }
        for _, stream, body in islice(self._recording.lines(), self._position.lines):
            if stream in wanted:
                yield msgspec.json.decode(body)

    def _carry_forward(self, snapshot: _Snapshot, symbol: str, number: int) -> None:
        bids, asks = ({price: qty for price, qty in side} for side in (snapshot.bids, snapshot.asks))
        wanted = {
            name.encode()
            for name in self._recording.counts
            if split_recorded(name) == (symbol.lower(), "depth")
        }
        for _, stream, body in islice(self._recording.lines(), number, self._position.lines):
            if stream not in wanted:
                continue
            diff = msgspec.json.decode(body, type=_Diff)
            if diff.u <= snapshot.last_update_id:
                continue
            for side, changes in ((bids, diff.b), (asks, diff.a)):
                for price, qty in changes:
                    if float(qty):
                        side[price] = qty
                    else:
                        side.pop(price, None)
            snapshot.last_update_id = diff.u
            if self._rules.futures:
                snapshot.E, snapshot.T = diff.E, diff.T
        snapshot.bids = sorted(map(list, bids.items()), key=lambda level: -float(level[0]))
        snapshot.asks = sorted(map(list, asks.items()), key=lambda level: float(level[0]))
