"""The main job, end to end: the program against the simulated venue, with its faults."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.program import chain_holes, command, environment, harvest, rows

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
SYMBOLS = ("BTCUSDT", "ETHUSDT")
RUN = ("run", "--symbols", ",".join(SYMBOLS), "--simulate", "--data", "data", "--no-live")
KINDS = ("prices", "depth", "orderbook", "ofi", "cvd")


def verified(tmp_path: Path, exit_code: int) -> dict[str, Any]:
    """Verify the data of a test, and return what was found."""
    done = harvest("verify", "data", "--json", cwd=tmp_path)
    report: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode, report["damage"]) == (exit_code, []), done.stdout
    return report


def ids_of(root: Path, symbol: str) -> list[int]:
    return [row["trade_id"] for row in rows(root, "prices", symbol=symbol)]


@pytest.mark.parametrize("venue", ["binance-usdm", "binance-spot"])
def test_a_simulated_run_stores_every_kind_under_a_name_that_cannot_pass_for_real(venue, tmp_path):
    done = harvest(*RUN, "--venue", venue, "--hours", "0.001", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "[TRADE] connecting: 2 symbols" in done.stderr
    assert "[ORDERBOOK] connecting: 2 symbols" in done.stderr
    for kind in KINDS:
        stored = rows(tmp_path / "data", kind)
        assert {row["venue"] for row in stored} == {f"simulated-{venue}"}
        assert {row["symbol"] for row in stored} == set(SYMBOLS)
    for symbol in SYMBOLS:
        ids = ids_of(tmp_path / "data", symbol)
        assert ids == list(range(ids[0], ids[-1] + 1))
        assert not any(row["suspect"] for row in rows(tmp_path / "data", "orderbook", symbol=symbol))
    assert not list((tmp_path / "data").rglob(".*"))
    # The summary counts what is in the files.
    for symbol in SYMBOLS:
        counts = [len(rows(tmp_path / "data", kind, symbol=symbol)) for kind in KINDS]
        cells = r"\s*│\s*".join(f"{count:,}" for count in counts)
        assert re.search(rf"{symbol}\s*│\s*{cells}\s*│", done.stdout), done.stdout


def test_a_stalled_trade_stream_is_back_in_time_and_no_book_message_is_lost_or_late(tmp_path):
    done = harvest(
        *RUN, "--fault", "stall trades at 2s", "--hours", "0.003", cwd=tmp_path, STREAM_IDLE_SEC="3"
    )
    assert done.returncode == 0, done.stderr
    assert "[TRADE] no message for 3s, reconnecting" in done.stderr
    assert "[ORDERBOOK] no message" not in done.stderr
    root = tmp_path / "data"
    times_ns = sorted(row["recv_ns"] for row in rows(root, "prices"))
    assert max(after - before for before, after in pairwise(times_ns)) < (3 + 1) * 10**9
    for symbol in SYMBOLS:
        # The break is a row, and REST has closed it: not one id is missing, and none is there twice.
        (found,) = rows(root, "breaks", symbol=symbol)
        assert (found["feed"], found["reason"]) == ("trade", "stall")
        ids = sorted(ids_of(root, symbol))
        assert ids == list(range(ids[0], ids[-1] + 1))
        fetched = [row["trade_id"] for row in rows(root, "prices", symbol=symbol) if row["source"] == "rest"]
        assert fetched == list(range(found["from_id"], found["to_id"] + 1))
        diffs = [row for row in rows(root, "depth", symbol=symbol) if row["source"] == "ws"]
        assert chain_holes(diffs) == []
        latest_ns = [row["recv_ns"] for row in diffs]
        assert max(after - before for before, after in pairwise(latest_ns)) < 10**9
    assert verified(tmp_path, 0)["complete"]


def test_a_stalled_orderbook_stream_does_not_disturb_the_trades(tmp_path):
    done = harvest(
        *RUN, "--fault", "stall orderbook at 1s", "--hours", "0.002", cwd=tmp_path, STREAM_IDLE_SEC="3"
    )
    assert done.returncode == 0, done.stderr
    assert "[ORDERBOOK] no message for 3s, reconnecting" in done.stderr
    assert "[TRADE] no message" not in done.stderr
    root = tmp_path / "data"
    for symbol in SYMBOLS:
        ids = ids_of(root, symbol)
        assert ids == list(range(ids[0], ids[-1] + 1))
        diffs = [row for row in rows(root, "depth", symbol=symbol) if row["source"] == "ws"]
        (found,) = rows(root, "breaks", symbol=symbol)
        assert (found["feed"], found["reason"]) == ("orderbook", "stall")
        assert chain_holes(diffs) == [(found["from_id"], found["to_id"])]
        tops = rows(root, "orderbook", symbol=symbol)
        assert not tops[-1]["suspect"]
        # A stale book may cross, and says that it is not to be trusted.
        assert not any(row["bid_px_0"] >= row["ask_px_0"] for row in tops if not row["suspect"])
    missing = {
        one["symbol"]: one["missing"] for one in verified(tmp_path, 1)["series"] if one["kind"] == "depth"
    }
    assert [[gap["why"] for gap in missing[symbol]] for symbol in SYMBOLS] == [["stall"], ["stall"]]


def test_two_sockets_leave_no_hole_when_one_breaks_and_when_all_are_handed_over(tmp_path):
    done = harvest(
        *RUN,
        *("--connections", "2", "--hours", "0.0025"),
        *(
            "--fault",
            "cut trades at 2s on one",
            "--fault",
            "cut orderbook at 3s on one",
            "--fault",
            "shutdown at 5s",
        ),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "[TRADE] connection error" in done.stderr
    assert "[ORDERBOOK] connection error" in done.stderr
    assert done.stderr.count("handed over to a new connection") == 4
    root = tmp_path / "data"
    assert rows(root, "breaks") == []
    for symbol in SYMBOLS:
        ids = ids_of(root, symbol)
        assert ids == list(range(ids[0], ids[-1] + 1))
        diffs = [row for row in rows(root, "depth", symbol=symbol) if row["source"] == "ws"]
        assert chain_holes(diffs) == []
        assert not any(row["suspect"] for row in rows(root, "orderbook", symbol=symbol))
    assert verified(tmp_path, 0)["complete"]


def test_one_socket_is_handed_over_without_a_hole(tmp_path):
    done = harvest(*RUN, "--hours", "0.0022", cwd=tmp_path, HARVEST_HANDOVER_SEC="3")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("handed over to a new connection") >= 2
    root = tmp_path / "data"
    assert rows(root, "breaks") == []
    for symbol in SYMBOLS:
        ids = ids_of(root, symbol)
        assert ids == list(range(ids[0], ids[-1] + 1))
        diffs = [row for row in rows(root, "depth", symbol=symbol) if row["source"] == "ws"]
        assert chain_holes(diffs) == []


def test_a_route_that_acknowledges_and_stays_silent_is_named_as_the_suspect(tmp_path):
    done = harvest(
        *RUN, "--fault", "mute route market at 0s", "--hours", "0.0012", cwd=tmp_path, STREAM_IDLE_SEC="3"
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "acknowledged, but silent" in line][:1]
    assert "[TRADE]" in line
    assert "the wrong route" in line
    assert "btcusdt@aggTrade" in line
    assert "/market/stream" in line
    assert rows(tmp_path / "data", "prices") == []
    assert rows(tmp_path / "data", "depth")


def test_a_second_run_goes_on_where_the_first_one_ended(tmp_path):
    for _ in range(2):
        done = harvest(*RUN, "--hours", "0.0012", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    root = tmp_path / "data"
    for kind in KINDS:
        stored = rows(root, kind, symbol="BTCUSDT")
        files = list((root / kind).rglob("*.parquet"))
        runs = sorted({path.name.partition("-")[0] for path in files})
        assert len(runs) == 2
        spans = {
            run: [tuple(map(int, p.stem.split("-")[1:])) for p in files if p.name.startswith(run)]
            for run in runs
        }
        assert max(last for _, last in spans[runs[0]]) < min(first for first, _ in spans[runs[1]])
        assert len(stored) == len(
            {
                (row["seq"], row.get("trade_id"), row.get("update_id"), row.get("last_update_id"))
                for row in stored
            }
        )
    for symbol in SYMBOLS:
        # What was traded while nobody ran has been fetched.
        ids = sorted(ids_of(root, symbol))
        assert ids == list(range(ids[0], ids[-1] + 1))
        assert [row["reason"] for row in rows(root, "breaks", symbol=symbol)] == ["downtime"]
        dates: dict[object, float] = {}
        for row in rows(root, "cvd", symbol=symbol):
            total = dates.get(row["date"], 0.0) + row["delta"]
            assert row["cvd"] == pytest.approx(total, abs=1e-9)
            dates[row["date"]] = row["cvd"]


def test_other_trade_ids_are_refused_by_a_directory_that_holds_some(tmp_path):
    assert harvest(*RUN, "--hours", "0.0006", cwd=tmp_path).returncode == 0
    done = harvest(*RUN, "--hours", "0.0006", "--trade-event", "trade", cwd=tmp_path)
    assert done.returncode == 2
    assert "holds aggregate trade ids, and this run would add raw ones" in done.stderr


def test_an_unknown_symbol_is_refused_with_what_was_probably_meant(tmp_path):
    done = harvest("run", "--symbols", "BTCUSD", "--simulate", "--no-live", cwd=tmp_path)
    assert done.returncode == 2
    assert "BTCUSD (did you mean BTCUSDT" in done.stderr
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["_lock"]


def test_without_a_network_it_names_the_host_keeps_trying_and_says_how_to_simulate(tmp_path):
    done = harvest(
        *("run", "--symbols", "BTCUSDT", "--no-live", "--hours", "0.0006"),
        cwd=tmp_path,
        HARVEST_REST_URL="http://127.0.0.1:9",
        HARVEST_WS_URL="ws://127.0.0.1:9",
    )
    assert done.returncode == 0, done.stderr
    assert "cannot reach 127.0.0.1:9" in done.stderr
    assert "keeps trying" in done.stderr
    assert "--simulate" in done.stderr
    assert done.stderr.count("[TRADE] connection error: 127.0.0.1:9/market/stream") >= 2
    assert done.stderr.count("[ORDERBOOK] connection error") >= 2


def test_the_log_as_json_has_one_object_a_line(tmp_path):
    done = harvest(*RUN, "--hours", "0.0006", "--log-format", "json", cwd=tmp_path)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"event", "level", "timestamp"} <= set(lines[0])
    assert any(line.get("tag") == "TRADE" and line.get("symbols") == 2 for line in lines)


def start(tmp_path: Path, *more: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*RUN, *more),
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"the program ended without saying {text!r}")


def test_sigterm_ends_the_capture_and_everything_received_is_written(tmp_path):
    with start(tmp_path) as process:
        wait_for(process, "[TRADE] receiving")
        wait_for_rows = time.monotonic() + 1.5
        while time.monotonic() < wait_for_rows:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=40)
    assert process.returncode == 0, err
    assert "SIGTERM: ending the capture" in err
    assert "NOT WRITTEN" not in out
    for symbol in SYMBOLS:
        ids = ids_of(tmp_path / "data", symbol)
        assert ids
        assert ids == list(range(ids[0], ids[-1] + 1))


def no_file_may_grow() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def test_a_second_signal_ends_at_once_with_130_and_names_what_was_not_written(tmp_path):
    with start(tmp_path, preexec_fn=no_file_may_grow) as process:
        wait_for(process, "[ORDERBOOK] receiving")
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        wait_for(process, "[FLUSH] cannot write")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert re.search(r"NOT WRITTEN: [\d,]+ rows of depth BTCUSDT, seq \d+ to \d+", out), out
    assert not list((tmp_path / "data").rglob("*.parquet"))


def test_a_full_disk_is_said_at_once_and_the_deadline_of_the_drain_names_the_rest(tmp_path):
    done = subprocess.run(
        command(*RUN, "--hours", "0.0006"),
        cwd=tmp_path,
        env=environment(HARVEST_DRAIN_TIMEOUT_SEC="1"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
        preexec_fn=no_file_may_grow,
    )
    assert "[FLUSH] cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert "the writer did not finish within 1s" in done.stderr
    assert "NOT WRITTEN" in done.stdout
    assert done.returncode == 1
