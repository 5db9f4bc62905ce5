"""Diffs that are taken at once give what they give one by one: rows, state, events and counts, whatever is wrong with them."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import pytest

from bench.peers import load
from harvest.book import book
from harvest.book.flow import EXACT_UNITS, UNITS, WINDOW
from harvest.pipeline.events import Audited, SnapshotWanted
from harvest.pipeline.records import AuditBegun, AuditBody, Closed, Frames, Opened, SnapshotBody, Symbols
from harvest.pipeline.times import MICROSECONDS_FROM, all_to_us, to_us
from harvest.venues.blocks import join
from tests.pipeline import troubled
from tests.pipeline.book_pair import SYMBOLS, Market, Pair
from tests.pipeline.wire import DAY, MIDNIGHT_MS, T0_MS, diff, payload, snapshot, trade
from tests.venues.small_blocks import let_all_be_read, let_few_be_enough

BTC, ETH, XRP = SYMBOLS
both_rules = pytest.mark.parametrize("spot", [False, True])


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    """Let few be enough for a stencil, so that blocks may be small."""
    let_few_be_enough(monkeypatch)


@pytest.fixture
def small(monkeypatch):
    """Let blocks be read in columns however small they are, and whatever came before."""
    let_all_be_read(monkeypatch)
    monkeypatch.setattr(book, "TIMES_PASSED", 0)


class TroubledBooks:
    """Feeds a pair with blocks of diffs of several symbols over midnight, and with what its machines want, late or wrong."""

    def __init__(self, chaos: random.Random, *, spot: bool, levels: int) -> None:
        self._chaos, self._spot = chaos, spot
        self.pair = Pair(spot=spot, levels=levels, max_rows=chaos.choice((7, 100, 10**6)))
        self._most_diffs = chaos.choice((3, 12, 80))
        #: By so much are troubles rarer.
        self._calm = chaos.choice((1, 10))
        is_exact = chaos.random() < 0.5
        self._markets = {symbol: Market(symbol, chaos, spot=spot, is_exact=is_exact) for symbol in SYMBOLS}
        self._at_ms = MIDNIGHT_MS - 10 * chaos.randrange(200)
        self._open: set[str] = set()
        #: Snapshots that come after so many blocks.
        self._due: list[tuple[int, str, bytes]] = []
        self._number = 0

    def run(self, blocks: int) -> None:
        """Feed so many blocks; the two are held against each other now and then, for that alone lets a book go on as a ladder."""
        for self._number in range(blocks):
            self._trouble(self._chaos.choice(SYMBOLS))
            self._hear(self.pair.block(self._frames(), f"orderbook-{self._chaos.randrange(2)}"))
            for due in [due for due in self._due if due[0] <= self._number]:
                self._due.remove(due)
                self._hear(self.pair.feed(SnapshotBody, *due[1:]))
            if self._chaos.random() < 0.15:
                self.pair.agree()
        self.pair.agree()
        self.pair.agree_in_rows()

    def _frames(self) -> list[bytes]:
        chaos, frames = self._chaos, []
        for _ in range(chaos.randrange(1, self._most_diffs)):
            self._at_ms += chaos.choice((0, 1, 10))
            frames.append(self._markets[chaos.choice(SYMBOLS)].diff(self._at_ms))
        self.pair.now_ns = self._at_ms * 10**6
        if chaos.random() * self._calm < 0.1:
            fault, at = chaos.randrange(6), chaos.randrange(len(frames))
            if fault == 0 and len(frames) > 1:
                del frames[at]
            elif fault == 1:
                frames.insert(chaos.randrange(len(frames)), frames[at])
            elif fault == 2:
                frames[at], frames[-1] = frames[-1], frames[at]
            elif fault == 3:
                frames[at] = frames[at].replace(b'"]', b'x"]', 1)
            elif fault == 4:
                frames.insert(at, chaos.choice((trade(1), b'{"result":null,"id":1}')))
            else:
                frames.insert(at, payload(f"binance-{'spot' if self._spot else 'usdm'}", "partialDepth"))
        return frames

    def _trouble(self, symbol: str) -> None:
        chaos, pair, market = self._chaos, self.pair, self._markets[symbol]
        dice = chaos.random() * self._calm
        if dice < 0.03:
            name = f"orderbook-{chaos.randrange(2)}"
            if name in self._open:
                self._hear(pair.feed(Closed, name, "orderbook", SYMBOLS, chaos.choice(("stall", "handover"))))
            else:
                self._hear(pair.feed(Opened, name, "orderbook", SYMBOLS))
            self._open ^= {name}
        elif dice < 0.06:
            self._hear(pair.feed(AuditBegun, symbol))
        elif dice < 0.10:
            body = market.snapshot(self._at_ms, is_wrong=chaos.random() < 0.3)
            self._hear(pair.feed(AuditBody, symbol, chaos.choice((body, body, None))))
        elif dice < 0.13:
            # Nobody has asked for it.
            self._hear(pair.feed(SnapshotBody, symbol, market.snapshot(self._at_ms)))
        elif dice < 0.15:
            pair.forget_before(DAY)
        elif dice < 0.16:
            pair.restore()
        elif dice < 0.18:
            self._hear(pair.feed(Symbols, {}, (symbol,)))
            self._hear(pair.block([market.diff(self._at_ms)]))
            self._hear(pair.feed(Symbols, {symbol: None}, ()))

    def _hear(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, SnapshotWanted):
                body = self._markets[event.symbol].snapshot(self._at_ms)
                self._due.append((self._number + self._chaos.choice((0, 0, 1, 3)), event.symbol, body))


@pytest.mark.usefixtures("small")
@both_rules
@pytest.mark.parametrize("levels", [1, 5, 10, 20, 25])
def test_troubled_books_are_the_same_at_once_and_one_by_one(spot, levels):
    taken = 0
    for seed in range(2):
        run = TroubledBooks(random.Random(f"{seed} {spot} {levels}"), spot=spot, levels=levels)
        run.run(50)
        taken += run.pair.taken.total()
    assert taken > 20


@pytest.mark.usefixtures("small")
@both_rules
def test_a_troubled_run_of_all_records_is_the_same_at_once_and_one_by_one(spot):
    taken = 0
    for seed in range(10):
        pair = Pair(spot=spot, levels=troubled.LEVELS, max_rows=20, symbols=troubled.SYMBOLS)
        for number, record in enumerate(troubled.Troubled(random.Random(seed), 100, spot=spot).records):
            if isinstance(record, Frames):
                record.frames = join(list(record.frames))
            pair.take(record)
            if number % 17 == 0:
                pair.agree()
        pair.agree()
        pair.agree_in_rows()
        taken += pair.taken.total()
    assert taken > 50


def of_symbol(frames: list[bytes], symbol: str) -> list[bytes]:
    """Let diffs of the benchmark be another symbol's."""
    names = (load.SYMBOL, symbol), (load.SYMBOL.lower(), symbol.lower())
    for old, new in names:
        frames = [frame.replace(old.encode(), new.encode()) for frame in frames]
    return frames


def test_blocks_of_the_size_that_they_come_in_are_taken_at_once():
    sent = load.make("mix", 5 * 600)
    pair = Pair(spot=False, symbols=(BTC, ETH))
    diffs = [one for both in zip(sent.diffs, of_symbol(sent.diffs, ETH), strict=True) for one in both]
    pair.block(diffs[:2])
    for symbol in (BTC, ETH):
        pair.feed(SnapshotBody, symbol, sent.snapshot)
    pair.block(diffs[2:4])
    # The 100th is lost: of one symbol all go one by one, from there until its snapshot has come.
    dice, at = random.Random(1), 4
    while at < len(diffs):
        size = dice.randrange(48, 160)
        block = diffs[at : at + size]
        pair.block([frame for frame in block if frame is not diffs[100]])
        at += size
        if at == len(diffs) or dice.random() < 0.3:
            pair.agree()
    pair.agree()
    pair.agree_in_rows()
    assert pair.taken[ETH] == 598
    assert pair.taken[BTC] < 60


class Steps:
    """Feeds a pair with diffs of its own making, each after the one before, and tells which were taken at once."""

    def __init__(self, *, spot: bool, levels: int = 10) -> None:
        self.pair, self._spot = Pair(spot=spot, levels=levels), spot
        self.last_id = dict.fromkeys(SYMBOLS, 1000)

    def synced(self, *symbols: str, depth: int = 12) -> Steps:
        """Let books begin: a diff, a snapshot, and the diff that bridges it."""
        for symbol in symbols:
            self.pair.block([self.diff(symbol)])
            self.snapshot(symbol, depth=depth)
            self.pair.block([self.diff(symbol)])
            assert self.pair.book(symbol).is_settled
        return self

    def snapshot(self, symbol: str, *, depth: int = 12) -> list[Any]:
        """Feed a snapshot that is as new as the last diff."""
        return self.pair.feed(SnapshotBody, symbol, self.body(symbol, depth=depth))

    def body(self, symbol: str, *, depth: int = 12) -> bytes:
        """Make that snapshot."""
        sides = [[(1000.0 + sign * (level + 0.5), 1.0) for level in range(depth)] for sign in (-1, 1)]
        return snapshot(self.last_id[symbol], *sides, at_ms=None if self._spot else T0_MS)

    def diff(
        self, symbol: str = BTC, *, skip: int = 0, at_ms: int = T0_MS, bid: Any = (), ask: Any = ()
    ) -> bytes:
        """Make the next diff of a symbol, after ``skip`` that are lost."""
        before = self.last_id[symbol] + 2 * skip
        last = self.last_id[symbol] = before + 2
        prev = None if self._spot else before
        return diff(before + 1, last, prev, list(bid), list(ask), symbol=symbol, at_ms=at_ms)

    def diffs(self, count: int = 5, symbol: str = BTC, **how: Any) -> list[bytes]:
        """Make the next ones."""
        return [self.diff(symbol, **how) for _ in range(count)]

    def taken(self, block: list[bytes], connection: str = "orderbook-0") -> dict[str, int]:
        """Feed a block; returns how many of each symbol were taken at once. All that follows is the same as one by one."""
        before = self.pair.taken.copy()
        self.pair.block(block, connection)
        return dict(self.pair.taken - before)

    def end(self) -> None:
        """See that all was the same."""
        self.pair.agree()
        self.pair.agree_in_rows()


@pytest.fixture
def steps(small, spot):
    made = Steps(spot=spot).synced(BTC)
    yield made
    made.end()


@both_rules
def test_a_book_is_followed_once_a_diff_has_continued_its_snapshot(small, spot):
    steps = Steps(spot=spot)
    assert steps.taken(steps.diffs()) == {}
    steps.snapshot(BTC)
    # Diffs that wait have bridged nothing: all of them were in the snapshot.
    assert steps.taken(steps.diffs(1)) == {}
    assert steps.taken(steps.diffs()) == {BTC: 5}
    steps.end()


@both_rules
@pytest.mark.parametrize("fault", ["lost", "doubled", "swapped", "again"])
def test_diffs_that_do_not_follow_each_other_are_taken_one_by_one(steps, fault):
    block = steps.diffs(6)
    again = block[3]
    if fault == "lost":
        del block[3]
    elif fault == "doubled":
        block.insert(3, again)
    elif fault == "swapped":
        block[2], block[3] = block[3], block[2]
    else:
        block.append(again)
    assert steps.taken(block) == {}
    whole = fault in ("doubled", "again")
    assert steps.taken(steps.diffs()) == ({BTC: 5} if whole else {})
    steps.snapshot(BTC)
    steps.taken(steps.diffs(1))
    assert steps.taken(steps.diffs()) == {BTC: 5}


@both_rules
def test_a_gap_before_the_first_of_a_block_is_one(steps):
    assert steps.taken(steps.diffs(1, skip=1) + steps.diffs()) == {}
    assert not steps.pair.book(BTC).in_sync


@both_rules
def test_diffs_on_both_sides_of_midnight_are_taken_one_by_one(steps):
    assert steps.taken(steps.diffs(3, at_ms=MIDNIGHT_MS - 1)) == {BTC: 3}
    assert steps.taken(steps.diffs(3, at_ms=MIDNIGHT_MS - 1) + steps.diffs(3, at_ms=MIDNIGHT_MS)) == {}
    assert steps.taken(steps.diffs(3, at_ms=MIDNIGHT_MS)) == {BTC: 3}
    # One that comes late turns back to its date, and so does the next.
    assert steps.taken(steps.diffs(1, at_ms=MIDNIGHT_MS - 1)) == {}
    assert steps.taken(steps.diffs(1, at_ms=MIDNIGHT_MS)) == {}
    assert steps.taken(steps.diffs(3, at_ms=MIDNIGHT_MS)) == {BTC: 3}
    steps.pair.forget_before(DAY)
    assert steps.taken(steps.diffs(3, at_ms=MIDNIGHT_MS)) == {}
    assert steps.taken(steps.diffs(3, at_ms=MIDNIGHT_MS)) == {BTC: 3}


@both_rules
def test_a_date_that_begins_with_a_block_begins_with_the_whole_book(steps):
    assert steps.taken(steps.diffs(3, at_ms=MIDNIGHT_MS)) == {}
    assert steps.taken(steps.diffs(3, at_ms=MIDNIGHT_MS)) == {BTC: 3}


@both_rules
def test_times_in_microseconds_are_the_same_dates(steps):
    micro = {"at_ms": 1000 * T0_MS + 123}
    assert steps.taken(steps.diffs(3, **micro) + steps.diffs(3)) == {BTC: 6}
    assert steps.taken(steps.diffs(3, at_ms=1000 * MIDNIGHT_MS - 1)) == {BTC: 3}
    assert steps.taken(steps.diffs(3, at_ms=1000 * MIDNIGHT_MS)) == {}


def test_times_in_an_array_are_what_they_are_alone():
    times = [0, 1, MICROSECONDS_FROM - 1, MICROSECONDS_FROM, MICROSECONDS_FROM + 1, 10**16]
    assert all_to_us(np.array(times, np.int64)).tolist() == list(map(to_us, times))


@both_rules
def test_what_one_book_cannot_take_at_once_another_one_does(steps):
    steps.synced(ETH)
    late = steps.diffs(4, ETH, skip=1)
    mixed = [one for both in zip(steps.diffs(4), late, steps.diffs(4, XRP), strict=True) for one in both]
    assert steps.taken(mixed) == {BTC: 4}
    assert [steps.pair.book(symbol).in_sync for symbol in SYMBOLS] == [True, False, False]
    assert steps.taken([*steps.diffs(4), diff(1, 2, None if steps._spot else 0, symbol="DOGEUSDT")]) == {
        BTC: 4
    }


@both_rules
def test_levels_of_every_kind_are_followed(steps):
    bids = [
        [],
        [(999.5, 0.0)],
        # Of a level that is named twice the last quantity holds.
        [(998.5, 5.0), (998.5, 0.0)],
        [(997.5, 0.0), (997.5, 7.0)],
        [(5.0, 0.0)],
        # Crossed, and then not any more.
        [(1003.0, 1.0)],
        [(1003.0, 0.0)],
        # A side becomes empty, and has a few levels again.
        [(1000.0 - level - 0.5, 0.0) for level in range(12)],
        [],
        [(990.0, 2.5), (991.0, 2.25)],
        [(1e90, 1e-9)],
        [(1e90, 0.0)],
    ]
    assert steps.taken([steps.diff(bid=bid) for bid in bids]) == {BTC: len(bids)}
    assert steps.taken([steps.diff(ask=[(price, qty) for price, qty in bid]) for bid in bids]) == {
        BTC: len(bids)
    }
    assert steps.taken([steps.diff(bid=bid, ask=bid) for bid in bids]) == {BTC: len(bids)}
    assert steps.pair.book(BTC).stats.crossed > 5


@both_rules
def test_prices_of_0_are_taken_one_by_one_as_long_as_they_are_there(steps):
    for price in (0.0, -0.0):
        assert steps.taken(steps.diffs(2) + steps.diffs(1, bid=[(price, 0.0)])) == {}
        assert steps.taken(steps.diffs(2)) == {BTC: 2}
        assert steps.taken(steps.diffs(1, ask=[(price, 1.0)])) == {}
        assert steps.taken(steps.diffs(2)) == {}
        assert steps.taken(steps.diffs(1, ask=[(-price, 0.0)])) == {}
        assert steps.taken(steps.diffs(2)) == {BTC: 2}


@both_rules
def test_quantities_that_are_not_exact_are_taken_one_by_one_as_long_as_they_tell(steps):
    exact, other = (EXACT_UNITS - 1) / UNITS, EXACT_UNITS / UNITS
    assert steps.taken(steps.diffs(2, bid=[(999.5, exact)])) == {BTC: 2}
    for qty in (other, 1e60):
        assert steps.taken(steps.diffs(1) + steps.diffs(1, bid=[(999.5, qty)])) == {}
        assert steps.taken(steps.diffs(1, bid=[(999.5, 1.0)])) == {}
        # Beyond the ten best nobody asks.
        assert steps.taken(steps.diffs(2, bid=[(985.5, qty)])) == ({} if qty == 1e60 else {BTC: 2})
    # What is not exact in the window of imbalances is waited for.
    assert steps.taken(steps.diffs(WINDOW - 1)) == {}
    assert steps.taken(steps.diffs(2)) == {BTC: 2}


@both_rules
def test_scores_begin_in_a_block_and_go_on_over_blocks(steps):
    dice = random.Random(1)
    for count in (200, 95, 10, 1, 60):
        block = [steps.diff(bid=[(999.5, dice.randrange(1, 9) / 4)]) for _ in range(count)]
        assert steps.taken(block) == {BTC: count}


@both_rules
def test_while_another_connection_lives_diffs_are_taken_one_by_one(steps):
    for name in ("orderbook-0", "orderbook-1"):
        steps.pair.feed(Opened, name, "orderbook", (BTC,))
    assert steps.taken(steps.diffs()) == {}
    # Some are held until the other connection has ended.
    lost = steps.diffs(1)
    assert steps.taken(steps.diffs(3)) == {}
    assert len(steps.pair.book(BTC)._held) == 3
    assert steps.taken(lost, "orderbook-1") == {}
    assert steps.taken(steps.diffs(3, skip=1)) == {}
    steps.pair.feed(Closed, "orderbook-1", "orderbook", (BTC,), "stall")
    assert not steps.pair.book(BTC)._held
    assert steps.taken(steps.diffs(3)) == {}
    steps.snapshot(BTC)
    steps.taken(steps.diffs(1))
    assert steps.taken(steps.diffs(3)) == {BTC: 3}


@both_rules
def test_an_audit_sees_what_was_taken_at_once_before_and_all_diffs_while_it_is_pending(steps):
    assert steps.taken(steps.diffs(3)) == {BTC: 3}
    for is_right in (True, False):
        steps.pair.feed(AuditBegun, BTC)
        assert steps.taken(steps.diffs(3, bid=() if is_right else [(999.5, 7.0)]) + steps.diffs(1)) == {}
        (event, *wanted) = steps.pair.feed(AuditBody, BTC, steps.body(BTC))
        assert isinstance(event, Audited)
        assert event.drifted == (not is_right)
        assert wanted == ([] if is_right else [SnapshotWanted(BTC, "drift")])
        assert steps.taken(steps.diffs(3)) == ({BTC: 3} if is_right else {})


@both_rules
def test_snapshots_and_checkpoints_come_between_blocks(steps):
    for number in range(8):
        assert steps.taken(steps.diffs(3, bid=[(999.0 - number, 1.0 + number)])) == {BTC: 3}
        if number % 2:
            steps.snapshot(BTC)
        if number == 3:
            steps.pair.agree()
        if number == 5:
            steps.pair.restore()
            steps.taken(steps.diffs(1))


@both_rules
@pytest.mark.parametrize("depth", [0, 1, 9, 10, 11, 24, 40])
@pytest.mark.parametrize("levels", [1, 5, 10, 20, 25])
def test_a_book_of_fewer_levels_than_are_recorded_is_followed(small, spot, levels, depth):
    steps = Steps(spot=spot, levels=levels).synced(BTC, depth=depth)
    dice = random.Random(depth)
    bids = [[(1000.0 - dice.randrange(1, 30), dice.randrange(3) / 2)] for _ in range(40)]
    assert steps.taken([steps.diff(bid=bid) for bid in bids]) == {BTC: 40}
    assert steps.taken([steps.diff(ask=bid) for bid in bids]) == {BTC: 40}
    steps.end()


@pytest.mark.usefixtures("small")
def test_diffs_of_usdm_that_name_an_older_predecessor_overlap_and_those_without_one_are_left():
    steps = Steps(spot=False).synced(BTC)
    overlapping = [re.sub(rb'"pu":\d+', b'"pu":1', frame) for frame in steps.diffs()]
    assert steps.taken(overlapping) == {BTC: 5}
    steps.end()


@pytest.mark.usefixtures("small")
def test_diffs_of_spot_that_begin_before_the_last_one_ended_overlap():
    steps = Steps(spot=True).synced(BTC)
    overlapping = [re.sub(rb'"U":\d+', b'"U":1', frame) for frame in steps.diffs()]
    assert steps.taken(overlapping) == {BTC: 5}
    steps.end()
