"""What dead runs left in the journal: found, recovered one after the other, and nobody writes behind them before that."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from harvest.pipeline.dead_runs import RunsWaitError, dead_runs, recover_all
from harvest.pipeline.ingest import Ingest
from harvest.pipeline.journal_records import encode_record
from harvest.pipeline.records import Checkpoint, Frames, Opened, Record, Resumed, TradesBody
from harvest.pipeline.verify import verify
from harvest.settings import Settings
from harvest.storage.files import DataDirectory
from harvest.storage.journal import Journal, list_raw, list_segments
from harvest.storage.parquet import Provenance, encode
from tests.pipeline.ingested import settings_for, write_recording
from tests.pipeline.test_recover import FACTS, RUN, record_into, stored_tables
from tests.pipeline.troubled import SYMBOLS, Troubled, machine
from tests.pipeline.wire import T0_MS, trade
from tests.program import harvest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LATER_RUN = "20240719T000100Z0002"


def journal(root: Path, records: Sequence[Record], run: str = RUN, **facts: Any) -> None:
    """Leave the records of a run that has died."""
    told = {"venue": "binance-usdm", "symbols": SYMBOLS} | msgspec.to_builtins(FACTS) | facts
    journal = Journal(root, venue="binance-usdm", run=run, facts=told, settings=Settings().journal)
    journal.start()
    assert all(journal.append(*encode_record(record)) for record in records)
    assert journal.close(10) is None


def trades_of(first_seq: int, ids: Sequence[int], *, at_s: int = 0) -> list[Record]:
    """Make the records of a run that knows nothing of those before it: a checkpoint, a connection, a block a trade."""
    at_ns = (T0_MS + at_s * 1000) * 10**6
    empty = machine(symbols=["BTCUSDT"])
    records: list[Record] = [
        Checkpoint(first_seq, at_ns, 0, "BTCUSDT", 1, 1, empty.checkpoint("BTCUSDT")),
        Opened(first_seq + 1, at_ns, 0, "trade-1", "trade", ("BTCUSDT",)),
    ]
    for number, trade_id in enumerate(ids):
        block = [trade(trade_id, at_ms=T0_MS + at_s * 1000)]
        records.append(Frames(first_seq + 2 + number, at_ns + number, number, "trade-1", block))
    return records


def stored(root: Path, kind: str, column: str) -> list[Any]:
    found = []
    for (of_kind, _, _), table in sorted(stored_tables(root).items()):
        if of_kind == kind:
            found += table[column].to_pylist()
    return found


def test_a_dead_run_becomes_files_and_its_segments_go(tmp_path: Path) -> None:
    records = Troubled(random.Random(9), 60).records
    record_into(tmp_path / "whole", records, random.Random(1))
    record_into(tmp_path / "died", records, random.Random(2), kept_share=0.4)
    journal(tmp_path / "died", records)
    (run,) = dead_runs(tmp_path / "died")
    assert (run.run, run.venue, run.size_bytes > 0) == (RUN, "binance-usdm", True)
    assert dead_runs(tmp_path / "died", living=[RUN]) == []
    (result,) = recover_all(tmp_path / "died")
    assert (result.run, result.error, result.problems) == (RUN, None, [])
    assert result.records == len(records)
    assert f"run {RUN} (binance-usdm): {len(records)} records" in str(result)
    assert stored_tables(tmp_path / "died") == stored_tables(tmp_path / "whole")
    assert list_segments(tmp_path / "died") == []
    assert list(recover_all(tmp_path / "died")) == []


def test_trades_between_dead_runs_are_a_break_and_sums_go_on(tmp_path: Path) -> None:
    journal(tmp_path, trades_of(1, [10, 11]))
    journal(tmp_path, trades_of(100, [15, 16], at_s=60), LATER_RUN)
    results = list(recover_all(tmp_path))
    assert [result.run for result in results] == [RUN, LATER_RUN]
    assert stored(tmp_path, "prices", "trade_id") == [10, 11, 15, 16]
    assert stored(tmp_path, "cvd", "trade_id") == [10, 11, 15, 16]
    ranges = zip(stored(tmp_path, "breaks", "from_id"), stored(tmp_path, "breaks", "to_id"), strict=True)
    assert list(ranges) == [(12, 14)]
    assert stored(tmp_path, "breaks", "reason") == ["downtime"]
    assert verify(tmp_path, jobs=1).damage == []


def test_cvd_of_a_run_that_goes_on_or_is_not_whole_yet_is_not_derived_from_its_files(tmp_path: Path) -> None:
    journal(tmp_path, trades_of(1, [10, 11]))
    later = trades_of(100, [12, 13], at_s=60)
    publish_prices(tmp_path, later)
    list(recover_all(tmp_path, living=LATER_RUN, living_seq=100))
    assert stored(tmp_path, "cvd", "trade_id") == [10, 11]


def publish_prices(root: Path, records: Sequence[Record]) -> None:
    """Publish the ``prices`` of a run that derives no ``cvd`` so far."""
    pipeline = machine(symbols=["BTCUSDT"])
    for record in records:
        pipeline.feed(record)
    pipeline.tables.seal_all()
    directory = DataDirectory(root)
    for sealed in pipeline.tables.take_sealed():
        path = directory.path_of(sealed, venue="binance-usdm", run=LATER_RUN)
        directory.publish(path, encode(sealed, Provenance("binance-usdm", LATER_RUN, trade_ids="raw")).data)


def test_a_run_that_cannot_be_recovered_keeps_its_journal_and_those_after_it_wait(tmp_path: Path) -> None:
    journal(tmp_path, trades_of(1, [10, 11]), venue="binance-coinm")
    journal(tmp_path, trades_of(100, [15, 16]), LATER_RUN)
    before = list_segments(tmp_path)
    (result,) = recover_all(tmp_path)
    assert "binance-coinm" in (result.error or "")
    assert "its journal stays" in str(result)
    assert list_segments(tmp_path) == before
    done = harvest("recover", ".", cwd=tmp_path)
    assert done.returncode == 1
    assert "could not be recovered" in done.stdout


def test_damaged_bytes_are_kept_and_what_they_held_is_a_break(tmp_path: Path) -> None:
    journal(tmp_path, trades_of(1, [10, 11, 12]))
    (segment,) = list_segments(tmp_path)
    content = bytearray(segment.path.read_bytes())
    where = content.index(b'"t":11')
    content[where] ^= 1
    segment.path.write_bytes(bytes(content))
    (result,) = recover_all(tmp_path)
    assert result.error is None
    assert any("are damaged, and kept" in problem for problem in result.problems)
    (kept,) = (tmp_path / "_quarantine").glob("*.bytes")
    assert kept.read_bytes() in bytes(content)
    assert result.damaged_bytes == kept.stat().st_size
    assert stored(tmp_path, "prices", "trade_id") == [10, 12]
    assert stored(tmp_path, "breaks", "reason") == ["overload"]
    assert len(list_raw(tmp_path)) == 1


def test_what_has_no_checkpoint_is_named_and_kept(tmp_path: Path) -> None:
    journal(tmp_path, trades_of(1, [10, 11])[1:])
    (result,) = recover_all(tmp_path)
    assert result.problems == ["BTCUSDT: it has no checkpoint, and was not recovered"]
    assert list_segments(tmp_path) == []
    assert len(list_raw(tmp_path)) == 1


def test_nobody_writes_behind_runs_that_wait_and_verify_says_so(tmp_path: Path) -> None:
    journal(tmp_path, trades_of(1, [10, 11]))
    recording = write_recording(tmp_path / "recording.txt", [trade(12)])
    with pytest.raises(RunsWaitError, match="1 run waits in the journal"):
        Ingest([recording], settings_for(tmp_path))
    report = verify(tmp_path, jobs=1)
    assert [one.what for one in report.damage] == ["unrecovered"]
    assert report.exit_code == 3
    refused = harvest("compact", ".", cwd=tmp_path)
    assert refused.returncode == 2
    assert "harvest recover" in refused.stderr
    done = harvest("recover", ".", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 rows of 1 symbols were in no file" in done.stdout
    assert verify(tmp_path, jobs=1).damage == []
    assert "nothing waits" in harvest("recover", ".", cwd=tmp_path).stdout


def test_what_was_stored_may_be_known_late_and_is_asked_for_only_if_nobody_else_brings_it() -> None:
    for wants_missing in (True, False):
        pipeline = machine(symbols=["BTCUSDT"])
        records = trades_of(1, [15, 16, 18])
        for record in records:
            pipeline.feed(record)
        outcome = pipeline.feed(Resumed(6, T0_MS * 10**6, 6, {"BTCUSDT": 12, "OTHER": 4}, wants_missing))
        assert [type(event).__name__ for event in outcome.events] == ["BreakFound"] + (
            ["TradesWanted"] if wants_missing else []
        )
        assert pipeline.missing_trades("BTCUSDT", 0, 100) == [(13, 14), (17, 17)]


def test_what_earlier_runs_have_left_out_is_asked_for_again_and_stored_once() -> None:
    pipeline = machine(symbols=["BTCUSDT"])
    pipeline.resume_trades("BTCUSDT", 30)
    asked = pipeline.feed(
        Resumed(1, T0_MS * 10**6, 1, {}, True, {"BTCUSDT": [(11, 12), (20, 22)], "OTHER": [(1, 2)]})
    )
    assert [(event.from_id, event.to_id) for event in asked.events] == [(11, 12), (20, 22)]
    assert pipeline.missing_trades("BTCUSDT", 0, 100) == [(11, 12), (20, 22)]
    # What other runs have stored stays stored, and what follows them is in order.
    pipeline.feed(Frames(2, T0_MS * 10**6, 2, "trade-1", [trade(15), trade(31), trade(33)]))
    assert pipeline.metrics.feed("trade", "BTCUSDT").duplicates == 1
    other = machine(symbols=())
    other.restore("BTCUSDT", pipeline.checkpoint("BTCUSDT"))
    page = msgspec.json.encode(
        [
            {"id": one, "price": "1", "qty": "1", "quoteQty": "1", "time": T0_MS, "isBuyerMaker": True}
            for one in (11, 12, 13, 20)
        ]
    )
    for each in (pipeline, other):
        for from_id, to_id in ((11, 12), (20, 22)):
            each.feed(TradesBody(3, T0_MS * 10**6, 3, "BTCUSDT", from_id, to_id, page))
        assert each.missing_trades("BTCUSDT", 0, 100) == [(21, 22), (32, 32)]
    (prices,) = (table for table in pipeline.tables if table.kind.name == "prices")
    assert prices.count == 2 + 3
    assert pipeline.metrics.feed("trade", "BTCUSDT").missing_ids == 3
