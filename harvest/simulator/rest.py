"""The REST side: routes, parameters, weights, and the venue's own words for what is wrong with a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

import attrs
import msgspec
import trio

from harvest.simulator.market_source import RefusedError
from harvest.simulator.rules import depth_weight
from harvest.simulator.weights import Verdict, WeightMeter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harvest.simulator.market_source import MarketSource
    from harvest.simulator.state import VenueState

_HOUR_MS: Final = 3_600_000
_FUTURES_LIMITS: Final = (5, 10, 20, 50, 100, 500, 1000)
_FORCED_RETRY_S: Final = 5
#: Weights of the routes whose weight does not depend on the request: spot, then USD-M.
_WEIGHTS: Final[dict[str, tuple[int, int]]] = {
    "ping": (1, 1),
    "time": (1, 1),
    "exchangeInfo": (20, 1),
    "aggTrades": (4, 20),
    "trades": (25, 5),
    "historicalTrades": (25, 200),
    "openInterest": (0, 1),
    "premiumIndex": (0, 1),
}
_FUTURES_ONLY: Final = frozenset({"openInterest", "premiumIndex"})


@attrs.frozen
class Response:
    """An HTTP response with a JSON body."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class RestSide:
    """Answers requests. Use its `handle` for every one but WebSocket handshakes."""

    def __init__(self, state: VenueState, market: MarketSource) -> None:
        self._state = state
        self._rules = state.rules
        self._market = market
        config = state.config
        self._meter = WeightMeter(
            config.rules.weight_per_minute, ignored_429s=config.ignored_429s, ban_s=config.ban_s
        )

    async def handle(
        self, method: str, target: str, headers: Mapping[bytes, bytes], wall_ns: int
    ) -> Response:
        """Answer a request; slow and silent where a fault wants it so."""
        parts = urlsplit(target)
        if parts.path == "/simulator/status":
            return _json(200, self._status())
        standing = self._state.standing
        await standing.gate.passed()
        now = trio.current_time()
        if now < standing.slow_rest_until:
            await trio.sleep(standing.slow_rest_s)
        if now < standing.rest_down_until:
            return Response(503, b'{"code":-1000,"msg":"Service unavailable from a restricted location."}')
        name = parts.path.removeprefix(self._rules.rest_prefix)
        if not parts.path.startswith(self._rules.rest_prefix) or not self._serves(name):
            return Response(404, b'{"code":-1000,"msg":"Path not found."}')
        if method != "GET":
            return Response(405, b'{"code":-1000,"msg":"Method not allowed."}')
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        verdict = self._judge(self._weight(name, query), wall_ns / 1e9)
        used = ("X-MBX-USED-WEIGHT-1M", str(verdict.used))
        if verdict.status != 200:
            return self._refusal(verdict, used, wall_ns)
        try:
            return _json(200, self._answer(name, query, headers), (used,))
        except RefusedError as error:
            return _json(error.status, {"code": error.code, "msg": error.message}, (used,))

    def _serves(self, name: str) -> bool:
        return name == "depth" or (name in _WEIGHTS and (self._rules.futures or name not in _FUTURES_ONLY))

    def _weight(self, name: str, query: dict[str, str]) -> int:
        if name != "depth":
            return _WEIGHTS[name][self._rules.futures]
        limit = query.get("limit", "")
        default = 500 if self._rules.futures else 100
        return depth_weight(self._rules, int(limit) if limit.isdecimal() else default)

    def _judge(self, weight: int, now_s: float) -> Verdict:
        standing, now = self._state.standing, trio.current_time()
        verdict = self._meter.ask(weight, now_s)
        for status, until in ((418, standing.banned_until), (429, standing.throttled_until)):
            if now < until:
                left_s = until - now
                retry_s = _FORCED_RETRY_S if left_s == float("inf") else int(left_s) + 1
                return Verdict(status, verdict.used, retry_s)
        return verdict

    def _refusal(self, verdict: Verdict, used: tuple[str, str], wall_ns: int) -> Response:
        retry_s = verdict.retry_after_s or 1
        if verdict.status == 418:
            until_ms = wall_ns // 1_000_000 + retry_s * 1000
            text = f"Way too many requests; IP(127.0.0.1) banned until {until_ms}."
        else:
            limit = self._rules.weight_per_minute
            text = f"Too many requests; current limit of IP(127.0.0.1) is {limit} requests per minute."
        headers = (used, ("Retry-After", str(retry_s)))
        return _json(verdict.status, {"code": -1003, "msg": text}, headers)

    def _answer(self, name: str, query: dict[str, str], headers: Mapping[bytes, bytes]) -> Any:
        match name:
            case "ping":
                return {}
            case "time":
                return {"serverTime": self._market.now_ms()}
            case "exchangeInfo":
                return self._exchange_info(query)
            case "premiumIndex" if "symbol" not in query:
                names = [one["symbol"] for one in self._market.exchange_info()["symbols"]]
                return [self._market.premium_index(one) for one in names]
        symbol = self._symbol(query)
        match name:
            case "depth":
                return self._market.depth(symbol, self._depth_limit(query))
            case "aggTrades":
                return self._agg_trades(symbol, query)
            case "trades":
                return self._market.trades(symbol, from_id=None, limit=self._limit(query))
            case "historicalTrades":
                if self._rules.futures and b"x-mbx-apikey" not in headers:
                    raise RefusedError(-2014, "API-key format invalid.", 401)
                from_id = self._integer(query, "fromId")
                return self._market.trades(symbol, from_id=from_id, limit=self._limit(query))
            case "openInterest":
                return self._market.open_interest(symbol)
            case _:
                return self._market.premium_index(symbol)

    def _exchange_info(self, query: dict[str, str]) -> dict[str, Any]:
        info = self._market.exchange_info()
        standing = self._state.standing
        listed = (one for one in info["symbols"] if one["symbol"] not in standing.delisted)
        status = "HALT" if not self._rules.futures else "PENDING_TRADING"
        info = info | {
            "symbols": [one | {"status": status} if standing.halts(one["symbol"]) else one for one in listed]
        }
        if self._rules.futures or not query.keys() & {"symbol", "symbols"}:
            return info
        try:
            wanted = msgspec.json.decode(query["symbols"], type=list[str]) if "symbols" in query else None
        except (msgspec.DecodeError, RecursionError):
            raise RefusedError(-1100, "Illegal characters found in parameter 'symbols'.") from None
        names = [query["symbol"]] if wanted is None else wanted
        if not all(self._market.knows(name) and name not in standing.delisted for name in names):
            raise RefusedError(-1121, "Invalid symbol.")
        return info | {"symbols": [one for one in info["symbols"] if one["symbol"] in names]}

    def _agg_trades(self, symbol: str, query: dict[str, str]) -> list[dict[str, Any]]:
        from_id = self._integer(query, "fromId")
        start_ms, end_ms = self._integer(query, "startTime"), self._integer(query, "endTime")
        if start_ms is not None and end_ms is not None:
            if start_ms > end_ms:
                raise RefusedError(-1127, "Start time is greater than end time.")
            if self._rules.futures and end_ms - start_ms >= _HOUR_MS:
                raise RefusedError(-1127, "More than 1 hours between startTime and endTime.")
        if from_id is not None and (start_ms is not None or end_ms is not None):
            raise RefusedError(-1128, "Combination of optional parameters invalid.")
        limit = self._limit(query)
        return self._market.agg_trades(symbol, from_id=from_id, start_ms=start_ms, end_ms=end_ms, limit=limit)

    def _symbol(self, query: dict[str, str]) -> str:
        symbol = query.get("symbol", "")
        if not symbol:
            raise RefusedError(
                -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."
            )
        if not self._market.knows(symbol) or symbol in self._state.standing.delisted:
            raise RefusedError(-1121, "Invalid symbol.")
        return symbol

    def _integer(self, query: dict[str, str], name: str) -> int | None:
        text = query.get(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdecimal() and len(text) <= 19):
            raise RefusedError(
                -1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'."
            )
        return int(text)

    def _limit(self, query: dict[str, str]) -> int:
        limit = self._integer(query, "limit")
        if limit is None:
            return 500
        if limit < 1 or (limit > 1000 and self._rules.futures):
            raise RefusedError(-1130, "Data sent for parameter 'limit' is not valid.")
        return min(limit, 1000)

    def _depth_limit(self, query: dict[str, str]) -> int:
        limit = self._integer(query, "limit")
        if not self._rules.futures:
            return min(100 if limit is None else max(1, limit), 5000)
        if limit is not None and limit not in _FUTURES_LIMITS:
            raise RefusedError(-4021, f"{limit} is not valid depth limit")
        return limit or 500

    def _status(self) -> dict[str, Any]:
        state = self._state
        return {
            "venue": self._rules.venue,
            "venue_time_ms": self._market.now_ms(),
            **self._market.status(),
            "acknowledged": state.first_ack.is_set(),
            "sent": dict(state.sent.counts),
            "last_ids": state.sent.last_ids,
            "connections_seen": state.connections_seen,
            "connections": [
                {"connection": one.number, "route": one.route, "streams": one.stream_names}
                for one in state.connections.values()
            ],
            "faults": [{"fault": script, "at_ns": at_ns} for script, at_ns in state.applied_faults],
        }


def _json(status: int, body: Any, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(status, msgspec.json.encode(body), headers)
