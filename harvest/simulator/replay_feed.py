"""Sends a recording to whoever hears its streams, in its order and at its pace, or as fast as they read."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import trio

from harvest.simulator.frames import text_frame
from harvest.simulator.sent import recorded_id
from harvest.simulator.streams import split_recorded

if TYPE_CHECKING:
    from harvest.simulator.clock import VenueClock
    from harvest.simulator.connection import Connection
    from harvest.simulator.recording import Recording
    from harvest.simulator.state import VenueState
    from harvest.simulator.streams import StreamKey

_LINES_A_TURN: Final = 128
_PATIENCE_S: Final = 10.0
#: A message goes out up to so long before its time, with the one before it: a wake-up costs more than that.
_EARLY_S: Final = 0.001

_Listener = tuple["Connection", "StreamKey", str, bytes, bytes]


class ReplayPosition:
    """How far a replay has come."""

    def __init__(self, first_ns: int) -> None:
        self.lines = 0
        self.recv_ns = first_ns
        self.started = False
        self.done = False


async def feed_recording(
    state: VenueState, recording: Recording, position: ReplayPosition, clock: VenueClock | None
) -> None:
    """Wait until all subscriptions stand, then send the recording; the connections stay open after it.

    Without a clock it is sent as fast as the clients read. Ends after the last message was sent.
    """
    await _settled(state)
    position.started = True
    if clock is not None:
        clock.restart(recording.first_ns)
    replay = _Replay(state, recording)
    for recv_ns, stream, body in recording.lines():
        wait_s = 0.0 if clock is None else clock.seconds_until(recv_ns)
        if wait_s > _EARLY_S or position.lines % _LINES_A_TURN == 0:
            await trio.sleep(max(wait_s, 0.0))
            await state.standing.gate.passed()
            await replay.room(state.config.send_buffer_bytes)
        position.lines += 1
        position.recv_ns = recv_ns
        if stream:
            replay.send(stream, body)
    await replay.room(0)
    position.done = True
    print("[REPLAY] done", file=sys.stderr, flush=True)


async def _settled(state: VenueState) -> None:
    expected = set(state.config.replay_streams)
    while True:
        await state.first_ack.wait()
        connections = list(state.connections.values())
        names = {name for one in connections for name in one.stream_names}
        settled_at = state.subscribed_at + state.config.settle_s
        if connections and all(one.stream_names for one in connections) and expected <= names:
            if trio.current_time() >= settled_at:
                return
            with trio.move_on_at(settled_at):
                await state.changed()
        else:
            with trio.move_on_after(_PATIENCE_S) as patience:
                await state.changed()
            if patience.cancelled_caught:
                if connections:
                    _say_what_is_awaited(expected - names)
                await state.changed()


def _say_what_is_awaited(missing: set[str]) -> None:
    what = ", ".join(sorted(missing)) or "a subscription of every connection"
    print(f"[REPLAY] waits for {what}", file=sys.stderr, flush=True)


class _Replay:
    """Who hears which recorded stream, brought up to date when that changes."""

    def __init__(self, state: VenueState, recording: Recording) -> None:
        self._state = state
        self._recording = recording
        self._listeners: dict[bytes, list[_Listener]] = {}
        self._version = -1
        self._recorded = [(name, split_recorded(name)) for name in recording.counts]
        self._warned: set[str] = set()

    def send(self, stream: bytes, body: bytes) -> None:
        """Queue a recorded message on every connection that hears its stream, under that one's name of it."""
        state = self._state
        if self._version != state.version:
            self._update()
        listeners = self._listeners.get(stream)
        if not listeners:
            return
        stream_id = recorded_id(body) if state.sent.wants_ids else None
        fragmented = trio.current_time() < state.standing.fragment_until
        for connection, key, name, head, tail in listeners:
            if fragmented or connection.tampering:
                connection.send(key, name, body, stream_id)
            else:
                connection.send_frame(text_frame(head + body + tail), name, stream_id)

    async def room(self, most_bytes: int) -> None:
        """Wait until no connection has more queued than this."""
        for connection in list(self._state.connections.values()):
            await connection.room(most_bytes)

    def _update(self) -> None:
        self._listeners = {}
        self._version = self._state.version
        for key, audience in self._state.audiences().items():
            names = [name for name, pair in self._recorded if pair == key.recorded_as]
            if not names:
                self._warn(key, audience[0][1])
            for recorded in names:
                listeners = self._listeners.setdefault(recorded.encode(), [])
                for connection, name in audience:
                    combined = connection.combined
                    head = b'{"stream":"%b","data":' % name.encode() if combined else b""
                    listeners.append((connection, key, name, head, b"}" if combined else b""))

    def _warn(self, key: StreamKey, name: str) -> None:
        if name in self._warned:
            return
        self._warned.add(name)
        symbol = key.symbol or ""
        kinds = ", ".join(self._recording.kinds_of(symbol))
        what = f"it has {kinds} for {symbol}" if kinds else f"it has {', '.join(self._recording.counts)}"
        print(
            f"[REPLAY] {name} is not in the recording and stays silent: {what}", file=sys.stderr, flush=True
        )
