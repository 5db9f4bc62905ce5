"""The commands that need no run: check-config, ingest, simulate, help."""

from __future__ import annotations

import json

import pytest

from harvest import __version__
from tests.program import RECORDINGS, harvest, rows

FIRST = "1721347021434994132"


def write_recording(path, symbol="BTCUSDT", first_id=100, count=5):
    lower = symbol.lower()
    lines = [
        f'{int(FIRST) + number} {{"stream":"{lower}@trade","data":{{"e":"trade","E":1721347022956,"T":1721347022956,'
        f'"s":"{symbol}","t":{first_id + number},"p":"63943.90","q":"0.003","X":"MARKET","m":true}}}}\n'
        for number in range(count)
    ]
    path.write_text("".join(lines))
    return path


def test_check_config_prints_every_value_and_where_it_came_from(tmp_path):
    (tmp_path / "settings.toml").write_text("[health]\norderbook_timeout_s = 170\n")
    done = harvest("check-config", "--symbols", "SOLUSDT", cwd=tmp_path, TRADE_TIMEOUT="140")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert "settings.toml:2" in lines["orderbook_timeout_s"]
    assert "$TRADE_TIMEOUT" in lines["trade_timeout_s"]
    assert "140 s" in lines["trade_timeout_s"]
    assert "--symbols" in lines["symbols"]
    assert "default" in lines["save_concurrency"]


def test_check_config_prints_all_problems_at_once_and_exits_with_2(tmp_path):
    (tmp_path / "settings.toml").write_text("[streams]\nidle = 5\n[rotation]\nextreme_rotate_s = 60\n")
    done = harvest("check-config", "--symbols", "../x", cwd=tmp_path, STREAM_IDLE_SEC="200")
    assert done.returncode == 2
    assert done.stdout == ""
    for place in ("settings.toml:2", "settings.toml:4", "--symbols", "$STREAM_IDLE_SEC"):
        assert place in done.stderr
    assert "did you mean" in done.stderr.lower()


def test_run_makes_the_same_checks_first(tmp_path):
    done = harvest("run", "--simulate", cwd=tmp_path, STREAM_IDLE_SEC="200")
    assert done.returncode == 2
    assert "$STREAM_IDLE_SEC" in done.stderr
    assert not (tmp_path / "data").exists()


def test_check_config_for_machines(tmp_path):
    done = harvest("check-config", "--json", "--profile", "aggressive", cwd=tmp_path)
    facts = json.loads(done.stdout)
    assert facts["ok"]
    assert facts["settings"]["streams"]["idle_s"]["value"] == 60
    assert "aggressive" in facts["settings"]["streams"]["idle_s"]["origin"]
    refused = harvest("check-config", "--json", cwd=tmp_path, TRADE_TIMEOUT="soon")
    assert refused.returncode == 2
    assert not json.loads(refused.stdout)["ok"]


def test_ingest_stores_once_and_refuses_the_same_input_again(tmp_path):
    recording = write_recording(tmp_path / "a.txt")
    arguments = ("ingest", recording, "--venue", "binance-usdm", "--data", tmp_path / "data")
    done = harvest(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [row["trade_id"] for row in rows(tmp_path / "data", "prices")] == [100, 101, 102, 103, 104]
    again = harvest(*arguments, cwd=tmp_path)
    assert again.returncode == 2
    assert "holds these recordings already" in again.stderr
    assert len(rows(tmp_path / "data", "prices")) == 5


@pytest.mark.parametrize(("content", "why"), [("hello\n", "no 19-digit receive time"), ("", "it is empty")])
def test_ingest_of_what_is_no_recording_says_so_with_its_line(content, why, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(content)
    done = harvest("ingest", path, "--venue", "binance-usdm", "--data", tmp_path / "data", cwd=tmp_path)
    assert done.returncode == 2
    assert f"{path}:" in done.stderr
    assert why in done.stderr
    assert [one.name for one in (tmp_path / "data").iterdir()] == ["_lock"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--fault", "stall trades at 5s"), "add --simulate"),
        (("run", "--simulate", "--speed", "0"), "--speed 0"),
        (("run", "--simulate", "--speed", "max"), "replay"),
        (("run", "--simulate", "--fault", "stall everything at once"), "stall everything at once"),
        (("run", "--simulate", "--replay", "nowhere.gz"), "nowhere.gz"),
        (("run", "--settings", "nowhere.toml"), "nowhere.toml"),
        (("run", "--profile", "agressive"), "aggressive"),
        (("ingest", "nowhere.gz", "--venue", "binance-usdm", "--data", "data"), "nowhere.gz"),
        (("ingest", "nowhere.gz", "--venue", "binance", "--data", "data"), "binance-usdm"),
        (("simulate", "--venue", "nasdaq"), "nasdaq"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_clear_message_and_exit_2(arguments, message, tmp_path):
    done = harvest(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_version_and_help(tmp_path):
    assert harvest("--version", cwd=tmp_path).stdout == f"harvest {__version__}\n"
    text = harvest("run", "--help", cwd=tmp_path).stdout
    for option in ("--symbols", "--simulate", "--fault", "--replay", "--speed", "--hours", "--profile"):
        assert option in text


@pytest.mark.slow
@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not here")
def test_a_replay_over_sockets_gives_the_rows_of_an_ingest(tmp_path):
    files = [
        RECORDINGS / f"usdm__{symbol}_2024071{day}.gz" for symbol in ("btcusdt", "ethusdt") for day in (8, 9)
    ]
    done = harvest("ingest", *files, "--venue", "binance-usdm", "--data", "ingested", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    replays = [part for file in files for part in ("--replay", file)]
    settings = ("--trade-event", "trade", "--depth-interval-ms", "0", "--speed", "max")
    done = harvest("run", "--simulate", *replays, *settings, "--data", "replayed", "--no-live", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    apart = ("venue", "seq", "recv_ns")
    for symbol in ("BTCUSDT", "ETHUSDT"):
        kinds = {}
        for root in ("ingested", "replayed"):
            for kind in ("prices", "cvd", "depth", "orderbook", "ofi"):
                found = rows(tmp_path / root, kind, symbol=symbol)
                kinds[root, kind] = [{k: v for k, v in row.items() if k not in apart} for row in found]
        for kind in ("prices", "cvd"):
            assert kinds["ingested", kind] == kinds["replayed", kind]
        diffs = {
            root: [r for r in kinds[root, "depth"] if r["source"] != "rest"]
            for root in ("ingested", "replayed")
        }
        assert diffs["ingested"] == diffs["replayed"]
        snapshots = [
            [r for r in kinds[root, "depth"] if r["source"] == "rest"] for root in ("ingested", "replayed")
        ]
        assert snapshots[0] == snapshots[1]
        # From the snapshot on, wherever it came: the z-score begins anew with it, and so is compared once both have it.
        tops = kinds["replayed", "orderbook"]
        assert tops
        assert kinds["ingested", "orderbook"][-len(tops) :] == tops
        flows = kinds["replayed", "ofi"]
        assert flows
        for ours, theirs in zip(kinds["ingested", "ofi"][-len(flows) :], flows, strict=True):
            if theirs["ofi_z"] is None or ours["ofi_z"] is None:
                ours, theirs = ours | {"ofi_z": None}, theirs | {"ofi_z": None}
            assert ours == theirs
        assert sum(row["ofi_z"] is not None for row in flows) > 1000
