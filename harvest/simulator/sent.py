"""The account of what was sent: counts and last ids a stream, and, where wanted, a line a message."""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from harvest.errors import SimulatorError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_ID = re.compile(rb'"(?:lastUpdateId|[tua])":(\d+)')


def recorded_id(text: bytes) -> int | None:
    """Find the id of a recorded message: of its trade, or the last of its update."""
    found = _ID.search(text)
    return int(found[1]) if found else None


class SentAccount:
    """What was handed to the operating system, in order, a connection at a time.

    With a log file, each message is a line: ``{"t": ns UTC, "connection", "stream", "id"}``, written
    after its bytes were accepted and before anything else is sent on that connection.

    Raises:
        SimulatorError: The log cannot be written.
    """

    def __init__(self, log: Path | None) -> None:
        self.counts: Counter[str] = Counter()
        self.last_ids: dict[str, int] = {}
        try:
            self._log = log.open("ab", buffering=0) if log else None
        except OSError as error:
            raise SimulatorError(f"{log}: cannot be written: {error.strerror}") from error
        self._encoder = msgspec.json.Encoder()

    @property
    def wants_ids(self) -> bool:
        """Whether every message's id is wanted, not only those that are known anyway."""
        return self._log is not None

    def record(self, connection: int, messages: list[tuple[str, int | None]]) -> None:
        """Account for messages (stream, id) that were sent on a connection."""
        for stream, stream_id in messages:
            self.counts[stream] += 1
            if stream_id is not None and stream_id > self.last_ids.get(stream, -1):
                self.last_ids[stream] = stream_id
        if self._log is not None and messages:
            now_ns = time.time_ns()
            self._log.write(
                b"".join(
                    self._encoder.encode({"t": now_ns, "connection": connection, "stream": stream, "id": one})
                    + b"\n"
                    for stream, one in messages
                )
            )

    def __enter__(self) -> SentAccount:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._log is not None:
            self._log.close()
