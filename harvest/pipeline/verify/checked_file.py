"""One data file, read whole: it opens, its pages are sound, and what its metadata says is what its rows say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harvest.market import CHANNELS
from harvest.pipeline.verify.rows import cut, rows_of, stretches
from harvest.storage.account import Account
from harvest.storage.kinds import UNKNOWN, kinds
from harvest.storage.layout import date_text
from harvest.storage.parquet import SCHEMA_VERSION, SIMULATED_PREFIX, read_facts
from harvest.storage.sources import GENERATION
from harvest.storage.tables import DAY_US

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from harvest.pipeline.verify.discovery import DataFile
    from harvest.pipeline.verify.findings import Findings
    from harvest.pipeline.verify.rows import Rows
    from harvest.storage.account import Entry

#: Rows that are read at once; those of ``depth`` are lists.
BATCH_ROWS: Final = 32_768
LISTS_BATCH_ROWS: Final = 2_048

_ID_COLUMNS: Final = {
    "prices": ("trade_id",),
    "cvd": ("trade_id",),
    "depth": ("first_update_id", "last_update_id"),
    "orderbook": ("update_id",),
    "ofi": ("update_id",),
    "audits": ("update_id",),
    "bbo": ("update_id",),
    "partial_depth": ("update_id",),
}
_TIME_COLUMN: Final[dict[str, str]] = {
    "prices": "trade_time",
    "cvd": "event_time",
    "depth": "event_time",
    "orderbook": "event_time",
    "ofi": "event_time",
    "audits": "event_time",
    **dict.fromkeys(CHANNELS, "event_time"),
}
#: The column whose day is the directory's, where it is known; else that of ``recv_ns``. The trade time of ``cvd`` is not
#: in its rows: it is held against ``prices``.
_DATE_COLUMN: Final[dict[str, str]] = {
    "prices": "trade_time",
    "depth": "event_time",
    "orderbook": "event_time",
    "ofi": "event_time",
    "audits": "event_time",
    **dict.fromkeys(CHANNELS, "event_time"),
    "breaks": "recv_ns",
}
#: Columns that hold no NaN and no infinity, by kind.
_FINITE: Final = {
    "prices": ("price", "qty"),
    "cvd": ("delta", "cvd"),
    "ofi": ("ofi_1", "ofi_5", "ofi_10"),
    "audits": ("max_drift",),
    "bbo": ("bid_px", "bid_qty", "ask_px", "ask_qty"),
    "mark": ("mark_price", "index_price", "settle_price"),
    "liquidations": ("price", "average_price", "qty", "last_qty", "filled_qty"),
    "open_interest": ("open_interest",),
}
#: Columns that hold nothing negative.
_NOT_NEGATIVE: Final = _FINITE | {"prices": ("qty",), "cvd": (), "ofi": (), "audits": ()}
#: Kinds whose rows are lists of levels.
_WITH_LISTS: Final = ("depth", "partial_depth")


class _Range:
    """The least and the greatest of what is known in some columns."""

    def __init__(self) -> None:
        self.low: int | None = None
        self.high: int | None = None

    def add(self, values: NDArray[np.int64]) -> None:
        values = values[values != UNKNOWN]
        if len(values):
            low, high = int(values.min()), int(values.max())
            self.low = low if self.low is None else min(self.low, low)
            self.high = high if self.high is None else max(self.high, high)


class CheckedFile:
    """A file whose rows can be read once, batch by batch; whatever is wrong with it goes to ``findings``.

    Rows get a further column ``run``, the number that ``runs`` has for the run that recorded them. ``on_done(checked, entry)`` is called when
    the last row was read or cannot be, with the file's account for the ledger, None if it is damaged. ``levels`` are those
    that an ``orderbook`` must have, None for any.
    """

    def __init__(
        self,
        file: DataFile,
        findings: Findings,
        *,
        runs: Mapping[str, int],
        levels: int | None = None,
        on_done: Callable[[CheckedFile, Entry | None], None] = lambda _checked, _entry: None,
    ) -> None:
        self.file = file
        #: Rows read so far.
        self.rows = 0
        parts = file.parts
        self._first_seqs = np.array([part.first_seq for part in parts])
        self._run_numbers = np.array([runs[part.run] for part in parts])
        #: Rows of each part that were read.
        self._of_parts = np.zeros(len(parts), np.int64)
        self._levels = levels
        self._findings = findings
        self._on_done = on_done
        self._ids, self._times, self._seqs, self._recv_ns = _Range(), _Range(), _Range(), _Range()
        self._last_seq = UNKNOWN

    def batches(self) -> Iterator[Rows]:
        """Read all rows in the order of their ``seq``."""
        file, entry = self.file, None
        try:
            # A page's checksum, where it has one, finds what still decodes.
            with pq.ParquetFile(file.path, page_checksum_verification=True, pre_buffer=False) as opened:
                facts = read_facts(opened.metadata.metadata)
                if self._has_columns(opened):
                    account = Account(file.kind, facts)
                    size = LISTS_BATCH_ROWS if file.kind in _WITH_LISTS else BATCH_ROWS
                    for batch in opened.iter_batches(size, use_threads=False):
                        rows = self._check(rows_of(batch))
                        account.add(rows)
                        of_part = self._part_of(rows["seq"])
                        rows["run"] = self._run_numbers[of_part]
                        yield rows
                    if self._metadata_is_right(facts):
                        entry = account.close()
        except (OSError, pa.ArrowException, ValueError, LookupError, UnicodeDecodeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            self._damaged("unreadable", f"after {self.rows} rows: {reason}", rows=None)
        self._on_done(self, entry)

    def _part_of(self, seq: NDArray[np.int64]) -> NDArray[np.int64]:
        part = np.maximum(np.searchsorted(self._first_seqs, seq, side="right") - 1, 0)
        self._of_parts += np.bincount(part, minlength=len(self._of_parts))
        return part

    def _has_columns(self, opened: pq.ParquetFile) -> bool:
        """Hold the columns against the contract. A kind that is not known here only needs what every kind has."""
        schema, kind = opened.schema_arrow, self.file.kind
        levels = sum(name.startswith("bid_px_") for name in schema.names)
        known = kinds(levels).get(kind)
        if known is None:
            if {"seq", "recv_ns"} <= set(schema.names):
                return True
            self._damaged("schema", "it lacks the columns seq and recv_ns", rows=None)
            return False
        if schema.equals(known.schema) and self._levels in (None, levels):
            return True
        self._damaged("schema", f"its columns are not those of {kind}", rows=None)
        return False

    def _check(self, rows: Rows) -> Rows:
        kind, seq = self.file.kind, rows["seq"]
        self.rows += len(seq)
        if not len(seq):
            return rows
        self._seqs.add(seq)
        self._recv_ns.add(rows["recv_ns"])
        for name in _ID_COLUMNS.get(kind, ()):
            self._ids.add(rows[name])
        if kind in _TIME_COLUMN:
            self._times.add(rows[_TIME_COLUMN[kind]])
        self._check_dates(rows)
        for name in _FINITE.get(kind, ()):
            self._check_values(rows, name, np.isfinite(rows[name]))
        for name in _NOT_NEGATIVE.get(kind, ()):
            self._check_values(rows, name, ~(rows[name] < 0))
        if kind in _WITH_LISTS:
            self._check_values(rows, "a price or quantity", ~rows["unsound"])
        return self._in_order(rows)

    def _check_dates(self, rows: Rows) -> None:
        name = _DATE_COLUMN.get(self.file.kind)
        if name is None:
            return
        by_receipt = rows["recv_ns"] // 1000
        times = by_receipt if name == "recv_ns" else rows[name]
        days = np.where(times == UNKNOWN, by_receipt, times) // DAY_US
        wrong = days != self.file.day
        if wrong.any():
            self._damaged_rows("date", "rows of another date", rows, wrong)

    def _check_values(self, rows: Rows, name: str, right: NDArray[np.bool_]) -> None:
        if not right.all():
            self._damaged_rows("value", f"{name} is no such number", rows, ~right)

    def _in_order(self, rows: Rows) -> Rows:
        """Find rows whose ``seq`` goes back, and put the batch in order all the same."""
        seq = rows["seq"]
        before = np.concatenate(([self._last_seq], seq[:-1]))
        self._last_seq = max(self._last_seq, int(seq.max()))
        back = seq < before
        if not back.any():
            return rows
        self._damaged_rows("order", "rows are not in the order of seq", rows, back)
        return cut(rows, np.argsort(seq, kind="stable"))

    def _metadata_is_right(self, facts: dict[str, str]) -> bool:
        file = self.file
        expected: dict[str, str | None] = {
            "schema": str(SCHEMA_VERSION),
            "kind": file.kind,
            "venue": file.venue,
            "simulated": "true" if file.venue.startswith(SIMULATED_PREFIX) else "false",
            "symbol": file.symbol,
            "date": date_text(file.day),
            "run": file.run,
            GENERATION: str(file.generation) if file.generation else None,
            "rows": str(self.rows),
            "first_seq": _text(self._seqs.low),
            "last_seq": _text(self._seqs.high),
            "first_recv_ns": _text(self._recv_ns.low),
            "last_recv_ns": _text(self._recv_ns.high),
        }
        if file.kind in _ID_COLUMNS:
            expected |= {"first_id": _text(self._ids.low), "last_id": _text(self._ids.high)}
        if file.kind in _TIME_COLUMN:
            expected |= {"first_time": _iso(self._times.low), "last_time": _iso(self._times.high)}
        wrong = [
            f"{key} is {facts.get(key, 'not there')}, and should be {value or 'left out'}"
            for key, value in expected.items()
            if facts.get(key) != value
        ]
        if (self._seqs.low, self._seqs.high) != (file.first_seq, file.last_seq):
            wrong.append(f"its name says records {file.first_seq} to {file.last_seq}")
        if file.generation and self._of_parts.tolist() != [part.rows for part in file.parts]:
            wrong.append("its rows are not those of the sources that it lists")
        if wrong:
            self._damaged("metadata", "; ".join(wrong), rows=None)
        return not wrong

    def _damaged_rows(self, what: str, detail: str, rows: Rows, wrong: NDArray[np.bool_]) -> None:
        names = _ID_COLUMNS.get(self.file.kind)
        for start, end in stretches(wrong):
            ids = None
            if names:
                concerned = rows[names[-1]][start:end]
                ids = int(concerned.min()), int(concerned.max())
            self._damaged(what, detail, rows=end - start, ids=ids)

    def _damaged(
        self, what: str, detail: str, *, rows: int | None, ids: tuple[int, int] | None = None
    ) -> None:
        self._findings.damaged(what, detail, path=self.file.path, kind=self.file.kind, ids=ids, rows=rows)


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)


def _iso(time_us: int | None) -> str | None:
    return None if time_us is None else f"{np.datetime64(time_us, 'us')}Z"
