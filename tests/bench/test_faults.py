"""The fault bench in short: what was promised is kept; and where it would not be, the bench says so."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from bench.faults import kills as kills_bench
from bench.faults.crash_disk import CrashDisk, PowerCut
from bench.faults.every_call import run_every_call
from bench.faults.full_disk import Loss, account
from bench.faults.kills import Kill, add_sent_before_kills
from bench.faults.schedules import Tally, run_schedules, try_schedules
from harvest.storage import ledger
from harvest.storage.compaction.swap import Place
from harvest.storage.files import DataDirectory
from harvest.storage.parquet import Provenance, encode
from tests.program import ROOT, environment
from tests.storage.rows import sealed_trades

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def bench(*arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.faults", *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_what_was_not_forced_to_the_medium_may_be_lost_in_any_combination_and_the_rest_never(
    tmp_path: Path,
) -> None:
    root = tmp_path / "disk"
    disk = CrashDisk(root)
    root.mkdir()
    for name, is_forced in (("forced", True), ("not", False)):
        descriptor = disk.create(root / name)
        disk.write(descriptor, memoryview(b"first"))
        disk.fsync(descriptor)
        disk.write(descriptor, memoryview(b" second"))
        disk.close(descriptor)
        if is_forced:
            disk.fsync_directory(root)
    seen: dict[str, Counter[bytes]] = defaultdict(Counter)
    for number in range(100):
        left = tmp_path / f"{number}"
        disk.medium().leave(left, random.Random(number))
        assert (left / "forced").read_bytes().startswith(b"first")
        for path in left.iterdir():
            seen[path.name][path.read_bytes()] += 1
    # Prefixes, zeros, and the name that may be lost.
    assert {b"first", b"first second"} <= set(seen["forced"])
    assert any(content.endswith(b"\0") for content in seen["forced"])
    assert 20 < seen["not"].total() < 80


def test_after_a_power_cut_nothing_has_an_effect(tmp_path: Path) -> None:
    disk = CrashDisk(tmp_path, cut_at=3)
    with pytest.raises(PowerCut):
        DataDirectory(tmp_path, filesystem=disk).publish(tmp_path / "one.parquet", b"rows")
    assert [call.what for call in disk.calls] == ["create", "write", "fsync"]
    # A process that is killed leaves what it has written; what of that is durable is another thing.
    disk.medium().show(tmp_path / "killed")
    assert [path.read_bytes() for path in (tmp_path / "killed").iterdir()] == [b"rows"]


@pytest.mark.slow
def test_crashes_at_random_calls_lose_and_double_nothing() -> None:
    tally = run_schedules(150, seed=7, only=None, jobs=2, keep=None)
    assert tally.violations == []
    assert tally.schedules == 150
    assert tally.in_recovery > 20
    assert tally.in_compaction > 20
    assert tally.compacted > 0
    assert tally.verified > 0
    assert tally.released > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "numbers"),
    [
        ("fsync", range(10)),
        ("fsync_directory", range(10)),
        # Of which a kill struck between the naming of a file and the forcing of its name.
        ("sync", (19, 21)),
    ],
)
def test_the_bench_sees_it_where_something_is_not_forced_to_the_medium(
    call: str, numbers: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CrashDisk, call, lambda _disk, _what: None)
    tally: Tally = try_schedules((8, numbers), keep=None)
    assert tally.violations != []


@pytest.mark.slow
def test_a_fault_at_any_call_of_a_flush_and_of_a_compaction_costs_nothing() -> None:
    points = run_every_call(step=9)
    assert points.violations == []
    assert len(points.counts) == 10
    assert min(points.counts.values()) >= 9


@pytest.mark.slow
def test_the_bench_sees_a_compaction_that_clears_away_what_may_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Place, "settle", lambda _place: None)
    violations = run_every_call(step=9).violations
    assert any("readers do not see each row once" in violation for violation in violations)
    assert not any(violation.startswith("a flush") for violation in violations)


def test_what_was_sent_to_a_process_shortly_before_its_death_or_to_nobody_need_not_be_stored(
    tmp_path: Path,
) -> None:
    kills = [
        Kill(0, 10**9, 2 * 10**9, "recording"),
        Kill(1, 3 * 10**9, 5 * 10**9, "recording"),
        Kill(2, 7 * 10**9, 9 * 10**9, "recovering"),
        Kill(3, 10 * 10**9, 12 * 10**9, "starting"),
    ]
    sent = tmp_path / "sent.jsonl"
    lines = [
        *((1_500, 1, 10), (1_749, 1, 11), (1_751, 1, 12), (3_100, 1, 13)),
        *((3_200, 2, 14), (4_900, 2, 15), (6_000, 3, 16)),
        # To those who were killed while they connected, by a venue that does not know it yet; and one that was there.
        *((7_300, 4, 17), (10_050, 5, 18), (10_300, 6, 19)),
    ]
    sent.write_text(
        "\n".join(
            json.dumps({"t": ms * 10**6, "connection": number, "stream": "s", "id": one})
            for ms, number, one in lines
        )
    )
    must: dict[str, set[int]] = defaultdict(set)
    add_sent_before_kills(sent, kills, must)
    assert must == {"s": {10, 11, 14, 19}}


@pytest.mark.slow
def test_a_hundred_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    # Most of a life is waiting: four programs at once, each with a venue and a directory of its own.
    with ThreadPoolExecutor(4) as pool:
        every = pool.map(
            lambda seed: bench(
                *("--kills", "25", "--seed", str(seed)),
                *("--report", str(tmp_path / f"{seed}.jsonl"), "--json", str(tmp_path / f"{seed}.json")),
                timeout_s=900,
            ),
            range(40, 44),
        )
        for done in every:
            assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads((tmp_path / f"{seed}.json").read_text())["kills"] for seed in range(40, 44)]
    assert sum(one["kills"] for one in found) == 100
    assert [(one["lost"], one["doubled"], one["unreadable"]) for one in found] == [({}, {}, [])] * 4
    assert sum(one["must"] for one in found) > 10_000


@pytest.mark.slow
def test_kills_at_random_lose_nothing_and_a_report_is_gone_on_with(tmp_path: Path) -> None:
    report, found = tmp_path / "kills.jsonl", tmp_path / "found.json"
    for count in ("1", "2"):
        done = bench(
            "--kills", count, "--seed", "2", "--report", str(report), "--json", str(found), timeout_s=200
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(report.read_text().splitlines()) == int(count)
    facts = json.loads(found.read_text())["kills"]
    assert (facts["kills"], facts["kept"], facts["lost"], facts["doubled"]) == (2, True, {}, {})
    assert facts["must"] > 100
    # The account is not blind: with a file gone, just its ids are lost; with a copy, they are there twice.
    data = tmp_path / "kills" / "data"
    (first, *_) = sorted(data.glob("prices/venue=*/symbol=BTCUSDT/date=*/*.parquet"))
    copy = first.with_name(first.name.replace("Z", "Z0", 1))
    copy.write_bytes(first.read_bytes())
    kills = kills_bench.read_report(report)
    assert list(kills_bench.account(tmp_path / "kills", kills).doubled) == ["btcusdt@aggTrade"]
    copy.unlink()
    first.unlink()
    broken = kills_bench.account(tmp_path / "kills", kills)
    assert list(broken.lost) == ["btcusdt@aggTrade"]
    assert not broken.is_kept


@pytest.mark.slow
def test_a_burst_is_stored_to_its_last_message(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    done = bench("--burst", "--seconds", "2", "--json", str(found), timeout_s=200)
    assert done.returncode == 0, done.stdout + done.stderr
    usual, peak = json.loads(found.read_text())["bursts"]
    assert sum(usual["sent"].values()) == sum(usual["stored"].values()) > 19_000
    assert sum(peak["stored"].values()) > 49_000
    assert 50 < peak["rss_mib"] < 612


@pytest.mark.slow
def test_a_full_disk_is_waited_out_and_what_is_lost_for_want_of_memory_is_what_is_said(
    tmp_path: Path,
) -> None:
    found = tmp_path / "found.json"
    done = bench("--full-disk", "--seconds", "10", "--json", str(found), timeout_s=400)
    if done.returncode == 2:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    enough, too_little = json.loads(found.read_text())["full_disks"]
    for one in (enough, too_little):
        assert max(one["journal_s"], one["files_s"]) <= 10
        assert all(not loss["silent"] and not loss["false"] for loss in one["losses"].values())
    assert (enough["lost"], enough["verify_exit"]) == ({"trades": 0, "diffs": 0}, 0)
    assert min(too_little["lost"].values()) > 100
    assert (sum(too_little["lost"].values()), too_little["verify_exit"]) == (too_little["let_go"], 1)


def test_the_account_of_a_full_disk_sees_what_is_lost_in_silence_and_what_is_said_to_be_and_is_not(
    tmp_path: Path,
) -> None:
    directory = DataDirectory(tmp_path)
    for first_seq, first_id in ((1, 100), (10, 105)):
        sealed = sealed_trades(first_seq=first_seq, first_id=first_id)
        encoded = encode(sealed, Provenance("binance-usdm", "20261122T000000Z00ff"))
        directory.publish(
            directory.path_of(sealed, venue="binance-usdm", run="20261122T000000Z00ff"), encoded.data
        )
        ledger.append(tmp_path, [ledger.entry_of_file(encoded.data)])

    def losses(*missing: tuple[int, int]) -> Loss:
        intervals = [{"from_id": low, "to_id": high, "why": "overload"} for low, high in missing]
        report = {"series": [{"kind": "prices", "missing": intervals}]}
        return account(tmp_path, "prices", "trade", [[100, 107, 1]], report)

    assert losses((103, 104)) == Loss(8, 6, [], [], {"overload": 1}, 0)
    assert losses((103, 103)).silent == [104]
    assert losses((103, 105)).false == [105]
    assert losses((103, 104), (108, 108)).false == [108]
