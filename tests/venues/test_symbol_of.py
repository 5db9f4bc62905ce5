"""Which symbol a message is of, told at a glance: never another one than decoding tells."""

from __future__ import annotations

import pytest

from harvest.venues import VENUES
from tests.pipeline.wire import PAYLOADS, diff, payload, trade

NAMES = sorted(VENUES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("event", ["aggTrade", "trade", "depthUpdate"])
def test_a_captured_message_tells_its_symbol(name: str, event: str) -> None:
    assert (PAYLOADS / name.replace("-", "_")).is_dir()
    frame = payload(name, event)
    assert VENUES[name].symbol_of(frame) == VENUES[name].decode(frame).symbol


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b'{"result":null,"id":1}',
        b'{"data":{"s":"BTC',
        b'{"data":{"s": "BTCUSDT"}}',
        b'{"data":{"s":"BTC\\u0055SDT"}}',
        b'{"data":{"s":"BTCUSDT","s":"ETHUSDT"}}',
        trade(1, symbol="牛来USDT"),
    ],
)
def test_what_is_not_plain_is_left_to_the_decoder(name: str, frame: bytes) -> None:
    assert VENUES[name].symbol_of(frame) is None


def test_levels_do_not_matter() -> None:
    frame = diff(1, 2, 0, bids=[(1.0, 2.0)] * 500, symbol="ETHUSDT")
    assert VENUES["binance-usdm"].symbol_of(frame) == "ETHUSDT"
