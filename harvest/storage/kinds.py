"""The kinds of rows: their columns, as readers find them in Parquet, and as they wait in memory.

A column's Parquet encoding is part of its definition, because what pays depends on what it holds. The contract
for readers, with units and nulls, is ``docs/data.md``; a test holds it and this file together.
"""

from __future__ import annotations

import struct
from typing import Literal

import attrs
import numpy as np
import pyarrow as pa

#: In packed rows, an integer that is unknown. Becomes null.
UNKNOWN = -(2**63)

SOURCES = ("ws", "rest", "book")
WS, REST, BOOK = range(3)
SIDES = ("buy", "sell")
FEEDS = ("trade", "orderbook", "bbo", "mark", "liquidations", "open_interest", "partial_depth")
#: Why a stretch of a stream is missing (kind ``breaks``).
REASONS = ("gap", "stall", "own_stall", "disconnect", "downtime", "overload", "not_served", "refused")

Encoding = Literal["delta", "dictionary", "split", "plain"]
"""``delta``: DELTA_BINARY_PACKED; ``split``: BYTE_STREAM_SPLIT; ``dictionary``: few distinct values."""

TIME = pa.timestamp("us", tz="UTC")
LEVELS = pa.list_(pa.field("element", pa.float64(), nullable=False))


@attrs.frozen
class Column:
    """One column as a reader finds it. ``packed`` is its struct code in memory, None if it is not in the row."""

    name: str
    type: pa.DataType
    encoding: Encoding
    packed: str | None = None
    #: For a code of one byte: what the codes mean; 255 is null.
    labels: tuple[str, ...] | None = None
    nullable: bool = False


@attrs.frozen
class Kind:
    """One kind of rows: its columns in the order of the file, and the packed layout of a row in memory."""

    name: str
    columns: tuple[Column, ...]
    #: Parts of a packed row that are no columns themselves: the numbers of levels of a depth row.
    extra: tuple[tuple[str, str], ...] = ()
    packer: struct.Struct = attrs.field(init=False)
    dtype: np.dtype[np.void] = attrs.field(init=False)
    schema: pa.Schema = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Derive the struct packer, the numpy view of the same bytes, and the Arrow schema."""
        fields = [(c.name, c.packed) for c in self.columns if c.packed] + list(self.extra)
        object.__setattr__(self, "packer", struct.Struct("<" + "".join(code for _, code in fields)))
        numpy_codes = {"q": "<i8", "d": "<f8", "B": "u1", "I": "<u4"}
        object.__setattr__(self, "dtype", np.dtype([(name, numpy_codes[code]) for name, code in fields]))
        arrow = [pa.field(c.name, c.type, nullable=c.nullable) for c in self.columns]
        object.__setattr__(self, "schema", pa.schema(arrow))


def _time(name: str, *, nullable: bool = False) -> Column:
    return Column(name, TIME, "delta", "q", nullable=nullable)


def _id(name: str, *, nullable: bool = False) -> Column:
    return Column(name, pa.int64(), "delta", "q", nullable=nullable)


def _label(name: str, labels: tuple[str, ...], *, nullable: bool = False) -> Column:
    return Column(name, pa.string(), "dictionary", "B", labels, nullable=nullable)


#: Equal for a whole block: kept once a block in memory, spread at the flush.
SEQ = Column("seq", pa.int64(), "delta")
RECV = Column("recv_ns", pa.int64(), "delta")
SOURCE = Column("source", pa.string(), "dictionary", labels=SOURCES)
SUSPECT = Column("suspect", pa.bool_(), "plain", "B")

#: What ``X`` of a raw USD-M trade may say; others are stored as ``OTHER``.
TRADE_TYPES = ("MARKET", "INSURANCE_FUND", "ADL", "NA", "OTHER")

PRICES = Kind(
    "prices",
    (
        SEQ,
        _time("event_time", nullable=True),
        _time("trade_time"),
        RECV,
        _id("trade_id"),
        Column("price", pa.float64(), "dictionary", "d"),
        Column("qty", pa.float64(), "dictionary", "d"),
        _label("side", SIDES),
        SOURCE,
        _label("trade_type", TRADE_TYPES, nullable=True),
    ),
)

CVD = Kind(
    "cvd",
    (
        SEQ,
        _time("event_time", nullable=True),
        RECV,
        _id("trade_id"),
        Column("delta", pa.float64(), "dictionary", "d"),
        Column("cvd", pa.float64(), "split", "d"),
    ),
)

DEPTH = Kind(
    "depth",
    (
        SEQ,
        _time("event_time", nullable=True),
        _time("trade_time", nullable=True),
        RECV,
        _id("first_update_id", nullable=True),
        _id("last_update_id"),
        _id("prev_update_id", nullable=True),
        Column("is_snapshot", pa.bool_(), "plain", "B"),
        Column("bid_px", LEVELS, "dictionary"),
        Column("bid_qty", LEVELS, "dictionary"),
        Column("ask_px", LEVELS, "dictionary"),
        Column("ask_qty", LEVELS, "dictionary"),
        SOURCE,
    ),
    extra=(("n_bids", "I"), ("n_asks", "I")),
)

OFI = Kind(
    "ofi",
    (
        SEQ,
        _time("event_time"),
        RECV,
        _id("update_id"),
        Column("ofi_1", pa.float64(), "dictionary", "d"),
        Column("ofi_5", pa.float64(), "dictionary", "d"),
        Column("ofi_10", pa.float64(), "dictionary", "d"),
        Column("ofi_z", pa.float64(), "split", "d", nullable=True),
        SUSPECT,
    ),
)

BBO = Kind(
    "bbo",
    (
        SEQ,
        _time("event_time", nullable=True),
        _time("trade_time", nullable=True),
        RECV,
        _id("update_id"),
        Column("bid_px", pa.float64(), "dictionary", "d"),
        Column("bid_qty", pa.float64(), "dictionary", "d"),
        Column("ask_px", pa.float64(), "dictionary", "d"),
        Column("ask_qty", pa.float64(), "dictionary", "d"),
        SOURCE,
    ),
)

MARK = Kind(
    "mark",
    (
        SEQ,
        _time("event_time"),
        RECV,
        Column("mark_price", pa.float64(), "split", "d"),
        Column("index_price", pa.float64(), "split", "d"),
        Column("settle_price", pa.float64(), "split", "d"),
        Column("average_price", pa.float64(), "split", "d", nullable=True),
        Column("funding_rate", pa.float64(), "dictionary", "d", nullable=True),
        _time("next_funding_time", nullable=True),
        SOURCE,
    ),
)

#: What a liquidation's order may say of itself; what else comes is stored as ``OTHER``.
ORDER_TYPES = ("LIMIT", "MARKET", "OTHER")
TIMES_IN_FORCE = ("IOC", "GTC", "FOK", "GTX", "OTHER")
ORDER_STATUSES = ("NEW", "PARTIALLY_FILLED", "FILLED", "CANCELED", "EXPIRED", "OTHER")

LIQUIDATIONS = Kind(
    "liquidations",
    (
        SEQ,
        _time("event_time"),
        _time("trade_time"),
        RECV,
        _label("side", SIDES),
        _label("order_type", ORDER_TYPES),
        _label("time_in_force", TIMES_IN_FORCE),
        _label("status", ORDER_STATUSES),
        Column("price", pa.float64(), "dictionary", "d"),
        Column("average_price", pa.float64(), "dictionary", "d"),
        Column("qty", pa.float64(), "dictionary", "d"),
        Column("last_qty", pa.float64(), "dictionary", "d"),
        Column("filled_qty", pa.float64(), "dictionary", "d"),
        SOURCE,
    ),
)

OPEN_INTEREST = Kind(
    "open_interest",
    (SEQ, _time("event_time"), RECV, Column("open_interest", pa.float64(), "dictionary", "d"), SOURCE),
)

PARTIAL_DEPTH = Kind(
    "partial_depth",
    (
        SEQ,
        _time("event_time", nullable=True),
        _time("trade_time", nullable=True),
        RECV,
        _id("update_id"),
        Column("bid_px", LEVELS, "dictionary"),
        Column("bid_qty", LEVELS, "dictionary"),
        Column("ask_px", LEVELS, "dictionary"),
        Column("ask_qty", LEVELS, "dictionary"),
        SOURCE,
    ),
    extra=(("n_bids", "I"), ("n_asks", "I")),
)

BREAKS = Kind(
    "breaks",
    (
        SEQ,
        RECV,
        _label("feed", FEEDS),
        _label("reason", REASONS),
        _id("from_id", nullable=True),
        _id("to_id", nullable=True),
        _id("from_ns", nullable=True),
        _id("to_ns"),
    ),
)


AUDITS = Kind(
    "audits",
    (
        SEQ,
        _time("event_time", nullable=True),
        RECV,
        _id("update_id"),
        _id("snapshot_id"),
        _id("bid_compared"),
        _id("ask_compared"),
        _id("bid_differing"),
        _id("ask_differing"),
        Column("max_drift", pa.float64(), "plain", "d"),
        Column("best_differs", pa.bool_(), "plain", "B"),
        Column("drifted", pa.bool_(), "plain", "B"),
        _id("bid_unknown"),
        _id("ask_unknown"),
        _id("bid_beyond"),
        _id("ask_beyond"),
        Column("partial", pa.bool_(), "plain", "B"),
    ),
)


def orderbook(levels: int) -> Kind:
    """Make the kind ``orderbook`` with ``levels`` price levels a side (the best is level 0)."""
    tops = [
        # Plain is smaller than a dictionary here: a rotation has too few rows for one to pay.
        Column(f"{side}_{what}_{level}", pa.float64(), "plain", "d", nullable=what == "px")
        for side in ("bid", "ask")
        for what in ("px", "qty")
        for level in range(levels)
    ]
    return Kind("orderbook", (SEQ, _time("event_time"), RECV, _id("update_id"), *tops, SUSPECT))


def kinds(levels: int) -> dict[str, Kind]:
    """All kinds by name, with ``levels`` price levels in ``orderbook``."""
    every = (
        *(PRICES, DEPTH, orderbook(levels), OFI, CVD),
        *(BBO, MARK, LIQUIDATIONS, OPEN_INTEREST, PARTIAL_DEPTH),
        *(BREAKS, AUDITS),
    )
    return {kind.name: kind for kind in every}
