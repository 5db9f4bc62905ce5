"""Rows by column, as numpy arrays: what an Arrow batch becomes to be merged, cut, and compared bit by bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from harvest.book.levels import FlatLevels, LevelLists
from harvest.storage.kinds import LEVELS, UNKNOWN

if TYPE_CHECKING:
    from numpy.typing import NDArray

Rows: TypeAlias = dict[str, Any]
"""Columns of equal length, as arrays. Unknown integers are ``UNKNOWN``, unknown floats NaN; the two columns of a side of
``depth`` are one of ``LevelLists`` (as those of ``partial_depth`` are), named ``bids`` and ``asks``, and ``unsound`` tells
where some levels were left out; labels are strings."""

BIDS = "bid_px"
#: No venue has as much of anything; what follows from more cannot be computed.
MOST_QTY = 1e100


def rows_of(batch: pa.RecordBatch) -> Rows:
    """Turn a batch into arrays; times become microseconds."""
    rows: Rows = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if column.type == LEVELS or pa.types.is_list(column.type):
            continue
        rows[name] = _array(column)
    if BIDS in batch.schema.names and BIDS not in rows:
        rows["bids"], unsound_bids = _levels(batch[BIDS], batch["bid_qty"])
        rows["asks"], unsound_asks = _levels(batch["ask_px"], batch["ask_qty"])
        rows["unsound"] = unsound_bids | unsound_asks
    return rows


def count(rows: Rows) -> int:
    """Return the number of rows."""
    return len(rows["seq"])


def cut(rows: Rows, where: slice | NDArray[Any]) -> Rows:
    """Take a slice, a mask, or an order of rows."""
    return {name: column[where] for name, column in rows.items()}


def join(parts: list[Rows]) -> Rows:
    """Put rows of one kind after one another."""
    if len(parts) == 1:
        return parts[0]
    return {name: _joined([part[name] for part in parts]) for name in parts[0]}


def differ(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell where two columns differ: floats by their bits, so that -0.0 is not 0.0, but every NaN is unknown."""
    if one.dtype != np.float64:
        found: NDArray[np.bool_] = one != other
        return found
    different: NDArray[np.bool_] = one.view(np.int64) != other.view(np.int64)
    if different.any():
        different &= ~(np.isnan(one) & np.isnan(other))
    return different


def stretches(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return where neighbours are True, as (first, one after the last)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8))).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def widened(bounds: tuple[int, int] | None, values: NDArray[np.int64]) -> tuple[int, int] | None:
    """Widen the least and greatest value so far (None: there was none) by more values, of which there may be none."""
    if not len(values):
        return bounds
    low, high = int(values.min()), int(values.max())
    return (low, high) if bounds is None else (min(low, bounds[0]), max(high, bounds[1]))


def _array(column: pa.Array) -> NDArray[Any]:
    kind, nulls = column.type, _nulls(column)
    if pa.types.is_boolean(kind):
        return _bits(column, 1)
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind):
        # An object a label, not one a row.
        encoded = column if pa.types.is_dictionary(kind) else column.dictionary_encode()
        labels = np.array([*encoded.dictionary.to_pylist(), None], object)
        codes = numbers(encoded.indices)
        named: NDArray[Any] = labels[codes if nulls is None else np.where(nulls, len(labels) - 1, codes)]
        return named
    values = numbers(column)
    if nulls is not None:
        values = values.copy()
        # Null floats become the one NaN that numpy writes, and so do ours.
        values[nulls] = np.nan if values.dtype.kind == "f" else UNKNOWN
    return values


def numbers(column: pa.Array) -> NDArray[Any]:
    """Return the memory of a column of numbers or times; what is null is anything.

    ``to_numpy`` does the same, but imports all of pandas for it, where that is installed; and so does Arrow to name the type.
    """
    kind = column.type
    sort = "f" if pa.types.is_floating(kind) else "u" if pa.types.is_unsigned_integer(kind) else "i"
    dtype = np.dtype(f"{sort}{kind.bit_width // 8}")
    buffer = column.buffers()[1]
    if buffer is None or not len(column):
        return np.empty(0, dtype)
    return np.frombuffer(buffer, dtype, len(column), column.offset * dtype.itemsize)


def _nulls(column: pa.Array) -> NDArray[np.bool_] | None:
    return ~_bits(column, 0) if column.null_count else None


def _bits(column: pa.Array, place: int) -> NDArray[np.bool_]:
    """Return the bits of one of a column's buffers."""
    buffer, end = column.buffers()[place], column.offset + len(column)
    if buffer is None:
        return np.zeros(len(column), np.bool_)
    bits = np.unpackbits(np.frombuffer(buffer, np.uint8), count=end, bitorder="little")
    return bits[column.offset :].view(np.bool_)


def _joined(columns: list[Any]) -> Any:
    return LevelLists.join(columns) if isinstance(columns[0], LevelLists) else np.concatenate(columns)


def _levels(prices: pa.ListArray, quantities: pa.ListArray) -> tuple[LevelLists, NDArray[np.bool_]]:
    """Pair prices and quantities, and tell which rows hold some that are no numbers; these levels are left out.

    Raises:
        ValueError: a row has other numbers of prices and of quantities.
    """
    px, qty = numbers(prices.flatten()), numbers(quantities.flatten())
    offsets = _offsets(prices)
    if not np.array_equal(offsets, _offsets(quantities)):
        raise ValueError("the lists of a side differ in length")
    sound = np.isfinite(px) & (qty >= 0) & (qty < MOST_QTY)
    unsound = np.zeros(len(prices), np.bool_)
    if not sound.all():
        unsound[np.searchsorted(offsets, np.flatnonzero(~sound), side="right") - 1] = True
        offsets = np.concatenate(([0], np.cumsum(sound)))[offsets]
        px, qty = px[sound], qty[sound]
    return LevelLists.of(FlatLevels(offsets, px, qty)), unsound


def _offsets(lists: pa.ListArray) -> NDArray[np.int64]:
    offsets = numbers(lists.offsets).astype(np.int64)
    return offsets - offsets[:1]
