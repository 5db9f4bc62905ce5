"""The other channels, end to end: the program against the simulated venue, and then ``verify``."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.program import RECORDINGS, ROOT, harvest, rows

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
SYMBOLS = ("BTCUSDT", "ETHUSDT")
RUN = ("run", "--symbols", ",".join(SYMBOLS), "--simulate", "--data", "data", "--no-live")
STREAMED = ("bbo", "mark", "partial_depth")
ALL = (*STREAMED, "liquidations", "open_interest")


def verified(tmp_path: Path, exit_code: int) -> dict[tuple[str, str], dict[str, Any]]:
    """Verify the data of a test; returns the series by kind and symbol."""
    done = harvest("verify", "data", "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert (done.returncode, report["damage"]) == (exit_code, []), done.stdout
    return {(one["kind"], one["symbol"]): one for one in report["series"]}


def test_all_channels_of_usdm_are_recorded_and_a_stall_of_some_touches_no_other(tmp_path):
    done = harvest(
        *RUN,
        *("--channels", ",".join(ALL), "--fault", "stall channels at 3s", "--hours", "0.004"),
        cwd=tmp_path,
        STREAM_IDLE_SEC="3",
        HARVEST_OPEN_INTEREST_SEC="2",
    )
    assert done.returncode == 0, done.stderr
    for channel in ("BBO", "MARK", "LIQUIDATIONS", "PARTIAL_DEPTH"):
        assert f"[CHANNEL][{channel}] connecting: 2 symbols" in done.stderr
    assert "[CHANNEL][MARK] no message for 3s, reconnecting" in done.stderr
    assert "[CHANNEL][LIQUIDATIONS] no message for 3s, reconnecting" in done.stderr
    assert "[CHANNEL][BBO] silent for" in done.stderr
    assert not re.search(r"\[(TRADE|ORDERBOOK|CHANNEL\]\[PARTIAL_DEPTH)\] .*(no message|silent)", done.stderr)
    found = verified(tmp_path, exit_code=1)
    for symbol in SYMBOLS:
        for kind in (*STREAMED, "open_interest"):
            assert found[kind, symbol]["rows"] == len(rows(tmp_path / "data", kind, symbol=symbol)) > 3
        assert [one["why"] for one in found["mark", symbol]["uncovered"]] == ["stall"]
        assert found["partial_depth", symbol]["uncovered"] == []
        assert found["open_interest", symbol]["uncovered"] == []
        for kind in ("prices", "depth"):
            assert found[kind, symbol]["missing"] == []
    reasons = {(row["feed"], row["reason"]) for row in rows(tmp_path / "data", "breaks")}
    assert (
        {("mark", "stall"), ("liquidations", "stall")}
        <= reasons
        <= {
            *((feed, "stall") for feed in ("mark", "liquidations", "bbo")),
        }
    )


def test_spot_has_best_quotes_and_partial_depth_over_two_sockets(tmp_path):
    done = harvest(
        *RUN,
        *(
            "--venue",
            "binance-spot",
            "--channels",
            "bbo,partial_depth",
            "--connections",
            "2",
            "--hours",
            "0.0015",
        ),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = verified(tmp_path, exit_code=0)
    for symbol in SYMBOLS:
        for kind in ("bbo", "partial_depth"):
            stored = rows(tmp_path / "data", kind, symbol=symbol)
            ids = [row["update_id"] for row in stored]
            assert ids == sorted(set(ids))
            assert len(ids) == found[kind, symbol]["rows"] > 5
            assert {row["event_time"] for row in stored} == {None}
    duckdb = pytest.importorskip("duckdb")
    (line,) = re.findall(r"```sql\n(.*?)\n```", (ROOT / "docs" / "data.md").read_text("utf-8"), re.DOTALL)
    spreads = dict(duckdb.sql(line.replace("data/", f"{tmp_path}/data/")).fetchall())
    assert set(spreads) == set(SYMBOLS)
    assert all(spread > 0 for spread in spreads.values())


def test_a_channel_that_the_venue_does_not_have_is_refused(tmp_path):
    done = harvest(*RUN, "--venue", "binance-spot", "--channels", "mark", cwd=tmp_path)
    assert done.returncode == 2
    assert (
        "channels.record has mark, which binance-spot does not have. Give bbo or partial_depth."
        in done.stderr
    )


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the shared recordings are not beside this checkout")
def test_a_replay_serves_the_best_quotes_of_a_recording_and_all_of_them_are_stored(tmp_path):
    recording = RECORDINGS / "usdm__btcusdt_20240718.gz"
    run = ("run", "--symbols", "BTCUSDT", "--simulate", "--replay", recording, "--speed", "max", "--no-live")
    done = harvest(
        *run, "--trade-event", "trade", "--depth-interval-ms", "0", "--channels", "bbo", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert verified(tmp_path, exit_code=0)["bbo", "BTCUSDT"]["rows"] == 7_113
