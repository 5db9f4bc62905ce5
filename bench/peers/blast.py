"""The blast server: a process of its own that sends prepared frames as fast as they are taken.

It speaks as much of Binance USD-M as the sides need: exchangeInfo and depth over HTTP, combined streams by URL or by
SUBSCRIBE over WebSocket. All is prepared before the clock runs, TLS records too (one a frame, as the venue's front ends
send them), so that the server is never what is measured.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import socket
import ssl
import struct
import sys
import threading
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bench.peers.load import DEPTH, EVENT_TIME, STAMP_DIGITS, SYMBOL, Load, in_microseconds, make

#: Bytes handed to the socket at once.
PIECE = 256 * 1024
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_INFO = {
    "serverTime": 1_785_542_400_000,
    "rateLimits": [],
    "symbols": [
        {
            "symbol": SYMBOL,
            "status": "TRADING",
            "contractStatus": "TRADING",
            "contractType": "PERPETUAL",
            "baseAsset": "BTC",
            "quoteAsset": "USDT",
            "filters": [
                {"filterType": "PRICE_FILTER", "tickSize": "0.10", "minPrice": "0.10", "maxPrice": "4529764"},
                {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.001", "maxQty": "1000"},
            ],
        }
    ],
}


def _frame(payload: bytes, opcode: int = 1) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65536:
        return struct.pack(">BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack(">BBQ", 0x80 | opcode, 127, size) + payload


class Wire:
    """A socket, or TLS on one by hand: so that records can be made before they are sent."""

    def __init__(self, raw: socket.socket, context: ssl.SSLContext | None) -> None:
        self.raw = raw
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True) if context else None
        if self._tls:
            self._until_done(self._tls.do_handshake)

    def _until_done(self, step: Any) -> Any:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self._flush()
                data = self.raw.recv(65536)
                if not data:
                    raise ConnectionError("closed") from None
                self._in.write(data)
            else:
                self._flush()
                return result

    def _flush(self) -> None:
        if self._out.pending:
            self.raw.sendall(self._out.read())

    def receive(self) -> bytes:
        """Return some bytes; none at the end."""
        if self._tls is None:
            return self.raw.recv(65536)
        return self._until_done(lambda: self._tls.read(65536))

    def send(self, data: bytes) -> None:
        """Send all of ``data`` now."""
        self.raw.sendall(self.prepare([data]))

    def prepare(self, frames: list[bytes]) -> bytes:
        """Return what has to go over the socket for ``frames``, a TLS record each."""
        if self._tls is None:
            return b"".join(frames)
        for frame in frames:
            self._tls.write(frame)
        return self._out.read()


class Blast:
    """What all connections of one server share: the load, and when it goes off."""

    def __init__(self, load: Load, connections: int) -> None:
        self.load = load
        self._snapshot_taken = threading.Event()
        self._ready = threading.Barrier(connections)
        self._has_depth = load.mix == "mix"

    def serve(self, wire: Wire) -> None:
        """Answer one connection to its end."""
        head = b""
        while b"\r\n\r\n" not in head:
            data = wire.receive()
            if not data:
                return
            head += data
        request, _, rest = head.partition(b"\r\n\r\n")
        target = urlsplit(request.split(b" ")[1].decode())
        headers = dict(line.split(b": ", 1) for line in request.split(b"\r\n")[1:])
        lower = {name.lower(): value for name, value in headers.items()}
        if b"sec-websocket-key" in lower:
            self._serve_stream(wire, target.query, lower[b"sec-websocket-key"], rest)
        else:
            self._answer(wire, target.path)

    def _answer(self, wire: Wire, path: str) -> None:
        if path.endswith("/exchangeInfo"):
            body = json.dumps(_INFO).encode()
        elif path.endswith("/depth"):
            body = self.load.snapshot
        else:
            body = b"[]"
        length = str(len(body)).encode()
        wire.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: "
            + length
            + b"\r\n\r\n"
            + body
        )
        wire.raw.shutdown(socket.SHUT_WR)
        if path.endswith("/depth"):
            self._snapshot_taken.set()

    def _serve_stream(self, wire: Wire, query: str, key: bytes, rest: bytes) -> None:
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        wire.send(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            b"sec-websocket-accept: " + accept + b"\r\n\r\n"
        )
        named = parse_qs(query).get("streams")
        streams = named[0].split("/") if named else self._subscribed(wire, rest)
        frames = [_frame(one) for one in self.load.frames(frozenset(streams))]
        # The first goes ahead: a side asks for its snapshot when it sees a diff, and only then the clock runs.
        for frame in frames[:1]:
            wire.send(frame)
        if self._has_depth and DEPTH in streams:
            self._snapshot_taken.wait(20)
        self._send_all(wire, frames[1:])
        # Whoever is done closes; what it says until then (pings) is of no interest.
        while wire.receive():
            pass

    def _send_all(self, wire: Wire, frames: list[bytes]) -> None:
        prepared = memoryview(wire.prepare(frames))
        self._wait_for_all()
        for start in range(0, len(prepared), PIECE):
            wire.raw.sendall(prepared[start : start + PIECE])

    def _wait_for_all(self) -> None:
        self._ready.wait(30)
        threading.Event().wait(0.3)

    @staticmethod
    def _subscribed(wire: Wire, data: bytes) -> list[str]:
        """Read a SUBSCRIBE, acknowledge it, and return its streams."""
        while True:
            if len(data) >= 2:
                size, start = data[1] & 0x7F, 2
                if size == 126 and len(data) >= 4:
                    size, start = struct.unpack(">H", data[2:4])[0], 4
                if (size < 126 or start == 4) and len(data) >= start + 4 + size:
                    mask, body = data[start : start + 4], data[start + 4 : start + 4 + size]
                    text = bytes(byte ^ mask[index % 4] for index, byte in enumerate(body))
                    if data[0] & 0x0F == 1:
                        asked = json.loads(text)
                        wire.send(_frame(json.dumps({"result": None, "id": asked["id"]}).encode()))
                        return list(asked["params"])
                    data = data[start + 4 + size :]
                    continue
            more = wire.receive()
            if not more:
                raise ConnectionError("closed before it subscribed")
            data += more


class Paced(Blast):
    """Sends ``rate`` messages a second on each connection, each alone, with the time of its sending as its event time.

    One that is late is sent at once, and bears the time at which it is: what is measured is the way, not the pace.
    """

    def __init__(self, load: Load, connections: int, rate: float) -> None:
        super().__init__(in_microseconds(load), connections)
        self._rate = rate

    def _send_all(self, wire: Wire, frames: list[bytes]) -> None:
        stamped = [(bytearray(frame), frame.index(EVENT_TIME) + len(EVENT_TIME)) for frame in frames]
        self._wait_for_all()
        begun = time.perf_counter()
        for number, (frame, at) in enumerate(stamped):
            wait_s = begun + number / self._rate - time.perf_counter()
            if wait_s > 0:
                time.sleep(wait_s)
            frame[at : at + STAMP_DIGITS] = b"%d" % (time.time_ns() // 1000)
            wire.raw.sendall(frame)


def main() -> None:
    """Serve until the parent is gone; prints the port as its first line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mix", choices=("trades", "mix"), required=True)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True, help="stream connections the side makes")
    parser.add_argument(
        "--rate", type=float, help="messages a second on each connection, instead of all at once"
    )
    parser.add_argument("--core", type=int)
    parser.add_argument("--certificate", help="PEM file with key and chain: serve TLS")
    arguments = parser.parse_args()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    context = None
    if arguments.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments.certificate)
    load = make(arguments.mix, arguments.messages)
    if arguments.rate is None:
        blast = Blast(load, arguments.connections)
    else:
        blast = Paced(load, arguments.connections, arguments.rate)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    while True:
        raw, _ = listener.accept()
        threading.Thread(target=_serve, args=(blast, raw, context), daemon=True).start()


def _serve(blast: Blast, raw: socket.socket, context: ssl.SSLContext | None) -> None:
    try:
        blast.serve(Wire(raw, context))
    except (ConnectionError, ssl.SSLError) as error:
        print(f"blast: {error}", file=sys.stderr)
    finally:
        raw.close()


if __name__ == "__main__":
    main()
