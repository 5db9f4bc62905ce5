from __future__ import annotations

from types import SimpleNamespace

import pytest
import structlog
import trio

from harvest.metrics import Metrics
from harvest.nurseries.health import Health

SETTINGS = SimpleNamespace(
    interval_s=25.0, trade_timeout_s=150.0, orderbook_timeout_s=180.0, channel_timeout_s=100.0
)


def now_ns() -> int:
    return round(trio.current_time() * 1e9)


@pytest.fixture
def lines():
    with structlog.testing.capture_logs() as captured:
        yield captured


async def test_each_feed_is_judged_by_its_own_stamp_and_its_own_timeout(autojump_clock, lines):
    metrics = Metrics()
    metrics.feed("trade", "BTCUSDT").last_mono_ns = 0
    metrics.feed("orderbook", "BTCUSDT").last_mono_ns = 0
    metrics.feed("trade", "ETHUSDT").last_mono_ns = 100 * 10**9
    health = Health(metrics, SETTINGS, now_ns)
    with trio.move_on_after(176):
        await health.run()
    assert [line["event"] for line in lines] == ["BTCUSDT trade stream silent for 175.0s"]
    assert lines[0]["tag"] == "HEALTH.TRADE"
    assert health.silent == {("trade", "BTCUSDT")}
    with trio.move_on_after(25.5):
        await health.run()
    assert [(line["tag"], line["event"]) for line in lines[1:]] == [
        ("HEALTH.TRADE", "BTCUSDT trade stream silent for 201.0s"),
        ("HEALTH.OB", "BTCUSDT orderbook stream silent for 201.0s"),
    ]


async def test_a_feed_that_never_came_is_as_old_as_the_run(autojump_clock, lines):
    metrics = Metrics()
    metrics.feed("orderbook", "ETHUSDT")
    await trio.sleep(1000)
    health = Health(metrics, SETTINGS, now_ns)
    with trio.move_on_after(201):
        await health.run()
    assert [line["event"] for line in lines] == ["ETHUSDT orderbook stream silent for 200.0s"]


async def test_a_feed_that_has_come_back_is_said_once(autojump_clock, lines):
    metrics = Metrics()
    stats = metrics.feed("trade", "BTCUSDT")
    health = Health(metrics, SETTINGS, now_ns)
    await trio.sleep(151)
    health.check()
    stats.last_mono_ns = now_ns()
    health.check()
    health.check()
    assert [line["event"] for line in lines] == [
        "BTCUSDT trade stream silent for 151.0s",
        "BTCUSDT trade stream is back",
    ]


async def test_the_check_comes_at_its_own_interval(autojump_clock, lines):
    metrics = Metrics()
    metrics.feed("trade", "BTCUSDT")
    health = Health(
        metrics, SimpleNamespace(interval_s=5.0, trade_timeout_s=15.0, orderbook_timeout_s=20.0), now_ns
    )
    with trio.move_on_after(31):
        await health.run()
    assert [line["silent_s"] for line in lines] == [20.0, 25.0, 30.0]


async def test_channels_have_a_timeout_of_their_own_and_liquidations_may_be_silent_for_ever(
    autojump_clock, lines
):
    metrics = Metrics()
    for feed in ("bbo", "liquidations", "trade"):
        metrics.feed(feed, "BTCUSDT").last_mono_ns = 0
    health = Health(metrics, SETTINGS, now_ns)
    with trio.move_on_after(126):
        await health.run()
    assert [(line["tag"], line["event"]) for line in lines] == [
        ("HEALTH.CHANNEL.BBO", "BTCUSDT bbo stream silent for 125.0s")
    ]
    with trio.move_on_after(10_000):
        await health.run()
    assert {feed for feed, _ in health.silent} == {"bbo", "trade"}


async def test_a_halted_symbol_is_said_to_be_halted_and_is_no_cause_for_a_warning(autojump_clock, lines):
    metrics = Metrics()
    metrics.feed("trade", "BTCUSDT").halted = True
    health = Health(metrics, SETTINGS, now_ns)
    await trio.sleep(200)
    health.check()
    assert [(line["log_level"], line["event"]) for line in lines] == [
        ("info", "BTCUSDT trade stream silent for 200.0s: halted by the venue")
    ]
    assert health.silent == set()


async def test_a_symbol_that_is_added_later_has_its_time_and_a_removed_one_is_nobodys_worry(
    autojump_clock, lines
):
    metrics = Metrics()
    health = Health(metrics, SETTINGS, now_ns)
    await trio.sleep(1000)
    metrics.begin("ETHUSDT", 0, now_ns())
    await trio.sleep(150)
    health.check()
    assert lines == []
    await trio.sleep(1)
    health.check()
    assert health.silent == {("trade", "ETHUSDT")}
    metrics.set_aside("ETHUSDT")
    await trio.sleep(1000)
    health.check()
    assert len(lines) == 1
    assert health.silent == set()
