"""A venue that sends at a pace for as long as it is told: a process of its own, ``python -m bench.faults.flood``.

Its messages are made as they are sent, so that an hour of them takes no more memory than a second. It prints its port, and, when
all is sent, how many messages that were, and which ids they had: a line of JSON a connection. A snapshot is that of the diff that
was sent last; trades of the past it has not.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import attrs

from bench.peers.blast import Blast, Wire, _frame, _serve
from bench.peers.load import (
    DEPTH,
    DIFF_LEVELS,
    FIRST_TRADE_ID,
    SNAPSHOT_ID,
    SYMBOL,
    TRADES,
    TRADES_A_DIFF,
    make,
)

if TYPE_CHECKING:
    from collections.abc import Callable

#: Between two sendings of all that is due by then.
TICK_S = 0.01
#: Sides of diffs that are made beforehand, and sent in turn.
SIDES = 512
#: Update ids of a diff.
DIFF_IDS = 100
#: Messages ahead of the pace: a snapshot is asked for when the first is seen.
AHEAD = 10
PING, PONG, CLOSE = 9, 10, 8


class Flood(Blast):
    """Sends ``rate`` messages a second for ``seconds``: four trades, on one connection, to a diff of 57 levels on the other."""

    def __init__(self, rate: float, seconds: float) -> None:
        super().__init__(make("mix", AHEAD), connections=2)
        self._rate, self._seconds = rate, seconds
        self._report = threading.Lock()
        #: Of the diffs that are made beforehand; those after them go on behind the last.
        self._first_diffs = [json.loads(diff)["data"]["u"] for diff in self.load.diffs]
        self._snapshot, self._last_update_id = self.load.snapshot, SNAPSHOT_ID

    def _answer(self, wire: Wire, path: str) -> None:
        at = b'"lastUpdateId": %d,'
        now = self._snapshot.replace(at % SNAPSHOT_ID, at % self._last_update_id, 1)
        self.load = attrs.evolve(self.load, snapshot=now)
        super()._answer(wire, path)

    def _send_all(self, wire: Wire, frames: list[bytes]) -> None:
        is_trades = TRADES.encode() in frames[0]
        parts = TRADES_A_DIFF + 1
        rate = self._rate * (TRADES_A_DIFF if is_trades else 1) / parts
        message = self._trade if is_trades else self._diffs()
        sending = threading.Lock()
        threading.Thread(target=_answer_pings, args=(wire, sending), daemon=True).start()
        with sending:
            wire.send(b"".join(frames))
        self._wait_for_all()
        total, sent, late_s = round(rate * self._seconds), 0, 0.0
        begun = time.perf_counter()
        is_broken = False
        try:
            while sent < total:
                time.sleep(TICK_S)
                passed_s = time.perf_counter() - begun
                due = min(total, int(passed_s * rate))
                now_ms = time.time_ns() // 10**6
                data = b"".join(_frame(message(number, now_ms)) for number in range(sent, due))
                with sending:
                    wire.raw.sendall(data)
                sent = due
                if not is_trades:
                    self._last_update_id = self._first_diffs[-1] + DIFF_IDS * sent
                late_s = max(late_s, time.perf_counter() - begun - passed_s)
        except ConnectionError:
            # It has fallen too far behind, or has died: whoever reads the report sees that less was sent than asked for.
            is_broken = True
        seconds = time.perf_counter() - begun
        stream = "trades" if is_trades else "diffs"
        if is_trades:
            ids = [(FIRST_TRADE_ID, FIRST_TRADE_ID + len(self.load.trades) + sent - 1, 1)]
        else:
            last = self._first_diffs[-1]
            ids = [(one, one, 1) for one in self._first_diffs]
            ids.append((last + DIFF_IDS, last + DIFF_IDS * sent, DIFF_IDS))
        said = {
            "stream": stream,
            "sent": sent + 1 + len(frames),
            # Each the first, the last, and the step between two: of diffs it is the last id that counts.
            "ids": ids,
            "seconds": seconds,
            "stood_s": late_s,
            "broken": is_broken,
        }
        with self._report:
            print(json.dumps(said), flush=True)
        threading.Event().wait()

    def _trade(self, number: int, now_ms: int) -> bytes:
        trade_id = FIRST_TRADE_ID + len(self.load.trades) + number
        maker = "true" if number % 3 else "false"
        return (
            f'{{"stream":"{TRADES}","data":{{"e":"aggTrade","E":{now_ms},"a":{trade_id},"s":"{SYMBOL}",'
            f'"p":"{64_000 + number // 1000 % 100}.10","q":"0.{1 + number % 998:03}","f":{2 * trade_id - 1},'
            f'"l":{2 * trade_id},"T":{now_ms - 3},"m":{maker}}}}}'
        ).encode()

    def _diffs(self) -> Callable[[int, int], bytes]:
        first = self._first_diffs[-1]
        dice = random.Random(1)
        count = DIFF_LEVELS // 2
        sides = [(_levels(dice, count, -1), _levels(dice, DIFF_LEVELS - count, 1)) for _ in range(SIDES)]

        def diff(number: int, now_ms: int) -> bytes:
            previous, (bids, asks) = first + DIFF_IDS * number, sides[number % SIDES]
            return (
                f'{{"stream":"{DEPTH}","data":{{"e":"depthUpdate","E":{now_ms},"T":{now_ms - 4},"s":"{SYMBOL}",'
                f'"U":{previous + 1},"u":{previous + DIFF_IDS},"pu":{previous},"b":[{bids}],"a":[{asks}]}}}}'
            ).encode()

        return diff


def _levels(dice: random.Random, count: int, direction: int) -> str:
    ticks = sorted({640_000 + direction * (1 + int(dice.expovariate(0.02))) for _ in range(count)})
    return ",".join(f'["{tick // 10}.{tick % 10}0","{dice.randint(0, 9_999) / 1000:.3f}"]' for tick in ticks)


def _answer_pings(wire: Wire, sending: threading.Lock) -> None:
    data = b""
    while more := wire.receive():
        data += more
        # What a client sends after its subscription is short: a header of two bytes, and a mask.
        while len(data) >= 6 and len(data) >= (end := 6 + (data[1] & 0x7F)):
            opcode, mask, body = data[0] & 0x0F, data[2:6], data[6:end]
            data = data[end:]
            if opcode in (PING, CLOSE):
                text = bytes(byte ^ mask[index % 4] for index, byte in enumerate(body))
                with sending:
                    wire.raw.sendall(
                        struct.pack("BB", 0x80 | (PONG if opcode == PING else CLOSE), len(text)) + text
                    )


def main() -> None:
    """Serve until killed; prints the port as its first line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, required=True, help="messages a second, of both connections")
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    flood = Flood(arguments.rate, arguments.seconds)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        raw, _ = listener.accept()
        threading.Thread(target=_serve, args=(flood, raw, None), daemon=True).start()


if __name__ == "__main__":
    main()
