"""Recovery: what a dead run had published and what its records give are together the rows of a run that did not die."""

from __future__ import annotations

import itertools
import random
import shutil
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harvest.errors import StorageError
from harvest.pipeline.journal_records import decode_record, encode_record
from harvest.pipeline.records import Checkpoint, Frames, Opened, SnapshotBody, Symbols
from harvest.pipeline.recover import WHOLE, RecoveryReport, RunFacts, Slice, complete, recover
from harvest.pipeline.verify import verify
from harvest.settings import Settings
from harvest.storage import ledger
from harvest.storage.catalog import scan
from harvest.storage.files import DataDirectory
from harvest.storage.filesystem import Filesystem
from harvest.storage.journal import Journal, list_segments, read_run, read_segment
from harvest.storage.parquet import Provenance, encode, read_facts
from harvest.storage.quarantine import Quarantine
from harvest.venues import VENUES
from tests.pipeline.stored import Market
from tests.pipeline.troubled import FEEDS, LEVELS, MAX_PENDING, PATIENCE_S, SYMBOLS, Key, Troubled, machine
from tests.pipeline.wire import T0_MS, diff, trade
from tests.storage.test_files import Faulty

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from harvest.pipeline.records import Record

RUN = "20240718T235900Z0001"
FACTS = RunFacts(LEVELS, MAX_PENDING, PATIENCE_S, "raw")


class _Unsynced(Filesystem):
    """No power is lost here, and waiting for the medium is most of the time."""

    def fsync(self, descriptor: int) -> None:
        pass

    def fsync_directory(self, path: Path) -> None:
        pass


class _FaultyUnsynced(Faulty, _Unsynced):
    pass


def venue_name(spot: bool) -> str:
    return "binance-spot" if spot else "binance-usdm"


def record_into(
    root: Path,
    records: Sequence[Record],
    chaos: random.Random,
    *,
    spot: bool = False,
    kept_share: float = 1.0,
    from_seq: int = 1,
) -> None:
    """Let a run take the records and publish what it seals now and then, as far as it comes to that before it dies.

    ``from_seq`` is where its journal begins: what is older is in files.
    """
    pipeline = machine(spot=spot, with_cvd=True, max_rows=chaos.choice((20, 10**6)))
    provenance = Provenance(venue_name(spot), RUN, trade_ids="raw")
    directory, entered = DataDirectory(root, filesystem=_Unsynced()), []
    died_at = len(records) + 1 if kept_share == 1 else chaos.randrange(from_seq, len(records) + 2)
    for record in records:
        pipeline.feed(record)
        if chaos.random() < 0.03 or record.seq == from_seq - 1:
            pipeline.tables.seal_all()
        if record.seq == len(records) and kept_share == 1:
            pipeline.end(record.seq + 1, record.recv_ns)
            pipeline.tables.seal_all()
        for sealed in pipeline.tables.take_sealed():
            must = sealed.first_seq < from_seq
            if must or (record.seq < died_at and chaos.random() < kept_share):
                path = directory.path_of(sealed, venue=provenance.venue, run=RUN)
                encoded = encode(sealed, provenance)
                directory.publish(path, encoded.data)
                if must or chaos.random() < 0.9:
                    entered.append(ledger.entry_of_file(encoded.data))
    ledger.append(root, entered, filesystem=_Unsynced())


def recover_into(
    root: Path,
    records: Iterable[Record],
    *,
    spot: bool = False,
    parts: Sequence[Slice] = (WHOLE,),
    filesystem: Filesystem | None = None,
    seal_bytes: int = 2**20,
) -> RecoveryReport:
    """Recover as processes that have just been started, each with its part, one after the other."""
    name, records = venue_name(spot), list(records)
    directory = DataDirectory(root, filesystem=filesystem or _Unsynced())
    provenance = Provenance(name, RUN, trade_ids="raw")
    report: RecoveryReport | None = None
    for part in parts:
        of_part = recover(
            iter([record for record in records if record.seq >= part.from_seq]),
            venue=VENUES[name],
            facts=FACTS,
            catalog=scan(root, name),
            directory=directory,
            provenance=provenance,
            part=part,
            first_seq=records[0].seq if records else None,
            seal_bytes=seal_bytes,
        )
        if report is None:
            report = of_part
        else:
            report.add(of_part)
    assert report is not None
    report.add(complete(catalog=scan(root, name), directory=directory, provenance=provenance))
    return report


def stored_tables(root: Path, *, spot: bool = False) -> dict[Key, pa.Table]:
    """Read everything, a table a directory, in the order of the rows; no two files may overlap."""
    catalog = scan(root, venue_name(spot))
    assert catalog.damage == []
    tables = {}
    for kind in catalog.kinds():
        for symbol in catalog.symbols(kind):
            for day in catalog.days(kind, symbol):
                files = catalog.files(kind, symbol, day)
                assert all(one.last_seq < other.first_seq for one, other in itertools.pairwise(files))
                parts = [pq.ParquetFile(file.path).read() for file in files]
                tables[kind, symbol, day] = pa.concat_tables(parts).combine_chunks()
    return tables


def entries(root: Path) -> list[tuple[str, str, str, str]]:
    contents = ledger.read(root)
    assert contents.problems == []
    return sorted((entry.kind, entry.symbol, entry.date, entry.file_name) for entry in contents.entries)


def files(root: Path) -> list[tuple[str, str, str, str]]:
    found = []
    for path in root.glob("*/venue=*/symbol=*/date=*/*.parquet"):
        kind, _, symbol, date, name = path.parts[-5:]
        found.append((kind, symbol.partition("=")[2], date.partition("=")[2], name))
    return sorted(found)


def verify_as(root: Path, expected: Path) -> None:
    """Hold the verdicts on two directories against each other, but for what counts files."""
    reports = [verify(one, jobs=1) for one in (root, expected)]
    assert reports[0].damage == [] == reports[1].damage
    assert [one for one in reports[0].warnings if "ledger" in one] == []
    verdicts = [[(s.kind, s.symbol, s.rows, s.missing) for s in report.series] for report in reports]
    assert verdicts[0] == verdicts[1]


#: Seeds, for what they make is too large to be drawn.
chaoses = st.integers(0, 2**32).map(random.Random)
any_troubles = settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def roots(tmp_path: Path) -> Any:
    """Give two new directories at each call, the older ones gone."""

    def fresh() -> tuple[Path, Path]:
        for name in ("died", "whole"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
        return tmp_path / "died", tmp_path / "whole"

    return fresh


@any_troubles
@given(chaos=chaoses, ticks=st.integers(1, 30), spot=st.booleans())
def test_files_and_records_of_a_dead_run_are_together_what_a_living_one_stores(
    roots: Any, chaos: random.Random, ticks: int, spot: bool
) -> None:
    died, whole = roots()
    records = Troubled(chaos, ticks, spot=spot).records
    record_into(whole, records, chaos, spot=spot)
    record_into(died, records, chaos, spot=spot, kept_share=chaos.choice((0.0, 0.5, 0.9)))
    report = recover_into(died, records, spot=spot, seal_bytes=chaos.choice((0, 2**20)))
    assert stored_tables(died, spot=spot) == stored_tables(whole, spot=spot)
    assert report.records == len(records)
    assert report.symbols == sorted(SYMBOLS)
    assert report.problems == report.holes == report.without_checkpoint == []
    assert entries(died) == files(died)
    # Nothing is left to be done.
    again = recover_into(died, records, spot=spot)
    assert again.files == 0
    assert entries(died) == files(died)


@any_troubles
@given(chaos=chaoses, fail_at=st.integers(0, 120), after=st.booleans())
def test_a_recovery_that_dies_anywhere_is_gone_on_with_by_the_next(
    roots: Any, chaos: random.Random, fail_at: int, after: bool
) -> None:
    died, whole = roots()
    records = Troubled(chaos, 20).records
    record_into(whole, records, chaos)
    record_into(died, records, chaos, kept_share=0.3)
    try:
        recover_into(died, records, filesystem=_FaultyUnsynced(fail_at, after=after), seal_bytes=0)
    except (OSError, StorageError):
        recover_into(died, records)
    assert stored_tables(died) == stored_tables(whole)
    assert entries(died) == files(died)


@any_troubles
@given(chaos=chaoses)
def test_a_journal_that_begins_with_a_round_of_checkpoints_is_enough(
    roots: Any, chaos: random.Random
) -> None:
    died, whole = roots()
    records = Troubled(chaos, 30, checkpoint_share=0.3).records
    begin = chaos.randrange(1, len(records) + 1)
    record_into(whole, records, chaos)
    first = {}
    for record in records[begin - 1 :]:
        if isinstance(record, Checkpoint):
            first.setdefault(record.symbol, record.seq)
    if len(first) < len(SYMBOLS):
        return
    # What a symbol's rows before its checkpoint follow from is in the journal no more: they are in files.
    record_into(died, records, chaos, kept_share=0.3, from_seq=max(first.values()) + 1)
    recover_into(died, records[begin - 1 :])
    assert stored_tables(died) == stored_tables(whole)


@pytest.mark.parametrize("seed", [1, 3])
def test_a_recovered_directory_verifies_as_that_of_a_run_that_did_not_die(tmp_path: Path, seed: int) -> None:
    records = Troubled(random.Random(seed), 60).records
    record_into(tmp_path / "whole", records, random.Random(1))
    record_into(tmp_path / "died", records, random.Random(2), kept_share=0.4)
    recover_into(tmp_path / "died", records)
    verify_as(tmp_path / "died", tmp_path / "whole")


def journalled(*, lost: range) -> tuple[list[Record], list[Record]]:
    """Make 40 records of one connection, a tick each, a checkpoint at 30 and snapshots; with and without those of ``lost``."""
    market = Market(at_ms=T0_MS)
    pipeline, records = machine(symbols=["BTCUSDT"]), []
    seq = 0

    def add(record: Record) -> None:
        pipeline.feed(record)
        records.append(record)

    while seq < 40:
        seq += 1
        market.tick()
        at = seq, (market.at_ms + 20) * 10**6, seq
        if seq in (1, 30):
            add(Checkpoint(*at, "BTCUSDT", 1, 1, pipeline.checkpoint("BTCUSDT")))
        elif seq in (5, 35):
            add(SnapshotBody(*at, "BTCUSDT", market.book()))
        else:
            add(Frames(*at, "both-1", [market.diff(), market.trade()]))
    return records, [record for record in records if record.seq not in lost]


def test_what_the_journal_lacks_is_a_break_and_the_book_is_suspect_until_the_next_snapshot(
    tmp_path: Path,
) -> None:
    records, left = journalled(lost=range(15, 20))
    record_into(tmp_path / "whole", records, random.Random(1))
    report = recover_into(tmp_path / "died", left)
    assert report.holes == [(15, 19)]
    tables, whole = stored_tables(tmp_path / "died"), stored_tables(tmp_path / "whole")
    (day,) = {day for _, _, day in tables}
    breaks = tables["breaks", "BTCUSDT", day]
    assert sorted(zip(breaks["feed"].to_pylist(), breaks["reason"].to_pylist(), strict=True)) == [
        ("orderbook", "overload"),
        ("trade", "overload"),
    ]
    for kind in ("prices", "depth"):
        expected = whole[kind, "BTCUSDT", day]
        is_left = [seq not in range(15, 20) for seq in expected["seq"].to_pylist()]
        assert tables[kind, "BTCUSDT", day] == expected.filter(pa.array(is_left))
    book = tables["orderbook", "BTCUSDT", day]
    suspect = dict(zip(book["seq"].to_pylist(), book["suspect"].to_pylist(), strict=True))
    assert suspect == {
        seq: 20 <= seq < 35 for seq in (*range(6, 15), *range(20, 30), *range(31, 35), *range(36, 41))
    }
    report_of = verify(tmp_path / "died", jobs=1)
    assert report_of.damage == []
    assert {one.why for one in report_of.series[0].missing} == {"overload"}


def test_what_waits_for_another_connection_when_the_run_dies_is_decided_at_the_seq_after_its_last(
    tmp_path: Path,
) -> None:
    empty = machine(symbols=["BTCUSDT"])
    records: list[Record] = [Checkpoint(1, 0, 0, "BTCUSDT", 1, 1, empty.checkpoint("BTCUSDT"))]
    for number, (feed, name) in enumerate((feed, name) for feed in FEEDS for name in "ab"):
        records.append(Opened(2 + number, 0, 0, f"{feed}-{name}", feed, ("BTCUSDT",)))
    frames = [trade(1), trade(4), diff(1, 10, 0), diff(25, 30, 20)]
    records.append(Frames(6, T0_MS * 10**6, 6, "a", frames))
    recover_into(tmp_path, records)
    tables = {kind: table for (kind, _, _), table in stored_tables(tmp_path).items()}
    found = tables["breaks"].select(["seq", "feed", "from_id", "to_id"]).to_pylist()
    assert [tuple(row.values()) for row in found] == [(7, "trade", 2, 3), (7, "orderbook", 10, 20)]
    assert tables["depth"].select(["seq", "last_update_id"]).to_pydict() == {
        "seq": [6, 7],
        "last_update_id": [10, 30],
    }
    assert recover_into(tmp_path, records).files == 0


def test_records_come_from_the_journal_with_the_facts_that_its_segments_tell(tmp_path: Path) -> None:
    records = Troubled(random.Random(9), 60).records
    record_into(tmp_path / "whole", records, random.Random(1))
    record_into(tmp_path / "died", records, random.Random(2), kept_share=0.4)
    facts = {"venue": "binance-usdm", "symbols": SYMBOLS} | msgspec.to_builtins(FACTS)
    journal = Journal(
        tmp_path / "died", venue="binance-usdm", run=RUN, facts=facts, settings=Settings().journal
    )
    journal.start()
    assert all(journal.append(*encode_record(record)) for record in records)
    assert journal.close(10) is None
    (segment,) = list_segments(tmp_path / "died", "binance-usdm")
    header = read_segment(segment.path).header
    assert header is not None
    assert msgspec.convert(header.facts, RunFacts) == FACTS
    recover_into(tmp_path / "died", map(decode_record, read_run(tmp_path / "died", "binance-usdm", RUN)))
    assert stored_tables(tmp_path / "died") == stored_tables(tmp_path / "whole")


def test_a_symbol_that_is_added_and_removed_on_the_way_is_recovered_as_it_was_recorded(
    tmp_path: Path,
) -> None:
    def at(seq: int) -> tuple[int, int, int]:
        return seq, (T0_MS + seq) * 10**6, seq

    empty = machine(symbols=["BTCUSDT"])
    new = {"symbol": "NEWUSDT"}
    records: list[Record] = [
        Checkpoint(*at(1), "BTCUSDT", 1, 1, empty.checkpoint("BTCUSDT")),
        Frames(*at(2), "trade-1", [trade(1), trade(1, **new)]),
        Symbols(*at(3), {"NEWUSDT": 7}, ("BTCUSDT",)),
        Frames(*at(4), "trade-1", [trade(2), trade(9, **new)]),
        Symbols(*at(5), {"BTCUSDT": None}, ()),
        Frames(*at(6), "trade-1", [trade(4), trade(10, **new)]),
    ]
    record_into(tmp_path / "whole", records, random.Random(1))
    recover_into(tmp_path / "died", records)
    whole = stored_tables(tmp_path / "whole")
    assert stored_tables(tmp_path / "died") == whole
    ids = {
        symbol: table["trade_id"].to_pylist()
        for (kind, symbol, _), table in whole.items()
        if kind == "prices"
    }
    assert ids == {"BTCUSDT": [1, 4], "NEWUSDT": [9, 10]}


def test_a_symbol_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    records, _ = journalled(lost=range(0))
    opened = Opened(0, records[0].recv_ns, 0, "trade-1", "trade", ("BTCUSDT", "ETHUSDT"))
    report = recover_into(tmp_path, [opened, *records])
    assert (report.symbols, report.without_checkpoint) == (["BTCUSDT"], ["ETHUSDT"])


def test_a_checkpoint_that_cannot_be_used_is_named_and_the_next_one_serves(tmp_path: Path) -> None:
    records, _ = journalled(lost=range(0))
    assert isinstance(records[0], Checkpoint)
    records[0].state = b"no"
    report = recover_into(tmp_path, records)
    assert len(report.problems) == 1
    assert report.symbols == ["BTCUSDT"]
    assert {table["seq"].to_pylist()[0] for (kind, _, _), table in stored_tables(tmp_path).items()} == {31}


def test_a_recovered_file_says_so_and_has_the_id_of_its_run(tmp_path: Path) -> None:
    recover_into(tmp_path, journalled(lost=range(0))[0])
    (path,) = (tmp_path / "prices").rglob("*.parquet")
    facts = read_facts(pq.read_metadata(path).metadata)
    assert (facts["run"], facts["recovered"], path.name[: len(RUN)]) == (RUN, "true", RUN)


def test_malformed_messages_are_kept_once(tmp_path: Path) -> None:
    records, _ = journalled(lost=range(0))
    assert isinstance(records[10], Frames)
    assert isinstance(records[20], Frames)
    records[10].frames.append(b'{"no')
    records[20].frames.append(b'{"no, either')
    of_run = Quarantine(tmp_path, RUN)
    of_run.add(records[10].recv_ns, "both-1", "as the run said", b"other")
    of_run.flush()
    for _ in range(2):
        assert recover_into(tmp_path, records).malformed == 2
    assert len(of_run.path.read_text().splitlines()) == 3


def test_a_file_that_reads_back_otherwise_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = DataDirectory.publish

    def rot(self: DataDirectory, path: Path, data: Any) -> bool:
        published = publish(self, path, data)
        path.write_bytes(b"PAR1")
        return published

    monkeypatch.setattr(DataDirectory, "publish", rot)
    with pytest.raises(Exception, match="does not read back as it was written"):
        recover_into(tmp_path, journalled(lost=range(0))[0])


def test_without_records_there_is_nothing_to_do(tmp_path: Path) -> None:
    report = recover_into(tmp_path, [])
    assert (report.records, report.files, report.rows) == (0, 0, {})
