"""Where rows lie in a data directory, as names alone: nothing here touches a disk.

``<kind>/venue=<venue>/symbol=<symbol>/date=<date>/<run>-<first_seq>-<last_seq>.parquet``. Hive partitions, so that
readers get venue, symbol and date as columns; percent-encoded as these readers decode them.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import quote, unquote

import numpy as np

from harvest.errors import StorageError

#: Directories of the root that begin so hold no rows (the journal, the ledger, the quarantine).
PRIVATE_PREFIX = "_"
HIDDEN_PREFIX = "."
SUFFIX = ".parquet"
#: While it is written, the file ``name`` is ``.name.tmp``, or ``.name.<hex>.tmp`` where that exists; its claim, where one
#: is needed, is ``.name.claim``.
TEMPORARY_SUFFIX = ".tmp"
CLAIM_SUFFIX = ".claim"
#: What did not read back as it was written is kept so, out of the readers' sight.
UNREADABLE_SUFFIX = ".unreadable"

#: File systems take 255 bytes for a name; ``symbol=`` and what editors and copies append must fit as well.
MAX_ENCODED_SYMBOL = 200

_RUN = r"\d{8}T\d{6}Z[0-9a-f]{4}"
_COMPACT = r"(?:\.compact(\d{1,9}))?"
_NAME = re.compile(rf"({_RUN})-(\d{{1,19}})-(\d{{1,19}}){_COMPACT}\.parquet", re.ASCII)
_LEFTOVER = re.compile(
    rf"\.({_RUN})-\d{{1,19}}-\d{{1,19}}{_COMPACT}\.parquet(?:\.[0-9a-f]+)?\.(?:tmp|claim)", re.ASCII
)
_DATE = re.compile(r"-?\d{4,}-\d\d-\d\d", re.ASCII)


class UnstorableSymbolError(StorageError):
    """A symbol that no directory can be named after."""

    def __init__(self, symbol: str, why: str) -> None:
        self.symbol, self.why = symbol, why
        super().__init__(f"symbol {symbol!r} cannot name a directory: {why}")


class FileName(NamedTuple):
    """What the name of a data file says."""

    run: str
    first_seq: int
    last_seq: int
    #: 0 for a file as it was recorded; else how often its rows were compacted: no two files of a directory share a name.
    generation: int = 0


def encode_symbol(symbol: str) -> str:
    """Encode a symbol for a path: injective, and safe whatever the symbol holds.

    ASCII letters, digits, ``-`` and ``_`` stay; every other character is percent-encoded, byte by byte of its UTF-8
    (dots too, so that ``..`` is nothing special and Windows does not strip them).

    Raises:
        UnstorableSymbolError: it is empty, too long, or no text that UTF-8 can hold.
    """
    if not symbol:
        raise UnstorableSymbolError(symbol, "it is empty")
    try:
        encoded = quote(symbol, safe="").replace(".", "%2E").replace("~", "%7E")
    except UnicodeEncodeError:
        raise UnstorableSymbolError(symbol, "it is not valid Unicode") from None
    if len(encoded) > MAX_ENCODED_SYMBOL:
        raise UnstorableSymbolError(symbol, f"its name on disk would exceed {MAX_ENCODED_SYMBOL} bytes")
    return encoded


def is_storable(symbol: str) -> bool:
    """Tell whether a directory can be named after ``symbol``."""
    try:
        encode_symbol(symbol)
    except UnstorableSymbolError:
        return False
    return True


def decode_symbol(encoded: str) -> str:
    """Undo ``encode_symbol``.

    Raises:
        ValueError: ``encode_symbol`` gives nothing like this.
    """
    with contextlib.suppress(
        UnicodeDecodeError, UnstorableSymbolError
    ):  # Refused below, as every foreign name.
        symbol = unquote(encoded, errors="strict")
        if encode_symbol(symbol) == encoded:
            return symbol
    raise ValueError(f"{encoded!r} is not an encoded symbol")


def new_run_id(now_ns: int) -> str:
    """Make the id of a run that starts now: sortable by start (UTC seconds), and unique by four random hex digits."""
    stamp = str(np.datetime64(now_ns // 10**9, "s")).replace("-", "").replace(":", "")
    return f"{stamp}Z{secrets.token_hex(2)}"


def date_text(day: int) -> str:
    """Write a day (since 1970-01-01, UTC) as ``YYYY-MM-DD``; years beyond 9999 get more digits."""
    return str(np.datetime64(day, "D"))


def parse_date(text: str) -> int:
    """Undo ``date_text``.

    Raises:
        ValueError: there is no such date.
    """
    if _DATE.fullmatch(text):
        with contextlib.suppress(ValueError):  # There is no such day in that month.
            return int(np.datetime64(text, "D").astype(np.int64))
    raise ValueError(f"{text!r} is not a date")


def date_directory(kind: str, venue: str, symbol: str, day: int) -> PurePosixPath:
    """Return the directory of one kind, symbol and date, relative to the root."""
    return PurePosixPath(kind, f"venue={venue}", f"symbol={encode_symbol(symbol)}", f"date={date_text(day)}")


def file_name(run: str, first_seq: int, last_seq: int, generation: int = 0) -> str:
    """Name the file of a run's rows from record ``first_seq`` to record ``last_seq``."""
    compacted = f".compact{generation}" if generation else ""
    return f"{run}-{first_seq}-{last_seq}{compacted}{SUFFIX}"


def parse_file_name(name: str) -> FileName | None:
    """Undo ``file_name``; None for a name that is not one."""
    match = _NAME.fullmatch(name)
    return match and FileName(match[1], int(match[2]), int(match[3]), int(match[4] or 0))


def run_of_leftover(name: str) -> str | None:
    """Return the run whose temporary or claim ``name`` is; None for any other name."""
    match = _LEFTOVER.fullmatch(name)
    return match and match[1]
