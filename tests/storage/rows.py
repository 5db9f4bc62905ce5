"""Hand-made rows of every kind, and what a reader must find of them."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from harvest.storage.kinds import (
    AUDITS,
    BBO,
    BREAKS,
    CVD,
    DEPTH,
    LIQUIDATIONS,
    MARK,
    OFI,
    OPEN_INTEREST,
    PARTIAL_DEPTH,
    PRICES,
    TIME,
    UNKNOWN,
    orderbook,
)
from harvest.storage.tables import DAY_US, Sealed, Tables

if TYPE_CHECKING:
    from harvest.storage.kinds import Kind

DAY = 20_779
MIDNIGHT_US = DAY * DAY_US
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def sealed_trades(
    count: int = 3, *, symbol: str = "BTCUSDT", day: int = DAY, first_seq: int = 1, first_id: int = 100
) -> Sealed:
    """Seal trades, one a record: ids and seqs go up by one, times by a millisecond."""
    tables = Tables(max_rows=10**9)
    table = tables.table(PRICES, symbol, day)
    for index in range(count):
        table.mark(first_seq + index, 1_700_000_000_000_000_000 + index, 0)
        at_us = day * DAY_US + index * 1000
        table.rows += PRICES.packer.pack(
            at_us + 1, at_us, first_id + index, 100.5 + index, 0.25, index % 2, 255
        )
        table.count += 1
    return table.seal()


def sealed_sums(sums: list[float], *, symbol: str = "BTCUSDT", day: int = DAY, first_seq: int = 1) -> Sealed:
    """Seal ``cvd`` rows whose running sums are these, one a record."""
    table = Tables(max_rows=10**9).table(CVD, symbol, day)
    for index, total in enumerate(sums):
        table.mark(first_seq + index, 1_700_000_000_000_000_000 + index, 0)
        table.rows += CVD.packer.pack(day * DAY_US + index, 100 + index, 1.0, total)
        table.count += 1
    return table.seal()


def one_of_each() -> list[Sealed]:
    """Seal one table of every kind: two rows in one record, then one in another."""
    tables = Tables(max_rows=10**9)
    at = MIDNIGHT_US + 5
    rows: dict[Kind, list[tuple[Any, ...]]] = {
        PRICES: [
            (at, at, 7, 1.5, 2.0, 0, 255),
            (at, at, 8, 1.5, 3.0, 1, 0),
            (at + 1, at, 9, 1.25, 2.0, 1, 2),
        ],
        OFI: [
            (at, 4, 0.5, 1.5, -1.0, float("nan"), 0),
            (at, 5, 0.0, 0.0, 2.0, 1.5, 1),
            (at, 6, 1.0, 1.0, 1.0, -2.0, 0),
        ],
        CVD: [(at, 7, 2.0, 2.0), (at, 8, -3.0, -1.0), (at, 9, -2.0, -3.0)],
        BBO: [
            (UNKNOWN, UNKNOWN, 4, 100.0, 1.0, 101.0, 2.0),
            (at, at - 1, 5, 100.0, 0.5, 101.0, 2.0),
            (at + 1, at, 6, 100.5, 1.0, 101.0, 2.0),
        ],
        MARK: [
            (at, 100.25, 100.5, 100.5, 100.25, 0.0001, at + 9),
            (at, 100.25, 100.5, 100.5, float("nan"), float("nan"), UNKNOWN),
            (at + 1, 100.25, 100.5, 100.5, 100.0, -0.0001, at + 9),
        ],
        LIQUIDATIONS: [
            (at, at - 1, 0, 0, 0, 2, 100.0, 100.5, 2.0, 1.0, 2.0),
            (at, at - 1, 1, 1, 4, 5, 100.0, 100.5, 2.0, 1.0, 2.0),
            (at + 1, at, 1, 2, 1, 1, 100.0, 100.5, 2.0, 1.0, 1.0),
        ],
        OPEN_INTEREST: [(at, 1000.5), (at + 1, 1001.0), (at + 2, 999.0)],
        BREAKS: [(0, 0, 5, 6, 10, 20), (1, 1, UNKNOWN, UNKNOWN, UNKNOWN, 20), (1, 7, 5, UNKNOWN, 11, 21)],
        AUDITS: [
            (at, 9, 8, 5, 4, 0, 0, 0.0, 0, 0, 0, 0, 0, 0, 0),
            (UNKNOWN, 9, 9, 5, 4, 1, 0, 0.5, 1, 1, 0, 0, 0, 0, 0),
            (at, 12, 11, 3, 4, 0, 2, 0.25, 0, 1, 1, 2, 3, 4, 1),
        ],
    }
    top = (100.0, 99.0, 1.0, 2.0, 101.0, float("nan"), 3.0, 0.0)
    rows[orderbook(2)] = [
        (at, 4, *top, 0),
        (at, 5, *top, 1),
        (at + 1, 6, *([float("nan")] * 2 + [0.0] * 2) * 2, 0),
    ]
    for kind, packed in rows.items():
        table = tables.table(kind, "BTCUSDT", DAY)
        for index, row in enumerate(packed):
            if index != 1:
                table.mark(10 + index, 1000 + index, 0)
            table.rows += kind.packer.pack(*row)
            table.count += 1
    table = tables.table(DEPTH, "BTCUSDT", DAY)
    diffs = [
        (UNKNOWN, UNKNOWN, UNKNOWN, 3, UNKNOWN, 1, [(100.0, 1.0), (99.5, 2.0)], [(101.0, 4.0)], 1),
        (at, at - 1, 4, 5, 3, 0, [], [], 0),
        (at, UNKNOWN, 6, 7, 5, 0, [(99.5, 0.0)], [(101.0, 5.0), (103.0, 1.0)], 0),
    ]
    for index, (*row, bids, asks, source) in enumerate(diffs):
        table.mark(10 + index, 1000 + index, source)
        table.rows += DEPTH.packer.pack(*row, len(bids), len(asks))
        table.add_levels(bids, asks)
        table.count += 1
    table = tables.table(PARTIAL_DEPTH, "BTCUSDT", DAY)
    for index, (event_us, bids, asks) in enumerate(
        [
            (UNKNOWN, [(100.0, 1.0), (99.5, 2.0)], [(101.0, 4.0)]),
            (at, [], [(101.0, 1.0)]),
            (at, [(1.0, 1.0)], []),
        ]
    ):
        table.mark(10 + index, 1000 + index, 0)
        table.rows += PARTIAL_DEPTH.packer.pack(event_us, UNKNOWN, 5 + index, len(bids), len(asks))
        table.add_levels(bids, asks)
        table.count += 1
    tables.seal_all()
    return tables.take_sealed()


def expected_rows(sealed: Sealed) -> list[dict[str, Any]]:
    """Unpack sealed rows one by one: slow, and sharing nothing with the encoder but the definition of the kind."""
    kind = sealed.kind
    names = [column.name for column in kind.columns if column.packed] + [name for name, _ in kind.extra]
    starts = list(sealed.marks[0::4])
    names_of_levels = ("bid_px", "bid_qty", "ask_px", "ask_qty")
    levels = (
        {} if sealed.levels is None else dict(zip(names_of_levels, map(list, sealed.levels), strict=True))
    )
    rows = []
    for index, values in enumerate(kind.packer.iter_unpack(sealed.packed())):
        packed = dict(zip(names, values, strict=True))
        block = max(at for at, start in enumerate(starts) if start <= index)
        _, seq, recv_ns, source = sealed.marks[4 * block : 4 * block + 4]
        packed.update(seq=seq, recv_ns=recv_ns, source=source)
        for name, values_left in levels.items():
            count = packed[f"n_{name[:3]}s"]
            packed[name] = values_left[:count]
            del values_left[:count]
        row = {}
        for column in kind.columns:
            value = packed[column.name]
            if column.labels is not None:
                value = None if value == 255 else column.labels[value]
            elif column.nullable and (value == UNKNOWN or value != value):
                value = None
            elif column.type == TIME:
                value = EPOCH + datetime.timedelta(microseconds=value)
            elif column.packed == "B":
                value = bool(value)
            row[column.name] = value
        rows.append(row)
    return rows
