"""Rows of ``cvd`` that a crash has kept from being written: derived from the files of ``prices``, as a run would have.

``prices`` and what follows from them are two files; a run may die between them.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harvest.book.flow import sum_from_float
from harvest.errors import StorageError
from harvest.pipeline.cumulative import CumulativeDelta
from harvest.storage.kinds import PRICES, SIDES, SOURCES, TRADE_TYPES, UNKNOWN
from harvest.storage.parquet import NO_LABEL
from harvest.storage.remainder import is_committed, uncommitted
from harvest.storage.tables import Sealed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from harvest.storage.catalog import Catalog
    from harvest.storage.remainder import Interval

_LABELS = {"side": SIDES, "source": SOURCES, "trade_type": TRADE_TYPES}
_COLUMNS = ["seq", "event_time", "recv_ns", "trade_id", "qty", *_LABELS]


class UnreadablePricesError(StorageError):
    """A file of ``prices`` that cannot be read, so that no ``cvd`` can follow from it."""

    def __init__(self, path: Path, why: str) -> None:
        self.path = path
        super().__init__(f"{path} cannot be read, and its cvd is not derived: {why}")


def missing_cvd(
    catalog: Catalog, symbol: str, day: int, *, before_seq: int | None = None
) -> Iterator[Sealed]:
    """Derive the ``cvd`` rows of a date whose ``prices`` rows are in a file, and which no file of ``cvd`` covers.

    They come in the order of their ``seq``, to be published as they are; each sum goes on from that of the row before it,
    stored or derived. ``before_seq`` leaves out files from that record on: a run that goes on derives its own.

    Raises:
        UnreadablePricesError: a file of ``prices`` cannot be read; what would follow from it and after it is not derived.
    """
    committed = catalog.committed("cvd", symbol, day)
    parts = []
    for file in catalog.files("prices", symbol, day):
        if before_seq is not None and file.first_seq >= before_seq:
            break
        if not any(first <= file.first_seq and file.last_seq <= last for first, last in committed):
            part = _read_prices(file.path)
            lacking = ~is_committed(part["seq"], committed)
            parts.append({name: column[lacking] for name, column in part.items()})
    prices = {name: np.concatenate([part[name] for part in parts]) for name in _COLUMNS} if parts else {}
    if not len(prices.get("seq", ())):
        return
    cumulative: CumulativeDelta | None = None
    begun_after: Interval | None = None
    for sealed in uncommitted(_sealed(prices, symbol, day), committed):
        before = max((one for one in committed if one[1] < sealed.first_seq), default=None)
        if cumulative is None or before != begun_after:
            cumulative, begun_after = _going_on_before(catalog, sealed.first_seq), before
        yield from cumulative.derive(sealed)


def _going_on_before(catalog: Catalog, seq: int) -> CumulativeDelta:
    def resume(symbol: str, day: int) -> int:
        last = catalog.last_cvd(symbol, day, before_seq=seq)
        return 0 if last is None else sum_from_float(last)

    return CumulativeDelta(resume)


def _read_prices(path: Path) -> dict[str, NDArray[Any]]:
    """Read what of ``prices`` decides ``cvd``, by column."""
    try:
        with pq.ParquetFile(path) as opened:
            table = opened.read(_COLUMNS)
    except (OSError, pa.ArrowException) as error:
        raise UnreadablePricesError(path, str(error)) from error
    return {name: _array(table[name].combine_chunks(), name) for name in _COLUMNS}


def _sealed(columns: dict[str, NDArray[Any]], symbol: str, day: int) -> Sealed:
    """Pack rows of several files in the order of ``seq``; the fields that decide nothing are 0."""
    # Compacted files may lie around others. Rows of one record are in one file, in their order.
    order = np.argsort(columns["seq"], kind="stable")
    columns = {name: column[order] for name, column in columns.items()}
    seq = columns["seq"]
    rows = np.zeros(len(seq), PRICES.dtype)
    for name in ("event_time", "trade_id", "qty", "side", "trade_type"):
        rows[name] = columns[name]
    blocks = np.stack([columns[name] for name in ("seq", "recv_ns", "source")], axis=1)
    starts = np.flatnonzero(np.concatenate(([True], (blocks[1:] != blocks[:-1]).any(axis=1))))
    marks = np.column_stack((starts, blocks[starts])).astype(np.int64)
    return Sealed(
        PRICES, symbol, day, len(rows), int(seq[0]), int(seq[-1]), rows.tobytes(), array("q", marks.tobytes())
    )


def _array(column: pa.Array, name: str) -> NDArray[Any]:
    if name in _LABELS:
        column = pc.fill_null(pc.index_in(column, pa.array(_LABELS[name])), NO_LABEL)
    elif pa.types.is_timestamp(column.type):
        column = pc.fill_null(column.cast(pa.int64()), UNKNOWN)
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values
