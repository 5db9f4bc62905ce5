"""What was compacted verifies as what it was compacted from."""

from __future__ import annotations

import json

import msgspec

from harvest.pipeline.verify import verify
from harvest.storage import ledger
from harvest.storage.compaction import Options, compact
from tests.pipeline.stored import RUN_2, Market, Run, damage, files, record, recorded, verified

#: All dates are over.
LATER = Options.at(2_000_000_000 * 10**9)


def two_runs(root):
    """Record two runs with a hole between them, each published in two parts."""
    run, market = Run(root), Market()
    record(run, market, 1)
    run.body(market.book())
    for _ in range(2):
        record(run, market, 25)
        run.publish()
    market.trade()
    run = Run(root, RUN_2)
    record(run, market, 1)
    run.body(market.book())
    for _ in range(2):
        record(run, market, 10)
        run.publish()
    ledger.rebuild(root)


def told(report):
    """Return a report without what compaction may change: bytes, files, time."""
    kept = [msgspec.structs.replace(one, files=0, bytes=0) for one in report.series]
    return json.loads(msgspec.json.encode((kept, report.damage, report.warnings, report.exit_code)))


def test_the_report_is_that_of_the_small_files(tmp_path):
    two_runs(tmp_path)
    before = told(verified(tmp_path))
    count = sum(len(files(tmp_path, kind)) for kind in ("prices", "depth", "orderbook", "ofi", "cvd"))
    done = compact(tmp_path, LATER)
    assert done.problems == []
    assert done.files_before == done.files_after + count - sum(
        len(files(tmp_path, kind)) for kind in ("prices", "depth", "orderbook", "ofi", "cvd")
    )
    assert done.directories > 5
    assert told(verified(tmp_path)) == before
    assert told(verify(tmp_path, jobs=2)) == before


def test_a_compacted_run_is_complete_and_its_ledger_agrees(tmp_path):
    recorded(tmp_path)
    ledger.rebuild(tmp_path)
    compact(tmp_path, LATER)
    report = verified(tmp_path)
    assert (report.complete, report.warnings) == (True, [])


def test_a_compacted_file_whose_sources_are_wrong_is_damaged(tmp_path):
    two_runs(tmp_path)
    compact(tmp_path, LATER)
    path = next(one for one in files(tmp_path, "prices") if "compact" in one.name)
    content = path.read_bytes()
    key = content.index(b'{"20240718T235900Z0001":[[')
    digit = key + len(b'{"20240718T235900Z0001":[[')
    end = content.index(b"]]", digit)
    wrong = bytearray(content)
    wrong[end - 1] = ord("1") if wrong[end - 1] != ord("1") else ord("2")
    path.write_bytes(wrong)
    assert ("metadata", "prices", None, None) in damage(verified(tmp_path))


def test_small_files_that_a_compacted_one_holds_already_are_an_overlap(tmp_path):
    two_runs(tmp_path)
    # Not the first of its directory, whose book would be judged as well.
    kept = {path: path.read_bytes() for path in files(tmp_path, "ofi")}
    compact(tmp_path, LATER)
    back = next(path for path in kept if not path.exists())
    back.write_bytes(kept[back])
    assert "overlap" in {what for what, kind, _, _ in damage(verified(tmp_path)) if kind == "ofi"}
