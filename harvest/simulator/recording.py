"""Recordings in the collector's format: a line is a receive time, a space, and the frame as it came."""

from __future__ import annotations

import gzip
import heapq
import math
from collections import Counter
from typing import IO, TYPE_CHECKING, Final

import msgspec

from harvest.errors import RecordingError
from harvest.simulator.streams import split_recorded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    Line = tuple[int, bytes, bytes]
    """Receive time in ns, the stream's name (empty: a REST snapshot), and the message without wrapping."""

#: A recording up to this size is read once and kept; a larger one is read again as it is sent.
_KEEP_BYTES: Final = 128 << 20
_TIME_DIGITS: Final = 19
_GZIP: Final = b"\x1f\x8b"
_HEAD: Final = b'{"stream":"'
_BETWEEN: Final = b'","data":'


class _Frame(msgspec.Struct):
    stream: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    last_update_id: int | None = msgspec.field(default=None, name="lastUpdateId")


class _Priced(msgspec.Struct):
    """A trade or mark price has ``p``, a ticker its bid in ``b``, a diff its bids there, a snapshot ``bids``."""

    p: str = ""
    b: str | list[tuple[str, str]] = ""
    bids: list[tuple[str, str]] = []


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == _GZIP
        return gzip.open(path, "rb") if zipped else path.open("rb")
    except OSError as error:
        raise RecordingError(str(path), 0, f"cannot be read: {error.strerror}") from error


def read_lines(path: Path) -> Iterator[Line]:
    """Read a recording, line by line, in the file's order; plain or gzip.

    Raises:
        RecordingError: A line is not of this format; the error names it.
    """
    with _open(path) as file:
        number = 0
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _read_line(path, number, line)
        except (OSError, EOFError) as error:
            raise RecordingError(str(path), number, f"cannot be read on: {error}") from error


def _read_line(path: Path, number: int, line: bytes) -> Line:
    time_text, frame = line[:_TIME_DIGITS], line[_TIME_DIGITS + 1 :].rstrip()
    if not time_text.isdigit() or line[_TIME_DIGITS : _TIME_DIGITS + 1] != b" ":
        raise RecordingError(str(path), number, "does not begin with a receive time of 19 digits and a space")
    recv_ns = int(time_text)
    if frame.startswith(_HEAD):
        end = frame.find(_BETWEEN, len(_HEAD))
        name = frame[len(_HEAD) : end]
        if end > 0 and b"\\" not in name and b'"' not in name and frame.endswith(b"}"):
            return recv_ns, name, frame[end + len(_BETWEEN) : -1]
    try:
        parsed = msgspec.json.decode(frame, type=_Frame)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RecordingError(str(path), number, f"holds no frame: {error}") from error
    if parsed.stream is not None:
        return recv_ns, parsed.stream.encode(), bytes(parsed.data)
    if parsed.last_update_id is not None:
        return recv_ns, b"", frame
    raise RecordingError(str(path), number, "is neither a frame of a combined stream nor a REST snapshot")


class Recording:
    """Several recordings as one, merged by receive time.

    Surveys all of them once when it is made: what streams there are, and the REST snapshots, which it
    keeps, each with its symbol and the number of lines before it.

    Raises:
        RecordingError: A file cannot be read, or holds no stream.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self.counts: Counter[str] = Counter()
        self.first_messages: dict[str, bytes] = {}
        self.snapshots: dict[str, list[tuple[int, bytes]]] = {}
        self.first_ns = 0
        self._kept: list[Line] | None = []
        self._survey()
        if not self.counts:
            raise RecordingError(str(self._paths[0]), 0, "holds no message of any stream")

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols of the recorded streams, upper case, in the order of the first message."""
        names = (split_recorded(stream)[0].upper() for stream in self.counts if not stream.startswith("!"))
        return tuple(dict.fromkeys(names))

    def kinds_of(self, symbol: str) -> list[str]:
        """Give the event types that are recorded for a symbol, as in stream names, sorted."""
        pairs = (split_recorded(stream) for stream in self.counts)
        return sorted({kind for name, kind in pairs if name.upper() == symbol})

    def lines(self) -> Iterator[Line]:
        """Give all lines in the order of their receive times; equal times in the order of the files."""
        if self._kept is not None:
            return iter(self._kept)
        return heapq.merge(*(read_lines(path) for path in self._paths), key=lambda line: line[0])

    def _survey(self) -> None:
        snapshots: list[tuple[int, int, bytes]] = []
        intern: dict[bytes, bytes] = {}
        kept_bytes = 0
        symbols: list[set[str]] = [set() for _ in self._paths]
        files = [_tagged(file, path) for file, path in enumerate(self._paths)]
        merged = heapq.merge(*files, key=lambda tagged: tagged[1][0])
        for number, (file, (recv_ns, stream, body)) in enumerate(merged):
            if not number:
                self.first_ns = recv_ns
            kept_bytes += len(body)
            if kept_bytes > _KEEP_BYTES:
                self._kept = None
            elif self._kept is not None:
                self._kept.append((recv_ns, intern.setdefault(stream, stream), body))
            if stream:
                name = stream.decode()
                if not self.counts[name]:
                    self.first_messages[name] = body
                self.counts[name] += 1
                symbols[file].add(split_recorded(name)[0])
            else:
                snapshots.append((number, file, body))
        for number, file, body in snapshots:
            symbol = self._symbol_of(body, symbols[file])
            self.snapshots.setdefault(symbol.upper(), []).append((number, body))

    def _symbol_of(self, snapshot: bytes, symbols: set[str]) -> str:
        # A snapshot does not say whose it is. Update ids cannot tell on futures, where all symbols share
        # them; the file tells where it has one symbol, and the price otherwise.
        if len(symbols) <= 1:
            return next(iter(symbols), "")
        best = _best_price(snapshot)
        prices = {
            split_recorded(name)[0]: price
            for name, body in self.first_messages.items()
            if (price := _best_price(body)) and split_recorded(name)[0] in symbols
        }
        return min(prices, key=lambda symbol: abs(math.log(prices[symbol] / best)), default=min(symbols))


def _tagged(file: int, path: Path) -> Iterator[tuple[int, Line]]:
    for line in read_lines(path):
        yield file, line


def _best_price(body: bytes) -> float:
    message = msgspec.json.decode(body, type=_Priced)
    if isinstance(message.b, list):
        return max((float(price) for price, _ in message.b), default=0.0)
    return float(message.p or message.b or max((price for price, _ in message.bids), key=float, default="0"))
