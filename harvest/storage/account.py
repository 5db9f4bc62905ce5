"""The account of one data file: which ids it holds, how they came, and what is known to be missing.

A function of the file's rows and metadata alone; the ledger keeps them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harvest.storage.kinds import UNKNOWN
from harvest.storage.layout import FileName, file_name
from harvest.storage.parquet import read_facts
from harvest.storage.sources import GENERATION
from harvest.storage.spans import Links, diff_links, span_starts, trade_links

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

#: What an account is made of; levels are never read for it.
_COLUMNS = frozenset(
    {
        *("seq", "recv_ns", "source", "trade_id", "first_update_id", "last_update_id", "prev_update_id"),
        *("is_snapshot", "update_id", "suspect", "feed", "reason", "from_id", "to_id", "from_ns", "to_ns"),
    }
)


class Span(msgspec.Struct, frozen=True, array_like=True):
    """Ids that follow each other without a hole, and the least and greatest receive time of their rows.

    Trades, and update ids of ``orderbook`` and ``ofi``: both inclusive. Depth: ``from_id`` is what the first diff follows,
    and not in it.
    """

    from_id: int
    to_id: int
    from_ns: int
    to_ns: int


class Gap(msgspec.Struct, frozen=True, array_like=True):
    """A row of ``breaks``, which says what its columns mean."""

    feed: str
    from_id: int | None
    to_id: int | None
    from_ns: int | None
    to_ns: int
    why: str


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """The account of one data file.

    ``ws`` and ``rest`` are the ids that came over the stream and over REST (``prices``, ``depth``); ``duplicates`` how many
    messages were dropped as such while it was filled, None where nobody counted (files do not tell); ``missing`` the rows of
    ``breaks``; ``in_sync`` and ``suspect`` the stretches of ``orderbook`` and ``ofi``.
    """

    kind: str
    venue: str
    symbol: str
    date: str
    run: str
    first_seq: int
    last_seq: int
    rows: int
    first_ns: int
    last_ns: int
    ws: tuple[Span, ...] = ()
    rest: tuple[Span, ...] = ()
    duplicates: int | None = None
    missing: tuple[Gap, ...] = ()
    in_sync: tuple[Span, ...] = ()
    suspect: tuple[Span, ...] = ()
    #: As in the name of the file: above 0 if it was compacted.
    generation: int = 0
    #: When the file was removed to make room; None while it is kept.
    expired_ns: int | None = None

    @property
    def name(self) -> FileName:
        """What the name of the file says."""
        return FileName(self.run, self.first_seq, self.last_seq, self.generation)

    @property
    def file_name(self) -> str:
        """The name of the file that it speaks of."""
        return file_name(*self.name)


class Account:
    """Makes the entry of one file from its rows, which may come in parts, in their order."""

    def __init__(self, kind: str, facts: Mapping[str, str]) -> None:
        self._kind, self._facts = kind, facts
        self._rows = 0
        self._recv_ns = (2**63 - 1, -(2**63))
        self._spans: dict[str, list[Span]] = {"ws": [], "rest": [], "in_sync": [], "suspect": []}
        self._missing: list[Gap] = []
        self._was_suspect: bool | None = None

    def add(self, rows: Mapping[str, NDArray[Any]]) -> None:
        """Take rows by column: unknown integers are ``UNKNOWN``, labels are strings."""
        recv_ns = rows["recv_ns"]
        if not len(recv_ns):
            return
        self._rows += len(recv_ns)
        low, high = self._recv_ns
        self._recv_ns = min(low, int(recv_ns.min())), max(high, int(recv_ns.max()))
        if self._kind == "prices":
            for source in ("ws", "rest"):
                here = rows["source"] == source
                ids = rows["trade_id"][here]
                order = np.argsort(ids, kind="stable")
                self._add_links(source, trade_links(ids[order]), recv_ns[here][order])
        elif self._kind == "depth":
            here = ~rows["is_snapshot"]
            links = diff_links(
                *(rows[name][here] for name in ("first_update_id", "last_update_id", "prev_update_id"))
            )
            self._add_links("ws", links, recv_ns[here], may_overlap=True)
            fetched = rows["source"] == "rest"
            for snapshot_id, at_ns in zip(
                rows["last_update_id"][fetched].tolist(), recv_ns[fetched].tolist(), strict=True
            ):
                self._spans["rest"].append(Span(snapshot_id, snapshot_id, at_ns, at_ns))
        elif self._kind in ("orderbook", "ofi"):
            self._add_stretches(rows["suspect"], rows["update_id"], recv_ns)
        elif self._kind == "breaks":
            names = ("feed", "from_id", "to_id", "from_ns", "to_ns", "reason")
            columns = [
                [None if value == UNKNOWN else value for value in rows[name].tolist()] for name in names
            ]
            self._missing += map(Gap, *columns)

    def close(self, *, duplicates: int | None = None) -> Entry:
        """Return the entry.

        Raises:
            LookupError: the file's metadata does not say what it is.
            ValueError: or says it in no way that harvest does.
        """
        facts, spans = self._facts, self._spans
        if self._kind == "prices":
            # Late ids fill what a batch before left open.
            spans = spans | {source: _merged(spans[source]) for source in ("ws", "rest")}
        return Entry(
            kind=facts["kind"],
            venue=facts["venue"],
            symbol=facts["symbol"],
            date=facts["date"],
            run=facts["run"],
            first_seq=int(facts["first_seq"]),
            last_seq=int(facts["last_seq"]),
            rows=self._rows,
            first_ns=self._recv_ns[0],
            last_ns=self._recv_ns[1],
            duplicates=duplicates,
            missing=tuple(self._missing),
            ws=tuple(spans["ws"]),
            rest=tuple(spans["rest"]),
            in_sync=tuple(spans["in_sync"]),
            suspect=tuple(spans["suspect"]),
            generation=int(facts.get(GENERATION, 0)),
        )

    def _add_links(
        self, name: str, links: Links, recv_ns: NDArray[np.int64], *, may_overlap: bool = False
    ) -> None:
        starts = span_starts(links, may_overlap=may_overlap)
        if not len(starts):
            return
        ends = np.append(starts[1:], len(recv_ns)) - 1
        inclusive = 0 if may_overlap else 1
        found = self._spans[name]
        for after, to, low_ns, high_ns in zip(
            links.after[starts].tolist(),
            links.to[ends].tolist(),
            np.minimum.reduceat(recv_ns, starts).tolist(),
            np.maximum.reduceat(recv_ns, starts).tolist(),
            strict=True,
        ):
            span = Span(after + inclusive, to, low_ns, high_ns)
            if may_overlap and found and after <= found[-1].to_id:
                span = _joined(found.pop(), span)
            found.append(span)

    def _add_stretches(
        self, suspect: NDArray[np.bool_], update_ids: NDArray[np.int64], recv_ns: NDArray[np.int64]
    ) -> None:
        starts = np.concatenate(([0], np.flatnonzero(suspect[1:] != suspect[:-1]) + 1))
        ends = np.append(starts[1:], len(suspect)) - 1
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            is_suspect = bool(suspect[start])
            found = self._spans["suspect" if is_suspect else "in_sync"]
            span = Span(*(int(v) for v in (update_ids[start], update_ids[end], recv_ns[start], recv_ns[end])))
            if is_suspect == self._was_suspect:
                span = _joined(found.pop(), span)
            found.append(span)
            self._was_suspect = is_suspect


def _joined(first: Span, second: Span) -> Span:
    return Span(
        first.from_id,
        max(first.to_id, second.to_id),
        min(first.from_ns, second.from_ns),
        max(first.to_ns, second.to_ns),
    )


def _merged(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.from_id, span.to_id)):
        if merged and span.from_id <= merged[-1].to_id + 1:
            span = _joined(merged.pop(), span)
        merged.append(span)
    return merged


def entry_of(
    facts: Mapping[str, str], rows: Mapping[str, NDArray[Any]], *, duplicates: int | None = None
) -> Entry:
    """Make the entry of a file from its metadata, keys without their prefix, and its rows by column.

    Raises:
        LookupError: the metadata or the rows lack something.
    """
    account = Account(facts["kind"], facts)
    account.add(rows)
    return account.close(duplicates=duplicates)


def entry_of_file(source: Path | pa.Buffer, *, duplicates: int | None = None) -> Entry:
    """Make the entry of a file as it is on disk, or as it was encoded; reads no more columns than that takes.

    Raises:
        OSError: it cannot be read.
        pa.ArrowException: it is no Parquet file.
        LookupError: it is not one of harvest's.
        ValueError: its metadata are not.
    """
    with pq.ParquetFile(source if isinstance(source, Path) else pa.BufferReader(source)) as opened:
        facts = read_facts(opened.metadata.metadata)
        account = Account(facts["kind"], facts)
        names = [name for name in opened.schema_arrow.names if name in _COLUMNS]
        for batch in opened.iter_batches(columns=names):
            account.add({name: _array(batch[name]) for name in names})
        return account.close(duplicates=duplicates)


def _array(column: pa.Array) -> NDArray[Any]:
    if pa.types.is_integer(column.type) and column.null_count:
        column = pc.fill_null(column, UNKNOWN)
    if pa.types.is_string(column.type) and not column.null_count:
        # Not an object a row: making them is one call that lets no other thread run.
        encoded = column.dictionary_encode()
        labels: NDArray[Any] = np.array(encoded.dictionary.to_pylist(), np.str_)
        named: NDArray[Any] = labels[encoded.indices.to_numpy()]
        return named
    array: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return array
