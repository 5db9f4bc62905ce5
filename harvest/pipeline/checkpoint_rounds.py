"""When each symbol's state goes into the journal: one at a time, spread over a round, so that no checkpoint stalls the loop."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Due(NamedTuple):
    """A checkpoint to be taken: of which symbol, in which round, of how many in that round."""

    symbol: str
    round: int
    of: int


class CheckpointRounds:
    """Says which symbol is due, so that a round takes ``round_s``. The first round, and new symbols, are due at once.

    Pure: the caller has the (monotonic) clock. It takes what is ``due``, notes it as ``taken``, and asks again; between two
    of them it lets others run.
    """

    def __init__(self, symbols: Iterable[str], round_s: float) -> None:
        self._round_s = round_s
        self._symbols = dict.fromkeys(symbols)
        self._round = 1
        self._of = len(self._symbols)
        #: Of this round, in order; those that came meanwhile wait for nothing.
        self._waiting = deque(self._symbols)
        self._new: deque[str] = deque()
        #: When the next one is due (in the first round all are), and the seconds from one to the next.
        self._next_s: float | None = None
        self._step_s = 0.0
        self._first_seq: int | None = None
        #: First and last ``seq`` of complete rounds, oldest first.
        self._complete: deque[tuple[int, int]] = deque()

    def change(self, symbols: Iterable[str]) -> None:
        """Go on with these symbols; call it when they are recorded, or no longer."""
        before, self._symbols = self._symbols, dict.fromkeys(symbols)
        self._new = deque(symbol for symbol in self._new if symbol in self._symbols)
        self._new.extend(symbol for symbol in self._symbols if symbol not in before)
        self._waiting = deque(symbol for symbol in self._waiting if symbol in self._symbols)

    @property
    def has_new(self) -> bool:
        """Whether symbols that have come since wait for their first checkpoint."""
        return bool(self._new)

    def due(self, now_s: float) -> Due | None:
        """Return the symbol whose checkpoint is due, None if there is none yet."""
        if self._new:
            return Due(self._new[0], self._round, self._of)
        if not self._waiting:
            self._begin(now_s)
        if not self._waiting or self.wait_s(now_s) > 0:
            return None
        return Due(self._waiting[0], self._round, self._of)

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until ``due`` has something to say."""
        if self._new or (self._waiting and self._next_s is None):
            return 0.0
        return self._round_s if self._next_s is None else max(self._next_s - now_s, 0.0)

    def taken(self, due: Due, seq: int) -> None:
        """Note that what was ``due`` is the record ``seq``."""
        if self._waiting and self._first_seq is None:
            # Also that of a new symbol, which is not in this round.
            self._first_seq = seq
        if self._new and self._new[0] == due.symbol:
            self._new.popleft()
            return
        self._waiting.popleft()
        if self._next_s is not None:
            self._next_s += self._step_s
        if not self._waiting and self._first_seq is not None:
            self._complete.append((self._first_seq, seq))
            self._first_seq = None

    def needed_from(self, committed_seq: int) -> int:
        """Return the ``seq`` from which on a recovery needs the journal, if all rows up to ``committed_seq`` are in files.

        It is the beginning of the newest round that is complete, and after whose end alone there are rows in no file: what a
        symbol's rows before its own checkpoint follow from is in the round before. 0 if there is no such round.
        """
        complete = self._complete
        while len(complete) > 1 and complete[1][1] <= committed_seq:
            complete.popleft()
        return complete[0][0] if complete and complete[0][1] <= committed_seq else 0

    def _begin(self, now_s: float) -> None:
        if not self._symbols:
            return
        self._round += 1
        self._waiting = deque(self._symbols)
        self._of = len(self._symbols)
        self._step_s = self._round_s / self._of
        if self._next_s is None:
            self._next_s = now_s + self._step_s
