"""How the venue is reached, watched and asked."""

from __future__ import annotations

import attrs

from harvest.settings.fields import GIB, KIB, MIB, duration, setting


def _without_slash(url: str | None) -> str | None:
    return url.rstrip("/") if url else url


@attrs.frozen
class StreamSettings:
    """How connections are made, watched and made anew."""

    idle_s: float = duration(
        120.0, "STREAM_IDLE_SEC", "a stream without data for this long is connected anew"
    )
    backoff_reset_s: float = duration(
        300.0, "BACKOFF_RESET_SECS", "a connection that lived this long makes the next backoff short again"
    )
    backoff_initial_s: float = duration(
        1.0, "HARVEST_BACKOFF_INITIAL_SEC", "the first wait between two tries"
    )
    backoff_max_s: float = duration(60.0, "HARVEST_BACKOFF_MAX_SEC", "the longest wait between two tries")
    ping_interval_s: float = duration(
        20.0, "WSS_PING_INTERVAL", "between two pings of ours; 0 sends none", min=0
    )
    ping_timeout_s: float = duration(
        10.0, "HARVEST_PING_TIMEOUT_SEC", "how long a pong may take, from what the venue sent last on"
    )
    connect_timeout_s: float = duration(
        10.0, "HARVEST_CONNECT_TIMEOUT_SEC", "name, TCP, TLS and WebSocket handshake together"
    )
    close_timeout_s: float = duration(2.0, "HARVEST_CLOSE_TIMEOUT_SEC", "how long a close may take")
    first_message_s: float = duration(
        10.0,
        "HARVEST_FIRST_MESSAGE_SEC",
        "a stream acknowledged, but silent for this long: the log names the cause it suspects",
    )
    handover_s: float = duration(
        82_800.0,
        "HARVEST_HANDOVER_SEC",
        "a connection of this age is handed over to a new one; Binance ends them after 24 hours",
    )
    connections: int = setting(
        1,
        "HARVEST_CONNECTIONS",
        "sockets on the same streams; with 2 a break of one leaves no hole",
        unit="sockets",
        min=1,
        max=8,
        flag="--connections",
    )
    max_streams: int | None = setting(
        None,
        "HARVEST_MAX_STREAMS",
        "streams a connection",
        unit="streams",
        min=1,
        max=1024,
        none="the venue's",
    )
    max_message_bytes: int = setting(
        16 * MIB,
        "HARVEST_MAX_MESSAGE_BYTES",
        "the largest message that is taken",
        unit="bytes",
        min=64 * KIB,
        max=GIB,
    )
    receive_bytes: int = setting(
        256 * KIB, "HARVEST_RECEIVE_BYTES", "how much is read at once", unit="bytes", min=KIB, max=16 * MIB
    )
    coalesce_ms: float = setting(
        0.0,
        "HARVEST_COALESCE_MS",
        "the rest between two reads of a stream that brings a little often: less load, and receive times later by up to so much",
        unit="milliseconds",
        min=0,
        max=100,
    )
    ws_url: str | None = setting(
        None,
        "HARVEST_WS_URL",
        "where streams are, for a local or mirrored venue",
        converter=_without_slash,
        none="the venue's",
    )
    allow_insecure: bool = setting(
        False, "HARVEST_ALLOW_INSECURE", "allow ws:// and http:// to other hosts than this one"
    )


@attrs.frozen
class RestSettings:
    """How the venue's REST host is asked."""

    url: str | None = setting(
        None,
        "HARVEST_REST_URL",
        "where REST is, for a local or mirrored venue",
        converter=_without_slash,
        none="the venue's",
    )
    timeout_s: float = duration(10.0, "HARVEST_REST_TIMEOUT_SEC", "how long an answer may take")
    weight_share: float = setting(
        0.5, "HARVEST_WEIGHT_SHARE", "the share of the venue's request weight that is used", above=0, max=1
    )
    instruments_s: float = duration(
        3600.0,
        "HARVEST_INSTRUMENTS_SEC",
        "between two looks at the venue's list of instruments, for what was delisted or halted",
    )
    retry_initial_s: float = duration(
        1.0, "HARVEST_REST_RETRY_INITIAL_SEC", "the first wait after a failed request"
    )
    retry_max_s: float = duration(
        60.0, "HARVEST_REST_RETRY_MAX_SEC", "the longest wait after a failed request"
    )


@attrs.frozen
class HealthSettings:
    """When silence is worth a warning."""

    interval_s: float = duration(25.0, "HEALTH_CHECK_INTERVAL", "between two looks at the streams")
    trade_timeout_s: float = duration(
        150.0, "TRADE_TIMEOUT", "a symbol without a trade for this long is warned of"
    )
    orderbook_timeout_s: float = duration(
        180.0, "ORDERBOOK_TIMEOUT", "a symbol without a book update for this long is warned of"
    )
    channel_timeout_s: float = duration(
        180.0,
        "HARVEST_CHANNEL_TIMEOUT_SEC",
        "a symbol without a message of another channel for this long is warned of; liquidations never are",
    )
