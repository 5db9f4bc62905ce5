"""The other channels through the state machine: rows, what comes twice, and when nothing could come."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvest.market import CHANNELS
from harvest.pipeline.records import ChannelBody, Closed, Opened, Symbols
from harvest.settings import ChannelSettings
from tests.pipeline.ingested import ingest, stored, write_recording
from tests.pipeline.wire import DAY, MIDNIGHT_MS, T0_MS, Harness, diff, payload, trade

if TYPE_CHECKING:
    from harvest.market import Feed


def framed(stream: str, data: dict[str, Any]) -> bytes:
    return json.dumps({"stream": stream, "data": data}, separators=(",", ":")).encode()


def quote(update_id: int, *, at_ms: int = T0_MS, symbol: str = "BTCUSDT", bid: float = 100.0) -> bytes:
    data = {"e": "bookTicker", "u": update_id, "s": symbol, "b": repr(bid), "B": "1", "a": "101", "A": "2"}
    return framed(f"{symbol.lower()}@bookTicker", data | {"T": at_ms - 1, "E": at_ms})


def mark(at_ms: int = T0_MS, *, symbol: str = "BTCUSDT") -> bytes:
    data = {"e": "markPriceUpdate", "E": at_ms, "s": symbol, "p": "1", "i": "2", "P": "3", "r": "-0.1"}
    return framed(f"{symbol.lower()}@markPrice@1s", data | {"T": at_ms + 5})


def liquidation(at_ms: int = T0_MS, *, event_ms: int = T0_MS, qty: str = "2", **changes: str) -> bytes:
    order = {"s": "BTCUSDT", "S": "SELL", "o": "LIMIT", "f": "IOC", "q": qty, "p": "9", "ap": "10"}
    order |= {"X": "FILLED", "l": "1", "z": qty, "T": at_ms} | changes
    return framed("btcusdt@forceOrder", {"e": "forceOrder", "E": event_ms, "o": order})


def partial(update_id: int, bids: int = 2, asks: int = 1) -> bytes:
    data = {"e": "depthUpdate", "E": T0_MS, "T": T0_MS - 1, "s": "BTCUSDT", "U": 1, "u": update_id, "pu": 0}
    levels = {"b": [[str(99 - n), "1"] for n in range(bids)], "a": [[str(101 + n), "2"] for n in range(asks)]}
    return framed("btcusdt@depth20@100ms", data | levels)


class Channel(Harness):
    """A pipeline that records channels, and connections that open and close."""

    def __init__(self, *channels: str, **options: Any) -> None:
        super().__init__(channels=channels, **options)

    def open(self, name: str, feed: Feed, symbols: tuple[str, ...] = ("BTCUSDT",)) -> None:
        self._tick()
        self.pipeline.feed(Opened(self.seq, self.recv_ns, self.seq, name, feed, symbols))

    def close(self, name: str, feed: Feed, reason: str, symbols: tuple[str, ...] = ("BTCUSDT",)) -> None:
        self._tick()
        self.pipeline.feed(Closed(self.seq, self.recv_ns, self.seq, name, feed, symbols, reason))

    def answer(self, interest: str, at_ms: int, *, failed: int = 0) -> None:
        self._tick()
        body = b'{"symbol":"BTCUSDT","openInterest":"%s","time":%d}' % (interest.encode(), at_ms)
        self.pipeline.feed(
            ChannelBody(self.seq, self.recv_ns, self.seq, "open_interest", "BTCUSDT", failed, body)
        )

    def breaks(self) -> list[tuple[str, str, int | None, int]]:
        return [(row["feed"], row["reason"], row["from_ns"], row["to_ns"]) for row in self.rows("breaks")]


def test_rows_hold_what_the_messages_say():
    harness = Channel("bbo", "mark", "liquidations", "partial_depth")
    harness.frames(quote(7), mark(), liquidation(), partial(8))
    (bbo,), (marked,) = harness.rows("bbo"), harness.rows("mark")
    assert (bbo["update_id"], bbo["bid_px"], bbo["bid_qty"], bbo["ask_px"], bbo["ask_qty"]) == (
        7,
        100,
        1,
        101,
        2,
    )
    assert bbo["trade_time"] < bbo["event_time"]
    assert (marked["mark_price"], marked["index_price"], marked["settle_price"]) == (1, 2, 3)
    assert (marked["average_price"], marked["funding_rate"]) == (None, -0.1)
    (forced,), (book,) = harness.rows("liquidations"), harness.rows("partial_depth")
    assert (forced["side"], forced["order_type"], forced["status"]) == ("sell", "LIMIT", "FILLED")
    assert (forced["price"], forced["average_price"], forced["qty"], forced["last_qty"]) == (9, 10, 2, 1)
    assert (book["update_id"], book["bid_px"], book["ask_qty"]) == (8, [99.0, 98.0], [2.0])
    assert {row["source"] for row in (bbo, marked, forced, book)} == {"ws"}
    # Partial depth is none of the book's diffs.
    assert harness.rows("depth") == []


def test_words_of_orders_that_are_not_known_are_other():
    harness = Channel("liquidations")
    harness.frames(liquidation(o="ICEBERG", f="XYZ", X="LOST"))
    (row,) = harness.rows("liquidations")
    assert (row["order_type"], row["time_in_force"], row["status"]) == ("OTHER", "OTHER", "OTHER")


def test_a_row_is_in_the_date_of_its_event_and_on_spot_in_that_of_its_receipt():
    harness = Channel("bbo")
    harness.frames(quote(1, at_ms=MIDNIGHT_MS - 1), quote(2, at_ms=MIDNIGHT_MS))
    assert harness.column("bbo", "update_id", day=DAY) == [1]
    assert harness.column("bbo", "update_id", day=DAY + 1) == [2]
    spot = Channel("bbo", venue="binance-spot")
    spot.recv_ns = MIDNIGHT_MS * 10**6
    spot.frames(payload("binance-spot", "bookTicker"))
    (row,) = spot.rows("bbo", day=DAY + 1)
    assert row["event_time"] is None


def test_what_is_not_asked_for_is_counted_and_moves_no_watchdog():
    harness = Channel("mark")
    outcome = harness.frames(quote(1), partial(2), liquidation(), mark())
    assert outcome.data_messages == 1
    assert harness.metrics.other_events == {"bookTicker": 1, "partial depth": 1, "forceOrder": 1}
    assert {kind for kind in CHANNELS if harness.rows(kind)} == {"mark"}
    harness.frames(mark(symbol="DOGEUSDT"))
    assert harness.metrics.unknown_symbols == {"DOGEUSDT": 1}


@given(st.lists(st.integers(1, 30)))
def test_best_quotes_of_several_connections_are_stored_once_and_rise(ids):
    harness = Channel("bbo")
    harness.each([quote(update_id) for update_id in ids])
    found = harness.column("bbo", "update_id")
    assert found == [one for place, one in enumerate(ids) if one > max(ids[:place], default=0)]
    assert harness.metrics.feed("bbo", "BTCUSDT").duplicates == len(ids) - len(found)


def test_a_mark_price_is_one_a_second_whatever_connection_brings_it():
    harness = Channel("mark")
    harness.each([mark(T0_MS), mark(T0_MS + 3), mark(T0_MS + 1000), mark(T0_MS + 998), mark(T0_MS + 2003)])
    assert len(harness.rows("mark")) == 3
    assert harness.metrics.feed("mark", "BTCUSDT").duplicates == 2


def test_the_same_liquidation_is_stored_once_and_another_one_in_the_same_millisecond_too():
    harness = Channel("liquidations")
    harness.each(
        [liquidation(), liquidation(event_ms=T0_MS + 7), liquidation(qty="3"), liquidation(T0_MS + 1)]
    )
    assert harness.column("liquidations", "qty") == [2.0, 3.0, 2.0]
    assert harness.metrics.feed("liquidations", "BTCUSDT").duplicates == 1


def test_between_two_connections_is_a_break_from_the_last_message_to_the_first_of_any_symbol():
    harness = Channel("bbo", symbols=("BTCUSDT", "ETHUSDT"))
    both = ("BTCUSDT", "ETHUSDT")
    harness.open("bbo-1", "bbo", both)
    harness.frames(quote(1), connection="bbo-1")
    last_ns = harness.recv_ns
    harness.recv_ns += 10**9
    harness.close("bbo-1", "bbo", "stall", both)
    harness.open("bbo-1.2", "bbo", both)
    assert harness.breaks() == []
    harness.frames(quote(9, symbol="ETHUSDT"), connection="bbo-1.2")
    assert harness.breaks() == [("bbo", "stall", last_ns, harness.recv_ns)]
    # Of the other symbol it is known as well, before it has said anything.
    (other,) = harness.rows("breaks", "ETHUSDT")
    assert (other["from_ns"], other["from_id"], other["to_id"]) == (last_ns, None, None)
    assert harness.metrics.feed("bbo", "BTCUSDT").gaps == 1


def test_while_another_connection_delivers_there_is_no_break():
    harness = Channel("bbo")
    harness.open("bbo-1a", "bbo")
    harness.open("bbo-1b", "bbo")
    harness.frames(quote(1), connection="bbo-1a")
    harness.frames(quote(1), connection="bbo-1b")
    harness.close("bbo-1a", "bbo", "disconnect")
    harness.frames(quote(2), connection="bbo-1b")
    harness.open("bbo-1a.2", "bbo")
    harness.frames(quote(3), connection="bbo-1a.2")
    harness.close("bbo-1b", "bbo", "handover")
    harness.frames(quote(4), connection="bbo-1a.2")
    assert harness.breaks() == []
    assert harness.column("bbo", "update_id") == [1, 2, 3, 4]


@pytest.mark.parametrize(("reason", "said"), [("handover", "disconnect"), ("disconnect", "disconnect")])
def test_a_connection_that_never_delivered_covers_nothing(reason, said):
    harness = Channel("bbo")
    harness.open("bbo-1", "bbo")
    harness.frames(quote(1), connection="bbo-1")
    last_ns = harness.recv_ns
    harness.open("bbo-1.2", "bbo")
    harness.close("bbo-1", "bbo", reason)
    harness.close("bbo-1.2", "bbo", "stall")
    harness.open("bbo-1.3", "bbo")
    harness.frames(quote(5), connection="bbo-1.3")
    assert harness.breaks() == [("bbo", said, last_ns, harness.recv_ns)]


def test_the_pulse_of_liquidations_shows_that_they_could_come_and_is_not_stored():
    harness = Channel("liquidations", "mark")
    harness.open("liquidations-1", "liquidations")
    assert harness.frames(mark(), connection="liquidations-1").data_messages == 1
    last_ns = harness.recv_ns
    harness.close("liquidations-1", "liquidations", "disconnect")
    harness.open("liquidations-1.2", "liquidations")
    harness.frames(mark(T0_MS + 1000), connection="liquidations-1.2")
    assert harness.breaks() == [("liquidations", "disconnect", last_ns, harness.recv_ns)]
    assert harness.rows("mark") == []


def test_what_an_overload_let_go_of_is_a_break():
    harness = Channel("bbo")
    harness.open("bbo-1", "bbo")
    harness.frames(quote(1), connection="bbo-1")
    harness.overload("bbo")
    assert harness.breaks() == [("bbo", "overload", harness.recv_ns - 1, harness.recv_ns)]


def test_trades_and_books_know_nothing_of_what_happens_to_a_channel():
    harness = Channel("bbo")
    harness.open("bbo-1", "bbo")
    harness.frames(trade(1), diff(1, 2, 0), connection="trade-1")
    harness.frames(quote(1), connection="bbo-1")
    harness.close("bbo-1", "bbo", "stall")
    harness.frames(trade(5), diff(9, 9, 7), connection="trade-1")
    assert [(feed, reason) for feed, reason, _, _ in harness.breaks()] == [
        ("trade", "gap"),
        ("orderbook", "gap"),
    ]


def test_answers_about_open_interest_are_rows_once_and_failed_questions_a_break():
    harness = Channel("open_interest")
    harness.answer("5", T0_MS)
    first_ns = harness.recv_ns
    harness.answer("5", T0_MS)
    harness.answer("6.5", T0_MS + 60_000, failed=2)
    assert harness.column("open_interest", "open_interest") == [5.0, 6.5]
    assert harness.column("open_interest", "source") == ["rest", "rest"]
    assert harness.breaks() == [("open_interest", "refused", first_ns, harness.recv_ns)]
    harness.answer("NaN", T0_MS + 70_000)
    assert harness.metrics.malformed == 1


def test_ingest_takes_the_channels_of_a_recording_if_they_are_asked_for(tmp_path):
    frames = [trade(1), quote(1), diff(1, 2, 0), quote(2), quote(2), partial(3), mark()]
    recording = write_recording(tmp_path / "recording", frames)
    plain = ingest([recording], tmp_path / "plain")
    assert plain.metrics.other_events == {"bookTicker": 3, "partial depth": 1, "markPriceUpdate": 1}
    channels = ChannelSettings(record=("bbo", "partial_depth"))
    asked = ingest([recording], tmp_path / "asked", channels=channels)
    assert [row["update_id"] for row in stored(tmp_path / "asked", "bbo", "BTCUSDT")] == [1, 2]
    assert [row["update_id"] for row in stored(tmp_path / "asked", "partial_depth", "BTCUSDT")] == [3]
    assert asked.metrics.other_events == {"markPriceUpdate": 1}
    # What was recorded before is not touched by it.
    for kind in ("prices", "depth", "cvd"):
        assert stored(tmp_path / "asked", kind, "BTCUSDT") == stored(tmp_path / "plain", kind, "BTCUSDT")


def test_questions_that_nobody_asked_while_a_symbol_was_removed_are_downtime():
    harness = Channel("open_interest")
    harness.answer("5", T0_MS)
    last_ns = harness.recv_ns
    for added, removed in (({}, ("BTCUSDT",)), ({"BTCUSDT": None}, ())):
        harness._tick()
        harness.pipeline.feed(Symbols(harness.seq, harness.recv_ns, harness.seq, added, removed))
    harness.answer("6", T0_MS + 1000, failed=1)
    assert harness.breaks() == [("open_interest", "downtime", last_ns, harness.recv_ns)]
    harness.answer("7", T0_MS + 2000)
    assert len(harness.breaks()) == 1
