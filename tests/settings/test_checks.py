from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvest.settings.checks import find_symbol_fault

if TYPE_CHECKING:
    from tests.settings.conftest import Asker


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        (
            {"HARVEST_MIN_ROWS_PER_FILE": "5000", "HARVEST_JOURNAL": "false"},
            "$HARVEST_MIN_ROWS_PER_FILE: rotation.min_rows_per_file (5000 rows, $HARVEST_MIN_ROWS_PER_FILE) lets rows wait "
            "in memory for up to an hour, and no journal holds them meanwhile. Turn the journal on, or give 0.",
        ),
        (
            {"STREAM_IDLE_SEC": "150"},
            "$STREAM_IDLE_SEC: streams.idle_s (150 s, $STREAM_IDLE_SEC) is not below health.trade_timeout_s "
            "(150 s, default): health would warn before the stream is connected anew. "
            "Lower streams.idle_s ($STREAM_IDLE_SEC) or raise health.trade_timeout_s ($TRADE_TIMEOUT).",
        ),
        (
            {"ORDERBOOK_TIMEOUT": "100.5"},
            "$ORDERBOOK_TIMEOUT: streams.idle_s (120 s, default) is not below health.orderbook_timeout_s "
            "(100.5 s, $ORDERBOOK_TIMEOUT): health would warn before the stream is connected anew. "
            "Lower streams.idle_s ($STREAM_IDLE_SEC) or raise health.orderbook_timeout_s ($ORDERBOOK_TIMEOUT).",
        ),
        (
            {"HEALTH_CHECK_INTERVAL": "160"},
            "$HEALTH_CHECK_INTERVAL: health.interval_s (160 s, $HEALTH_CHECK_INTERVAL) is not below "
            "health.trade_timeout_s (150 s, default): health would look too seldom to tell in time. "
            "Lower health.interval_s ($HEALTH_CHECK_INTERVAL) or raise health.trade_timeout_s ($TRADE_TIMEOUT).",
        ),
        (
            {"HEALTH_CHECK_INTERVAL": "180", "TRADE_TIMEOUT": "200"},
            "$HEALTH_CHECK_INTERVAL: health.interval_s (180 s, $HEALTH_CHECK_INTERVAL) is not below "
            "health.orderbook_timeout_s (180 s, default): health would look too seldom to tell in time. "
            "Lower health.interval_s ($HEALTH_CHECK_INTERVAL) or raise health.orderbook_timeout_s "
            "($ORDERBOOK_TIMEOUT).",
        ),
        (
            {"EXTREME_ROTATE_SEC": "60"},
            "$EXTREME_ROTATE_SEC: rotation.extreme_rotate_s (60 s, $EXTREME_ROTATE_SEC) is not below "
            "rotation.rotate_s (60 s, default): extreme traffic would not be written sooner. "
            "Lower rotation.extreme_rotate_s ($EXTREME_ROTATE_SEC) or raise rotation.rotate_s "
            "($PARQUET_ROTATE_SEC).",
        ),
        (
            {"MAX_ROWS_PER_FILE": "30000"},
            "$MAX_ROWS_PER_FILE: rotation.extreme_threshold_rows (30000 rows, default) is not below "
            "rotation.max_rows_per_file (30000 rows, $MAX_ROWS_PER_FILE): buffers would be sealed before extreme "
            "traffic can begin. Lower rotation.extreme_threshold_rows ($EXTREME_TRAFFIC_THRESHOLD) or raise "
            "rotation.max_rows_per_file ($MAX_ROWS_PER_FILE).",
        ),
        (
            {"HARVEST_BACKOFF_MAX_SEC": "0.5"},
            "$HARVEST_BACKOFF_MAX_SEC: streams.backoff_initial_s (1 s, default) is above streams.backoff_max_s "
            "(0.5 s, $HARVEST_BACKOFF_MAX_SEC): the first wait would be longer than the longest. "
            "Lower streams.backoff_initial_s ($HARVEST_BACKOFF_INITIAL_SEC) or raise streams.backoff_max_s "
            "($HARVEST_BACKOFF_MAX_SEC).",
        ),
        (
            {"HARVEST_SAVE_RETRY_INITIAL_SEC": "61"},
            "$HARVEST_SAVE_RETRY_INITIAL_SEC: writer.retry_initial_s (61 s, $HARVEST_SAVE_RETRY_INITIAL_SEC) is "
            "above writer.retry_max_s (5 s, default): the first wait would be longer than the longest. "
            "Lower writer.retry_initial_s ($HARVEST_SAVE_RETRY_INITIAL_SEC) or raise writer.retry_max_s "
            "($HARVEST_SAVE_RETRY_MAX_SEC).",
        ),
        (
            {"HARVEST_REST_RETRY_INITIAL_SEC": "61"},
            "$HARVEST_REST_RETRY_INITIAL_SEC: rest.retry_initial_s (61 s, $HARVEST_REST_RETRY_INITIAL_SEC) is "
            "above rest.retry_max_s (60 s, default): the first wait would be longer than the longest. "
            "Lower rest.retry_initial_s ($HARVEST_REST_RETRY_INITIAL_SEC) or raise rest.retry_max_s "
            "($HARVEST_REST_RETRY_MAX_SEC).",
        ),
        (
            {"HARVEST_BOOK_LEVELS": "20", "HARVEST_SNAPSHOT_LEVELS": "10"},
            "$HARVEST_BOOK_LEVELS: book.levels (20 levels, $HARVEST_BOOK_LEVELS) is above book.snapshot_levels "
            "(10 levels, $HARVEST_SNAPSHOT_LEVELS): a book would begin with fewer levels than are recorded. "
            "Lower book.levels ($HARVEST_BOOK_LEVELS) or raise book.snapshot_levels ($HARVEST_SNAPSHOT_LEVELS).",
        ),
        (
            {"HARVEST_VENUE": "binance-usd"},
            "$HARVEST_VENUE: capture.venue is 'binance-usd', which harvest does not know. "
            "Did you mean binance-usdm? Venues are binance-usdm, binance-spot.",
        ),
        (
            {"HARVEST_VENUE": "kraken"},
            "$HARVEST_VENUE: capture.venue is 'kraken', which harvest does not know. "
            "Venues are binance-usdm, binance-spot.",
        ),
        (
            {"HARVEST_DEPTH_INTERVAL_MS": "1000"},
            "$HARVEST_DEPTH_INTERVAL_MS: capture.depth_interval_ms is 1000 ms, which binance-usdm does not serve. "
            "Give 0, 100, 250 or 500.",
        ),
        (
            {"HARVEST_VENUE": "binance-spot", "HARVEST_DEPTH_INTERVAL_MS": "250"},
            "$HARVEST_DEPTH_INTERVAL_MS: capture.depth_interval_ms is 250 ms, which binance-spot does not serve. "
            "Give 100 or 1000.",
        ),
        (
            {"HARVEST_SNAPSHOT_LEVELS": "400"},
            "$HARVEST_SNAPSHOT_LEVELS: book.snapshot_levels is 400 levels, which binance-usdm does not serve. "
            "Give 5, 10, 20, 50, 100, 500 or 1000.",
        ),
        (
            {"SYMBOLS": "../x"},
            "$SYMBOLS: capture.symbols has '../x', which is not a symbol (it holds '.'). "
            "Give the venue's own, such as BTCUSDT.",
        ),
        (
            {"SYMBOLS": "BTCUSDT,"},
            "$SYMBOLS: capture.symbols has '', which is empty. Give the venue's own, such as BTCUSDT.",
        ),
        (
            {"SYMBOLS": "btc/usdt"},
            "$SYMBOLS: capture.symbols has 'btc/usdt', which is not a symbol (it holds '/'). Did you mean BTCUSDT?",
        ),
        (
            {"SYMBOLS": "A" * 65},
            f"$SYMBOLS: capture.symbols has '{'A' * 65}', which is longer than 64 characters. "
            "Give the venue's own, such as BTCUSDT.",
        ),
        (
            {"SYMBOLS": "BTC\x1bUSDT"},
            "$SYMBOLS: capture.symbols has 'BTC\\x1bUSDT', which is not a symbol (it holds '\\x1b'). "
            "Give the venue's own, such as BTCUSDT.",
        ),
        (
            {"HARVEST_WS_URL": "ws://example.com"},
            "$HARVEST_WS_URL: streams.ws_url is not encrypted (ws:// to example.com). "
            "Use wss://, or set streams.allow_insecure ($HARVEST_ALLOW_INSECURE) to true.",
        ),
        (
            {"HARVEST_REST_URL": "http://10.0.0.1:80/"},
            "$HARVEST_REST_URL: rest.url is not encrypted (http:// to 10.0.0.1). "
            "Use https://, or set streams.allow_insecure ($HARVEST_ALLOW_INSECURE) to true.",
        ),
        (
            {"HARVEST_WS_URL": "https://example.com"},
            "$HARVEST_WS_URL: streams.ws_url is not a URL that begins with wss:// or ws://. "
            "Give a URL such as wss://host.",
        ),
        (
            {"HARVEST_WS_URL": "wss://host:99999"},
            "$HARVEST_WS_URL: streams.ws_url is not a URL (Port out of range 0-65535). "
            "Give a URL such as wss://host.",
        ),
        (
            {"HARVEST_WS_URL": "wss://me:secret@host"},
            "$HARVEST_WS_URL: streams.ws_url holds credentials. Take them out: market data is public.",
        ),
        (
            {"HARVEST_WS_URL": "wss://host/?x=1"},
            "$HARVEST_WS_URL: streams.ws_url has a query or a fragment. "
            "Give the host, and a path if need be: harvest adds the rest.",
        ),
        (
            {"HARVEST_REST_URL": "https://ho st"},
            "$HARVEST_REST_URL: rest.url holds a space or a control character. Give a URL such as https://host.",
        ),
    ],
)
def test_what_cannot_be_run_with_is_one_problem(asker: Asker, environ: dict[str, str], problem: str) -> None:
    assert asker.problem(environ=environ) == problem


@pytest.mark.parametrize(
    "environ",
    [
        {"HARVEST_MIN_ROWS_PER_FILE": "5000"},
        {"STREAM_IDLE_SEC": "149.9"},
        {"HEALTH_CHECK_INTERVAL": "149"},
        {"EXTREME_ROTATE_SEC": "59.9"},
        {"MAX_ROWS_PER_FILE": "30001"},
        {"HARVEST_BACKOFF_INITIAL_SEC": "60"},
        {"HARVEST_BOOK_LEVELS": "50", "HARVEST_SNAPSHOT_LEVELS": "50"},
        {"HARVEST_DEPTH_INTERVAL_MS": "0"},
        {
            "HARVEST_VENUE": "binance-spot",
            "HARVEST_DEPTH_INTERVAL_MS": "1000",
            "HARVEST_SNAPSHOT_LEVELS": "5000",
        },
        {"SYMBOLS": "牛来usdt,BTCUSDT_260327"},
        {"HARVEST_WS_URL": "ws://127.0.0.1:9443/"},
        {"HARVEST_WS_URL": "ws://[::1]:9443", "HARVEST_REST_URL": "http://localhost"},
        {"HARVEST_WS_URL": "ws://example.com", "HARVEST_ALLOW_INSECURE": "true"},
        {"HARVEST_WS_URL": "wss://mirror.example.com/binance"},
    ],
)
def test_what_can_be_run_with_is_none(asker: Asker, environ: dict[str, str]) -> None:
    assert asker.load(environ=environ).warnings == []


def test_the_place_is_that_of_a_value_that_was_given(asker: Asker) -> None:
    assert asker.problem("[health]\n\ntrade_timeout_s = 60\n").startswith(
        "settings.toml:3: streams.idle_s (120 s, default) is not below health.trade_timeout_s (60 s, "
        "settings.toml:3): "
    )


def test_a_profile_may_be_the_place(asker: Asker) -> None:
    problem = asker.problem("[rotation]\nmax_rows_per_file = 25_000\n", profile="conservative")
    assert problem.startswith("profile conservative: rotation.extreme_threshold_rows (30000 rows, profile ")


def test_a_url_is_never_shown_with_its_credentials(asker: Asker) -> None:
    for url in ("ws://me:secret@host", "http://me:secret@host", "ws://me:secret@host:x"):
        assert "secret" not in asker.problem(environ={"HARVEST_WS_URL": url})


def test_a_bad_venue_is_told_once_and_its_limits_are_not_guessed(asker: Asker) -> None:
    environ = {"HARVEST_VENUE": "x", "HARVEST_DEPTH_INTERVAL_MS": "7"}
    assert len(asker.problems(environ=environ)) == 1


def test_each_bad_symbol_is_a_problem_of_its_own(asker: Asker) -> None:
    assert len(asker.problems(flags={"--symbols": "a b,OK,c;d"})) == 2


def test_little_free_space_is_a_warning(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harvest.settings.checks.free_bytes", lambda _: 300 * 1024**2)
    assert asker.load().warnings == [
        "default: capture.output_dir is 'data', where 300 MiB are free, less than writer.min_free_bytes "
        "(1 GiB, default). Make room before the disk is full."
    ]
    assert asker.load(environ={"HARVEST_MIN_FREE_BYTES": "0"}).warnings == []


def test_a_directory_that_cannot_be_made_is_a_problem(asker: Asker) -> None:
    Path("taken").touch()
    assert asker.problem(environ={"OUTPUT_DIR": "taken/ticks"}) == (
        "$OUTPUT_DIR: capture.output_dir is 'taken/ticks', and taken is not a directory. "
        "Give another capture.output_dir ($OUTPUT_DIR)."
    )
    assert asker.problem(flags={"--output-dir": "taken"}) == (
        "--output-dir: capture.output_dir is 'taken', and it is not a directory. "
        "Give another capture.output_dir ($OUTPUT_DIR)."
    )


@given(st.text(max_size=70))
def test_a_symbol_without_fault_is_no_path_and_prints_on_one_line(symbol: str) -> None:
    if find_symbol_fault(symbol) is None:
        assert Path(symbol).name == symbol
        assert not set(symbol) & set("/\\.@,=?&#% \n")
        assert symbol.isprintable()
        assert 0 < len(symbol) <= 64
