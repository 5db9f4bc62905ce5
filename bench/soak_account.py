"""Accounts for a soak without harvest's own decoding: what the market did, what was sent, and what lies in the files.

The simulated market is a function of its seed and of time, so every trade and every update id that there ever was is known.
What is expected are all of them, from the first one that was sent to the last one that was sent before the end.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import attrs
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from harvest.simulator.listing import list_symbols
from harvest.simulator.random_market import STEP_MS, RandomMarket, step_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from harvest.simulator.config import SimulatorConfig
    from harvest.simulator.random_market import RandomInstrument

#: What was sent so shortly before the end may not have been read.
END_MARGIN_NS = 2 * 10**9
#: Reasons of breaks that harvest or the venue planned.
PLANNED = ("handover", "shutdown")


@attrs.define
class Account:
    """One symbol's ids of one kind. ``missing`` are all that were not stored, ``unexplained`` those that nothing records."""

    symbol: str
    kind: str
    expected: int
    stored: int
    from_rest: int
    duplicates: int
    missing: int
    holes: int
    unexplained: int
    planned_holes: int
    #: Rows whose id, price, quantity, side or time the market never had.
    wrong: int

    @property
    def recorded_missing(self) -> int:
        """Return how many of the missing ids are recorded as missing."""
        return self.missing - self.unexplained


@attrs.define
class Sent:
    """What the simulator handed to the operating system: first and last id of each stream, and how many messages."""

    first: dict[str, int] = attrs.Factory(dict)
    last: dict[str, int] = attrs.Factory(dict)
    messages: Counter[str] = attrs.Factory(Counter)


def read_sent(log: Path, until_ns: int) -> Sent:
    """Read the log of what was sent; ids count up to ``until_ns``."""
    sent = Sent()
    with log.open("rb") as lines:
        for line in lines:
            one = json.loads(line)
            stream, stream_id = one["stream"], one["id"]
            sent.messages[stream] += 1
            if stream_id is not None and one["t"] <= until_ns:
                sent.first[stream] = min(stream_id, sent.first.get(stream, stream_id))
                sent.last[stream] = max(stream_id, sent.last.get(stream, stream_id))
    return sent


def account(root: Path, config: SimulatorConfig, sent: Sent, report: dict[str, Any]) -> list[Account]:
    """Hold the files of ``root``, and the gaps that ``report`` (of verify) knows, against the market that there was."""
    rules = config.rules
    listing = list_symbols(rules, config.symbols)
    market = RandomMarket(listing, config.seed, rate=config.rate, futures=rules.futures)
    found = []
    for symbol, instrument in market.instruments.items():
        trades, depth = f"{symbol.lower()}@aggTrade", f"{symbol.lower()}@depth@100ms"
        if trades in sent.first:
            missing = list(_recorded(report, symbol, "prices"))
            found.append(
                _account_trades(root, instrument, (sent.first[trades], sent.last[trades]), missing, config)
            )
        if depth in sent.first:
            missing = list(_recorded(report, symbol, "depth"))
            found.append(
                _account_depth(root, instrument, (sent.first[depth], sent.last[depth]), missing, config)
            )
    return found


def _recorded(report: dict[str, Any], symbol: str, kind: str) -> Iterator[tuple[int, int, str]]:
    for series in report["series"]:
        if series["symbol"] == symbol and series["kind"] == kind:
            for gap in series["missing"]:
                if gap["from_id"] is not None and gap["to_id"] is not None:
                    yield gap["from_id"], gap["to_id"], gap["why"]


def _rows(root: Path, kind: str, symbol: str, columns: list[str]) -> list[dict[str, Any]]:
    partitioning = ds.partitioning(
        pa.schema([("venue", pa.string()), ("symbol", pa.string()), ("date", pa.string())]), flavor="hive"
    )
    dataset = ds.dataset(root / kind, format="parquet", partitioning=partitioning)
    table = dataset.to_table(columns=columns, filter=ds.field("symbol") == symbol)
    for number, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(number, field.name, table.column(number).cast(pa.int64()))
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _account_trades(
    root: Path,
    instrument: RandomInstrument,
    sent: tuple[int, int],
    recorded: list[tuple[int, int, str]],
    config: SimulatorConfig,
) -> Account:
    listed = instrument.listed
    columns = ["trade_id", "price", "qty", "side", "trade_time", "source"]
    rows = _rows(root, "prices", listed.symbol, columns)
    counts = Counter(row["trade_id"] for row in rows)
    first, last = min([sent[0], *counts]), max([sent[1], *counts])
    # Times are only known by the ids' own orders, so they are read from there, to a day beyond.
    truth = {}
    for order in instrument.trades.orders_from(first, _end_ms(config)):
        if order.order_id > last:
            break
        truth[order.order_id] = (
            float(listed.price(order.tick)),
            float(listed.qty(order.qty)),
            "sell" if order.buyer_was_maker else "buy",
            order.time_ms * 1000,
        )
    wrong = sum(
        truth.get(row["trade_id"]) != (row["price"], row["qty"], row["side"], row["trade_time"])
        for row in rows
    )
    explained = [(low, high) for low, high, _ in recorded]
    planned = [(low, high) for low, high, why in recorded if why in PLANNED]
    missing = [one for one in truth if one not in counts]
    return _account(listed.symbol, "prices", sorted(truth), counts, rows, missing, explained, planned, wrong)


def _account_depth(
    root: Path,
    instrument: RandomInstrument,
    sent: tuple[int, int],
    recorded: list[tuple[int, int, str]],
    config: SimulatorConfig,
) -> Account:
    symbol, book = instrument.listed.symbol, instrument.book
    rows = [
        row
        for row in _rows(root, "depth", symbol, ["last_update_id", "is_snapshot", "source"])
        if row["source"] == "ws" and not row["is_snapshot"]
    ]
    counts = Counter(row["last_update_id"] for row in rows)
    first, last = min([sent[0], *counts]), max([sent[1], *counts])
    steps = 100 // STEP_MS
    assert config.start_ns is not None
    step = step_at(config.start_ns) // steps * steps
    expected: dict[int, None] = {}
    while (update_id := book.last_id(step)) <= last:
        if update_id >= first:
            expected[update_id] = None
        step += steps
    # On USD-M the interval is (last stored u, the pu that did not match], on spot both its ends are exclusive.
    past = 1 if config.rules.futures else 0
    explained = [(low + 1, high - 1 + past) for low, high, _ in recorded]
    planned = [(low + 1, high - 1 + past) for low, high, why in recorded if why in PLANNED]
    missing = [one for one in expected if one not in counts]
    wrong = sum(one not in expected for one in counts)
    return _account(symbol, "depth", list(expected), counts, rows, missing, explained, planned, wrong)


def _account(
    symbol: str,
    kind: str,
    expected: list[int],
    counts: Counter[int],
    rows: list[dict[str, Any]],
    missing: list[int],
    explained: list[tuple[int, int]],
    planned: list[tuple[int, int]],
    wrong: int,
) -> Account:
    places = {one: number for number, one in enumerate(expected)}
    starts = [missing[0], *(b for a, b in pairwise(missing) if places[b] != places[a] + 1)] if missing else []
    return Account(
        symbol=symbol,
        kind=kind,
        expected=len(expected),
        stored=len(counts),
        from_rest=sum(row["source"] == "rest" for row in rows),
        duplicates=len(rows) - len(counts),
        missing=len(missing),
        holes=len(starts),
        unexplained=sum(not _covered(one, explained) for one in missing),
        planned_holes=sum(_covered(one, planned) for one in starts),
        wrong=wrong,
    )


def _covered(one: int, intervals: Iterable[tuple[int, int]]) -> bool:
    return any(low <= one <= high for low, high in intervals)


def _end_ms(config: SimulatorConfig) -> int:
    assert config.start_ns is not None
    return config.start_ns // 1_000_000 + 86_400_000


def venue_lag_s(root: Path, config: SimulatorConfig) -> float:
    """Return how late the simulator was at most: seconds between a diff's instant in the venue's time and its receipt.

    A burst lets the venue run ahead, which hides as much. A machine that is too slow for the venue shows here: what nobody
    hears while the simulator catches up is never sent.
    """
    assert config.start_ns is not None
    assert config.speed is not None
    table = ds.dataset(root / "depth", format="parquet").to_table(columns=["event_time", "recv_ns", "source"])
    table = table.filter(pc.equal(table["source"], "ws"))
    event_ns = table["event_time"].cast(pa.int64()).to_numpy() * 1000
    late_ns = table["recv_ns"].to_numpy() - config.start_ns - (event_ns - config.start_ns) / config.speed
    return float(late_ns.max() / 1e9) if len(late_ns) else 0.0


def totals(accounts: list[Account]) -> dict[str, dict[str, int]]:
    """Add the accounts up, by kind."""
    sums: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for one in accounts:
        for name, value in attrs.asdict(one).items():
            if isinstance(value, int):
                sums[one.kind][name] += value
        sums[one.kind]["recorded_missing"] += one.recorded_missing
    return {kind: dict(of_kind) for kind, of_kind in sums.items()}
