"""Watches the silence of one session: asks the venue in time, confirms what is quiet, subscribes anew to what is dead.

The watchdog alone would kill every quiet stream, and would never see one symbol stall while others flow. So, before the
deadline passes, the venue is asked about the symbols that are silent.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Protocol

import trio

from harvest.nurseries.connection import ConnectionLostError
from harvest.nurseries.probe import Answer, Verdict

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

    from harvest.metrics import FeedStats, Metrics
    from harvest.nurseries.plan import ChangingPlan
    from harvest.nurseries.probe import Prober
    from harvest.nurseries.requests import Requests

#: Silence of this part of the idle time is asked about.
ASK_AFTER = 0.8
#: An answer must be there before the deadline.
ANSWER_WITHIN = 0.15
#: So often within the idle time is looked for silent symbols,
LOOKS = 40
#: and so many are asked about at once: five hundred quiet symbols must not use up the weight of the address.
ASKED_AT_ONCE = 3
#: What another session brought so long ago does not come over this one any more.
BEHIND_FOR_S = 2.0
#: Two clocks that are read one after the other differ by less.
ROUNDING_S = 0.01


class Watched(Protocol):
    """What of a session is watched."""

    opened_ns: int
    unread_at: float

    def silent_for_s(self) -> float:
        """Return the seconds since the last market data of any symbol."""
        ...

    def stay(self) -> None:
        """Move the deadline on by one idle period."""
        ...

    def give_up(self) -> None:
        """End the session as a stall."""
        ...


class Silence:
    """The silence of the symbols of one session, called ``name`` in the records, of those that its plan holds at each moment.

    Where other sessions carry the same streams, what they bring proves this one dead; the venue need not be asked then.
    A symbol that the venue has halted is silent by right: nobody is asked about it.
    """

    def __init__(
        self,
        plan: ChangingPlan,
        session: Watched,
        *,
        idle_s: float,
        prober: Prober,
        metrics: Metrics,
        name: str,
        log: BoundLogger,
    ) -> None:
        self._plan = plan
        self._session = session
        self._idle_s = idle_s
        self._prober = prober
        self._metrics = metrics
        self._name = name
        self._log = log
        self._begun = trio.current_time()
        #: When a symbol need not be asked about before.
        self._settled_until: dict[str, float] = {}
        self._asked_at: dict[str, float] = {}
        #: Symbols subscribed anew: the newest id that the venue had then, and when that was.
        self._resubscribed: dict[str, tuple[int, float]] = {}
        #: Symbols that another session has brought since this one did, and when that was first seen.
        self._behind_since: dict[str, float] = {}

    async def watch(self, requests: Requests) -> None:
        """Ask and act, until cancelled."""
        try:
            while True:
                await trio.sleep(self._idle_s / LOOKS)
                is_silent = self._session.silent_for_s() >= ASK_AFTER * self._idle_s
                self._find_behind()
                silent = self._silent_symbols()
                if silent and not is_silent:
                    await self._judge_some(requests, silent)
                elif silent and not self._behind_since:
                    await self._judge_all(requests, silent)
                elif is_silent and not silent and all(stats.halted for stats in self._feeds().values()):
                    self._session.stay()
                # Else others bring what this one does not: its deadline needs no answer from the venue, and gets no delay.
        except ConnectionLostError as error:
            # ``Connection.run`` raises the same loss where it is handled.
            self._log.debug(f"lost while subscribing anew: {error}")

    def _feeds(self) -> dict[str, FeedStats]:
        plan = self._plan.now
        return {symbol: self._metrics.feed(plan.feed, symbol) for symbol in plan.symbols}

    def _silent_symbols(self) -> list[str]:
        """Return the symbols to ask about: those not asked for longest first, of these those that moved last."""
        now = trio.current_time()
        silent = []
        for symbol, stats in self._feeds().items():
            if stats.halted:
                # When it trades again it has its time.
                self._settle(symbol, ASK_AFTER)
                continue
            moved_at = self._moved_at(symbol, stats)
            if symbol in self._resubscribed and moved_at > self._resubscribed[symbol][1]:
                del self._resubscribed[symbol]
                self._settled_until.pop(symbol, None)
            if now >= max(moved_at + ASK_AFTER * self._idle_s, self._settled_until.get(symbol, 0.0)):
                silent.append((self._asked_at.get(symbol, 0.0), -moved_at, symbol))
        return [symbol for _, _, symbol in sorted(silent)]

    def _moved_at(self, symbol: str, stats: FeedStats) -> float:
        """Return when this session last brought a symbol, by Trio's clock; at the earliest when it could have."""
        begun = max(self._begun, self._session.unread_at)
        moved_ns = self._metrics.heard.get(self._name, {}).get(symbol, stats.added_mono_ns)
        return begun if moved_ns is None else max(begun, self._on_our_clock(moved_ns))

    def _find_behind(self) -> None:
        """Find the symbols that another session has brought since this one did, or since they were subscribed anew."""
        now = trio.current_time()
        feeds = self._feeds()
        for symbol in self._behind_since.keys() - feeds.keys():
            del self._behind_since[symbol]
        for symbol, stats in feeds.items():
            since = self._moved_at(symbol, stats)
            if symbol in self._resubscribed:
                # What was sent while it was being subscribed anew comes to the others alone.
                since = max(since, self._resubscribed[symbol][1] + BEHIND_FOR_S)
            if stats.last_mono_ns is not None and self._on_our_clock(stats.last_mono_ns) > since + ROUNDING_S:
                self._behind_since.setdefault(symbol, now)
            else:
                self._behind_since.pop(symbol, None)

    def _on_our_clock(self, mono_ns: int) -> float:
        return trio.current_time() - (self._prober.clock_ns() - mono_ns) / 1e9

    async def _judge_all(self, requests: Requests, silent: list[str]) -> None:
        """Nothing comes at all: quiet if the venue has nothing new for any symbol asked about, else dead."""
        verdicts = await self._ask(silent[:ASKED_AT_ONCE])
        if self._session.silent_for_s() < ASK_AFTER * self._idle_s:
            return
        if all(answer.verdict is Verdict.QUIET for answer in verdicts.values()):
            self._session.stay()
            for symbol in silent[ASKED_AT_ONCE:]:
                # Those that move most stand surety for the others, until their turn comes.
                self._settle(symbol, ASK_AFTER)
            return
        dead = any(answer.verdict is Verdict.DEAD for answer in verdicts.values())
        why = "the venue has newer data" if dead else "the venue cannot be asked"
        self._log.warning(f"silent for {self._session.silent_for_s():.1f}s and {why}: subscribing anew")
        everything = [symbol for symbol, stats in self._feeds().items() if not stats.halted]
        await self._subscribe_anew(requests, dict.fromkeys(everything, 0) | self._newest(verdicts))

    async def _judge_some(self, requests: Requests, silent: list[str]) -> None:
        """Others flow: subscribe anew to what is dead; where that has not helped, give the connection up."""
        # What has just come elsewhere may be on its way.
        waited_since = trio.current_time() - BEHIND_FOR_S
        dead = {one: 0 for one in silent if self._behind_since.get(one, inf) <= waited_since}
        if not dead:
            verdicts = await self._ask(silent[:ASKED_AT_ONCE])
            dead = {symbol: a.newest_id for symbol, a in verdicts.items() if a.verdict is Verdict.DEAD}
        if not dead:
            return
        names = ", ".join(dead)
        if any(symbol in self._resubscribed for symbol in dead):
            self._log.warning(f"{names}: still silent after subscribing anew: reconnecting")
            self._session.give_up()
            return
        self._log.warning(f"{names}: silent, though the venue has newer data: subscribing anew")
        await self._subscribe_anew(requests, dead)

    async def _ask(self, symbols: list[str]) -> dict[str, Answer]:
        answers = dict.fromkeys(symbols, Answer(Verdict.UNKNOWN))

        async def ask(symbol: str) -> None:
            # What was missed before the subscription was made anew never comes: only newer ids count after it.
            known_id = self._resubscribed.get(symbol, (0, 0.0))[0]
            since_ns = max(self._session.opened_ns, self._feeds()[symbol].added_ns or 0)
            answers[symbol] = await self._prober.ask(self._plan.now.feed, symbol, since_ns, known_id=known_id)

        with trio.move_on_after(ANSWER_WITHIN * self._idle_s):
            async with trio.open_nursery() as nursery:
                for symbol in symbols:
                    nursery.start_soon(ask, symbol)
        feeds = self._feeds()
        # It may have been removed, or have turned out to be halted, while the venue was asked.
        answers = {symbol: a for symbol, a in answers.items() if symbol in feeds and not feeds[symbol].halted}
        for symbol, answer in answers.items():
            self._asked_at[symbol] = trio.current_time()
            self._settle(symbol, ASK_AFTER)
            if answer.verdict is Verdict.QUIET:
                feeds[symbol].quiet_mono_ns = self._prober.clock_ns()
        return answers

    @staticmethod
    def _newest(answers: dict[str, Answer]) -> dict[str, int]:
        return {symbol: answer.newest_id for symbol, answer in answers.items()}

    def _settle(self, symbol: str, share: float) -> None:
        self._settled_until[symbol] = trio.current_time() + share * self._idle_s

    async def _subscribe_anew(self, requests: Requests, newest_ids: dict[str, int]) -> None:
        plan = self._plan.now
        streams = [
            stream for symbol, stream in zip(plan.symbols, plan.streams, strict=True) if symbol in newest_ids
        ]
        await requests.unsubscribe(streams)
        await requests.subscribe(streams)
        if gone := [stream for stream in streams if stream not in self._plan.now.streams]:
            # Removed meanwhile, and unsubscribed from too early.
            await requests.unsubscribe(gone)
        for symbol, newest_id in newest_ids.items():
            # If that has not helped by the end of the idle time, a new connection is to follow.
            self._settle(symbol, 1 - ASK_AFTER)
            self._resubscribed[symbol] = (newest_id, trio.current_time())
