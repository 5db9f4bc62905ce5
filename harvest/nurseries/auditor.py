"""The auditor: holds each book against a fresh snapshot, once an interval, when REST has nothing better to do."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Protocol

import attrs
import trio

from harvest.log import get_logger
from harvest.nurseries.rest import RestError
from harvest.pipeline.events import Audited

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harvest.nurseries.rest import RestClient
    from harvest.pipeline.events import AuditAbandoned
    from harvest.settings import BookSettings
    from harvest.venues.protocol import Venue

log = get_logger("AUDIT")

#: Diffs are kept for so long before the snapshot is asked for: what REST answers may be older than what the streams brought.
LEAD_S = 1.0
#: How long a book may take to reach the snapshot.
PATIENCE_S = 60.0
#: How often an audit that came to no end is begun again, within its turn, and after how much of the interval.
TRIES = 3
RETRY_SHARE = 0.05


class Audits(Protocol):
    """Where audits are recorded: the intake."""

    def begin_audit(self, symbol: str) -> None:
        """Record that a snapshot is about to be asked for."""
        ...

    def audit_body(self, symbol: str, body: bytes | None) -> None:
        """Record its body, or that there is none."""
        ...


@attrs.define
class _Turn:
    """The tries of one symbol: whether the last one has ended, and whether one came to its end."""

    done: trio.Event = attrs.Factory(trio.Event)
    succeeded: bool = False


class Auditor:
    """Audits the books of ``symbols()``, each once every ``audit_s``, spread evenly over it with jitter.

    ``take`` hears what came of each. Snapshots that books wait for, and missing trades, go first.
    """

    def __init__(
        self,
        venue: Venue,
        client: RestClient,
        *,
        intake: Audits,
        symbols: Callable[[], Sequence[str]],
        book: BookSettings,
    ) -> None:
        self._venue = venue
        self._client = client
        self._intake = intake
        self._symbols = symbols
        self._book = book
        #: Of the symbols that are being audited.
        self._turns: dict[str, _Turn] = {}
        self._round: Counter[str] = Counter()

    async def run(self) -> None:
        """Audit, round after round, until cancelled."""
        if not self._book.audit_s:
            return
        async with trio.open_nursery() as nursery:
            while True:
                await self._run_round(nursery)
                self._report_round()

    def take(self, result: Audited | AuditAbandoned) -> None:
        """Take what came of an audit: say it, and let whoever waits for it go on."""
        symbol, turn = result.symbol, self._turns.get(result.symbol)
        if turn is not None:
            turn.succeeded = isinstance(result, Audited)
            turn.done.set()
        if not isinstance(result, Audited):
            self._round["abandoned"] += 1
            log.info(f"{symbol}: audit abandoned ({result.why})", symbol=symbol, why=result.why)
        else:
            self._round["levels"] += result.compared
            if result.drifted:
                self._round["drifted"] += 1
                best = ", the best one of a side too" if result.best_differs else ""
                log.warning(
                    f"{symbol}: the book has drifted: of {result.compared:,} levels {result.differing:,} differ at "
                    f"update {result.update_id}, by {result.max_drift:g} at most{best}; it begins anew",
                    symbol=symbol,
                    update_id=result.update_id,
                    differing=result.differing,
                    max_drift=result.max_drift,
                )
            else:
                self._round["in sync"] += 1

    async def _run_round(self, nursery: trio.Nursery) -> None:
        began, symbols = trio.current_time(), list(self._symbols())
        random.shuffle(symbols)
        turn_s = self._book.audit_s / max(len(symbols), 1)
        for number, symbol in enumerate(symbols):
            await trio.sleep_until(began + (number + random.random()) * turn_s)
            if symbol not in self._turns:
                nursery.start_soon(self._audit, symbol)
        await trio.sleep_until(began + self._book.audit_s)

    async def _audit(self, symbol: str) -> None:
        """Audit one book; where that comes to no end, try again a little later."""
        turn = self._turns[symbol] = _Turn()
        try:
            for attempt in range(TRIES):
                if attempt:
                    await trio.sleep(self._book.audit_s * RETRY_SHARE * random.uniform(0.5, 1))
                turn.done = trio.Event()
                await self._try(symbol, turn.done)
                if turn.succeeded:
                    return
        finally:
            del self._turns[symbol]

    async def _try(self, symbol: str, done: trio.Event) -> None:
        request = self._venue.snapshot_request(symbol, self._book.snapshot_levels)
        await self._client.pay_patiently(request)
        self._intake.begin_audit(symbol)
        if done.is_set():
            return
        await trio.sleep(LEAD_S)
        body = None
        try:
            body = await self._client.get(request, is_paid=True)
        except RestError as error:
            log.info(f"{symbol}: no snapshot to audit the book ({error})", symbol=symbol)
        self._intake.audit_body(symbol, body)
        with trio.move_on_after(PATIENCE_S):
            await done.wait()
        if not done.is_set():
            self._intake.audit_body(symbol, None)

    def _report_round(self) -> None:
        found, self._round = self._round, Counter()
        if not found:
            return
        log.info(
            f"books audited: {found['in sync']:,} in sync, {found['drifted']:,} drifted, {found['abandoned']:,} "
            f"abandoned; {found['levels']:,} levels compared",
            in_sync=found["in sync"],
            drifted=found["drifted"],
            abandoned=found["abandoned"],
        )
