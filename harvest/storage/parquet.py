"""Packed rows to the bytes of one Parquet file: all work is by column, none by row.

The packed rows are seen through numpy, each column is copied out once a row group, and Arrow encodes. A flush belongs
in a thread: Arrow leaves the interpreter to others while it works.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harvest import __version__
from harvest.storage.kinds import LEVELS, RECV, SEQ, SOURCE, UNKNOWN
from harvest.storage.layout import date_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from harvest.market import IdSpace
    from harvest.storage.kinds import Column, Kind
    from harvest.storage.tables import Sealed

#: Of the layout of files and of their metadata; it changes when a reader would have to.
SCHEMA_VERSION = 1
METADATA_PREFIX = "harvest."
SIMULATED_PREFIX = "simulated-"
#: The code of a label that is not known.
NO_LABEL = 255
#: On recorded markets level 9 is 2 to 5 % smaller than level 1, and takes two to three times as long.
COMPRESSION_LEVEL = 1
#: Readers take a row group at a time, so a few let them use all cores; and no more than one is copied at once here.
ROW_GROUP_ROWS = 65_536
#: Rows with lists of levels are twenty times as large.
LISTS_ROW_GROUP_ROWS = 16_384

#: The columns whose least and greatest values are ``first_id`` and ``last_id``, by kind.
_ID_COLUMNS = {
    "prices": ("trade_id",),
    "cvd": ("trade_id",),
    "depth": ("first_update_id", "last_update_id"),
    "orderbook": ("update_id",),
    "ofi": ("update_id",),
    "audits": ("update_id",),
    "bbo": ("update_id",),
    "partial_depth": ("update_id",),
}
#: The column whose least and greatest values are ``first_time`` and ``last_time``, by kind.
_TIME_COLUMN = {
    "prices": "trade_time",
    "cvd": "event_time",
    "depth": "event_time",
    "orderbook": "event_time",
    "ofi": "event_time",
    "audits": "event_time",
    "bbo": "event_time",
    "mark": "event_time",
    "liquidations": "event_time",
    "open_interest": "event_time",
    "partial_depth": "event_time",
}
#: The columns of lists, in the order of ``Sealed.levels``.
_LISTS = ("bid_px", "bid_qty", "ask_px", "ask_qty")
_ENCODINGS = {"delta": "DELTA_BINARY_PACKED", "split": "BYTE_STREAM_SPLIT", "plain": "PLAIN"}


@attrs.frozen
class Provenance:
    """What a file says of its origin besides its rows. ``extra`` goes into the metadata as it is, prefixed."""

    venue: str
    run: str
    trade_ids: IdSpace | None = None
    #: How many diffs could wait for a snapshot: what a replay of ``depth`` has to know.
    max_pending_diffs: int | None = None
    version: str = __version__
    extra: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(eq=False)
class EncodedFile:
    """A whole Parquet file in memory, and the metadata that it carries (keys without their prefix)."""

    data: pa.Buffer
    rows: int
    metadata: dict[str, str]

    @property
    def size_bytes(self) -> int:
        """Bytes of the file."""
        return int(self.data.size)


def warm_up() -> None:
    """Let Arrow load what it loads with its first array (pandas, where it is installed), before a loop is at load.

    And let it take memory from the system's allocator: its own gives each flush new pages, whose clearing takes a tenth of all
    the time, and holds a quarter more memory. ``ARROW_DEFAULT_MEMORY_POOL`` chooses another one.
    """
    if not os.environ.get("ARROW_DEFAULT_MEMORY_POOL"):
        pa.set_memory_pool(pa.system_memory_pool())
    pa.array(np.zeros(1), mask=np.zeros(1, np.bool_))


def encode(
    sealed: Sealed, provenance: Provenance, *, compression_level: int = COMPRESSION_LEVEL
) -> EncodedFile:
    """Encode sealed rows as one Parquet file, in their order; its schema is exactly ``sealed.kind.schema``."""
    kind = sealed.kind
    columns = _Columns(sealed)
    metadata = columns.facts(provenance)
    sink = pa.BufferOutputStream()
    with open_writer(sink, kind, compression_level=compression_level) as writer:
        step = row_group_rows(kind)
        for begin in range(0, sealed.count, step):
            end = min(begin + step, sealed.count)
            arrays = [columns.array(column, begin, end) for column in kind.columns]
            writer.write_table(pa.Table.from_arrays(arrays, schema=kind.schema))
        writer.add_key_value_metadata(prefixed(metadata))
    return EncodedFile(sink.getvalue(), sealed.count, metadata)


def open_writer(sink: object, kind: Kind, *, compression_level: int = COMPRESSION_LEVEL) -> pq.ParquetWriter:
    """Begin a Parquet file of ``kind`` as all files of harvest are; the caller closes the writer."""
    return pq.ParquetWriter(
        sink,
        kind.schema,
        compression="zstd",
        compression_level=compression_level,
        # Arrow's own copy of the schema would be a fifth of a file of a hundred rows; readers see the same without.
        store_schema=False,
        use_dictionary=[_leaf(c) for c in kind.columns if c.encoding == "dictionary"],
        column_encoding={
            _leaf(c): _ENCODINGS[c.encoding] for c in kind.columns if c.encoding != "dictionary"
        },
        write_page_index=True,
        # A flipped bit in a page must not pass for a price; it costs less than a hundredth of the size.
        write_page_checksum=True,
        sorting_columns=[pq.SortingColumn(kind.schema.get_field_index(SEQ.name))],
    )


def row_group_rows(kind: Kind) -> int:
    """Return how many rows a row group of ``kind`` holds at most."""
    return LISTS_ROW_GROUP_ROWS if kind.extra else ROW_GROUP_ROWS


def prefixed(facts: Mapping[str, str]) -> dict[str, str]:
    """Make the key-value metadata of a file; ``read_facts`` undoes it."""
    return {f"{METADATA_PREFIX}{key}": value for key, value in facts.items()}


def read_facts(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    """Return what ``encode`` put into a file's key-value metadata, without the prefix; foreign keys are left out."""
    prefix = METADATA_PREFIX.encode()
    return {
        key.removeprefix(prefix).decode(errors="replace"): value.decode(errors="replace")
        for key, value in (metadata or {}).items()
        if key.startswith(prefix)
    }


def _leaf(column: Column) -> str:
    """Name the column as Parquet does: a list's values are a leaf below it."""
    return f"{column.name}.list.element" if column.type == LEVELS else column.name


class _Columns:
    """Sealed rows, seen by column."""

    def __init__(self, sealed: Sealed) -> None:
        self._sealed = sealed
        self._rows: NDArray[np.void] = np.frombuffer(sealed.packed(), sealed.kind.dtype, count=sealed.count)
        marks = np.frombuffer(sealed.marks, np.int64).reshape(-1, 4)
        lengths = np.diff(marks[:, 0], append=sealed.count)
        self._seq, self._recv_ns, sources = (np.repeat(marks[:, part], lengths) for part in (1, 2, 3))
        self._source = sources.astype(np.uint8)
        self._lists: dict[str, tuple[NDArray[np.float64], NDArray[np.int64]]] = {}
        if sealed.levels is not None:
            offsets = {side: self._offsets(f"n_{side}s") for side in ("bid", "ask")}
            for name, values in zip(_LISTS, sealed.levels, strict=True):
                self._lists[name] = np.frombuffer(values, np.float64), offsets[name[:3]]

    def array(self, column: Column, begin: int, end: int) -> pa.Array:
        """Make the Arrow array of one column, from row ``begin`` to before row ``end``."""
        if column.name == SEQ.name:
            return pa.array(self._seq[begin:end])
        if column.name == RECV.name:
            return pa.array(self._recv_ns[begin:end])
        if column.type == LEVELS:
            return self._levels(column.name, begin, end)
        if column.labels is not None:
            is_source = column.name == SOURCE.name
            return _labels((self._source if is_source else self._rows[column.name])[begin:end], column.labels)
        # The packed rows are not aligned: one copy makes the column contiguous.
        values = np.ascontiguousarray(self._rows[column.name][begin:end])
        if pa.types.is_boolean(column.type):
            return pa.array(values != 0)
        if not column.nullable:
            return pa.array(values).view(column.type)
        unknown = np.isnan(values) if values.dtype.kind == "f" else values == UNKNOWN
        return pa.array(values, mask=unknown).view(column.type)

    def _offsets(self, number: str) -> NDArray[np.int64]:
        """Return where the levels of each row begin, and where those of the last end."""
        offsets = np.zeros(self._sealed.count + 1, np.int64)
        np.cumsum(self._rows[number], out=offsets[1:])
        return offsets

    def _levels(self, name: str, begin: int, end: int) -> pa.Array:
        """Make one list a row of the prices or quantities of one side."""
        values, offsets = self._lists[name]
        offsets = offsets[begin : end + 1]
        starts = (offsets - offsets[0]).astype(np.int32)
        # Not copied: Arrow reads the buffer that the rows were packed into.
        return pa.ListArray.from_arrays(
            pa.array(starts), pa.array(values[offsets[0] : offsets[-1]]), type=LEVELS
        )

    def facts(self, provenance: Provenance) -> dict[str, str]:
        """Gather the file's metadata. What is not known, or means nothing for the kind, is left out."""
        sealed, kind = self._sealed, self._sealed.kind.name
        facts = {
            "version": provenance.version,
            "schema": str(SCHEMA_VERSION),
            "venue": provenance.venue,
            "simulated": "true" if provenance.venue.startswith(SIMULATED_PREFIX) else "false",
            "symbol": sealed.symbol,
            "kind": kind,
            "date": date_text(sealed.day),
            "run": provenance.run,
            "rows": str(sealed.count),
            "first_seq": str(sealed.first_seq),
            "last_seq": str(sealed.last_seq),
            "first_recv_ns": str(self._recv_ns.min()),
            "last_recv_ns": str(self._recv_ns.max()),
        }
        ids = self._known(*_ID_COLUMNS.get(kind, ()))
        if len(ids):
            facts["first_id"], facts["last_id"] = str(ids.min()), str(ids.max())
        times = self._known(_TIME_COLUMN[kind]) if kind in _TIME_COLUMN else ids[:0]
        if len(times):
            facts["first_time"], facts["last_time"] = _iso(times.min()), _iso(times.max())
        if kind in ("prices", "cvd") and provenance.trade_ids is not None:
            facts["trade_ids"] = provenance.trade_ids
        if kind == "depth" and provenance.max_pending_diffs is not None:
            facts["max_pending_diffs"] = str(provenance.max_pending_diffs)
        if kind == "orderbook":
            facts["levels"] = str(sum(column.name.startswith("bid_px_") for column in sealed.kind.columns))
        return facts | dict(provenance.extra)

    def _known(self, *columns: str) -> NDArray[np.int64]:
        """Return the values of integer columns that are not unknown, one column after the other."""
        found = [self._rows[column] for column in columns]
        values: NDArray[np.int64] = np.concatenate(found) if found else np.empty(0, np.int64)
        known: NDArray[np.int64] = values[values != UNKNOWN]
        return known


def _labels(codes: NDArray[np.uint8], labels: tuple[str, ...]) -> pa.Array:
    # As plain strings: a stored dictionary would come back as another type than the contract's.
    codes = np.ascontiguousarray(codes)
    indices = pa.array(codes, mask=codes == NO_LABEL)
    return pa.DictionaryArray.from_arrays(indices, pa.array(labels)).dictionary_decode()


def _iso(time_us: np.int64) -> str:
    return f"{np.datetime64(int(time_us), 'us')}Z"
