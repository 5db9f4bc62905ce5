"""Ingest: the same input gives the same rows under the same names, once; what is wrong with it is kept, not lost."""

from __future__ import annotations

import gzip
import json

import attrs
import pytest

from harvest.errors import FileExistsInStoreError, IdSpaceError, RecordingError
from harvest.pipeline import ingest as ingest_module
from harvest.pipeline.ingest import AlreadyIngestedError, Ingest, MixedTradesError
from harvest.settings import ChannelSettings, RotationSettings
from harvest.storage.files import DataDirectory
from tests.pipeline.ingested import STAMP, contents, ingest, settings_for, stored, write_recording
from tests.pipeline.wire import DAY, MIDNIGHT_MS, T0_MS, diff, snapshot, trade

KINDS = ("prices", "depth", "orderbook", "ofi", "cvd", "breaks")


def market(symbol="BTCUSDT", count=200, *, first_id=100, at_ms=MIDNIGHT_MS - 1000):
    """Make the frames of a small recording across midnight: trades, diffs, a snapshot, some losses."""
    frames, prev = [], 1000
    for number in range(count):
        at = {"symbol": symbol, "at_ms": at_ms + 10 * number}
        trade_id = first_id + number + number // 50
        frames.append(trade(trade_id, qty=(number % 7 + 1) / 1000, sold=number % 3 == 0, **at))
        levels = [(100.0 - number % 5, float(number % 4))]
        frames.append(diff(prev + 1, prev + 3, prev, levels, [(101.0 + number % 5, 1.0)], **at))
        prev += 3
        if number in (5, 120):
            frames.append(snapshot(prev, [(99.0, 5.0)], [(102.0, 5.0)], at_ms=at["at_ms"]))
        if number == 100:
            prev += 7
    return frames


def quarantined(root):
    return [
        json.loads(line)
        for path in (root / "_quarantine").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]


def test_two_ingests_of_the_same_input_give_the_same_files_byte_for_byte(tmp_path):
    recordings = [
        write_recording(tmp_path / "btc", market()),
        write_recording(tmp_path / "eth", market("ETHUSDT"), start_ns=STAMP + 5),
    ]
    for root in ("one", "two"):
        # Files are put in order, however they are named on the command line.
        recordings.reverse()
        ingest(recordings, tmp_path / root)
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "two")
    assert {name.split("/")[0] for name in one} == {*KINDS, "_ledger"}


def test_same_input_into_the_same_directory_is_refused_and_nothing_changes(tmp_path):
    recording = write_recording(tmp_path / "btc", market())
    ingest([recording], tmp_path / "data")
    before = contents(tmp_path / "data")
    with pytest.raises(AlreadyIngestedError) as caught:
        ingest([recording], tmp_path / "data")
    assert caught.value.run in str(caught.value)
    assert contents(tmp_path / "data") == before


def test_compressed_or_not_the_rows_are_the_same(tmp_path):
    plain = write_recording(tmp_path / "plain", market())
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    windows = tmp_path / "windows"
    windows.write_bytes(plain.read_bytes().replace(b"\n", b"\r\n"))
    for path in (plain, packed, windows):
        ingest([path], tmp_path / f"data-{path.name}")
    for kind in KINDS:
        rows = [stored(tmp_path / f"data-{name}", kind, "BTCUSDT") for name in ("plain", "packed", "windows")]
        assert rows[0] == rows[1] == rows[2] != []


def test_memory_bound_and_full_buffers_change_no_row(tmp_path, monkeypatch):
    recording = write_recording(tmp_path / "btc", market())
    ingest([recording], tmp_path / "whole")
    monkeypatch.setattr(ingest_module, "SEAL_BYTES", 1)
    monkeypatch.setattr(ingest_module, "LINES_PER_MEASURE", 100)
    in_parts = ingest([recording], tmp_path / "parts")
    monkeypatch.undo()
    full = ingest([recording], tmp_path / "full", rotation=RotationSettings(max_rows_per_file=6))
    for kind in KINDS:
        whole = stored(tmp_path / "whole", kind, "BTCUSDT")
        assert stored(tmp_path / "parts", kind, "BTCUSDT") == whole
        assert stored(tmp_path / "full", kind, "BTCUSDT") == whole
    assert full.files > in_parts.files > 20
    assert full.rows == in_parts.rows


def test_lines_of_one_receive_time_are_one_record(tmp_path):
    recording = write_recording(tmp_path / "a", [trade(1), trade(2), trade(3)], step_ns=0)
    ingest([recording], tmp_path / "data")
    assert [(row["seq"], row["recv_ns"]) for row in stored(tmp_path / "data", "prices", "BTCUSDT")] == [
        (1, STAMP)
    ] * 3


def ticker(update_id, bid="1"):
    return (
        b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":%d,"s":"BTCUSDT","b":"%s","B":"1","a":"2",'
        b'"A":"1","T":1721347021434,"E":1721347021435}}' % (update_id, bid.encode())
    )


def test_quotes_that_are_not_stored_are_counted_and_leave_every_record_its_number(tmp_path):
    frames = [ticker(1), trade(1), ticker(2), ticker(3), ticker(4, "no"), trade(2), ticker(5)]
    recording = write_recording(tmp_path / "a", frames)
    # Of one time with what is stored, they are one record.
    with recording.open("ab") as file:
        for at, frame in ((7, ticker(6)), (7, trade(3)), (7, ticker(7)), (8, trade(4))):
            file.write(b"%d %s\n" % (STAMP + at * 1000, frame))
    summary = ingest([recording], tmp_path / "data")
    rows = stored(tmp_path / "data", "prices", "BTCUSDT")
    assert [(row["trade_id"], row["seq"]) for row in rows] == [(1, 2), (2, 6), (3, 8), (4, 9)]
    assert summary.metrics.other_events == {"bookTicker": 6}
    (kept,) = quarantined(tmp_path / "data")
    assert (kept["recv_ns"], kept["text"]) == (STAMP + 4_000, frames[4].decode())
    assert summary.metrics.malformed == 1
    with_quotes = ingest([recording], tmp_path / "quotes", channels=ChannelSettings(record=("bbo",)))
    assert stored(tmp_path / "quotes", "prices", "BTCUSDT") == rows
    quotes = stored(tmp_path / "quotes", "bbo", "BTCUSDT")
    assert [(row["update_id"], row["seq"]) for row in quotes] == [
        (1, 1),
        (2, 3),
        (3, 4),
        (5, 7),
        (6, 8),
        (7, 8),
    ]
    assert with_quotes.metrics.malformed == 1


def test_another_recording_goes_on_after_the_first_in_seq_and_cvd(tmp_path):
    frames = [trade(number, qty=0.1, at_ms=T0_MS) for number in range(20)]
    whole = write_recording(tmp_path / "whole", frames)
    first = write_recording(tmp_path / "first", frames[:11])
    second = write_recording(tmp_path / "second", frames[11:], start_ns=STAMP + 11_000)
    ingest([whole], tmp_path / "at-once")
    ingest([first, second], tmp_path / "together")
    ingest([first], tmp_path / "apart")
    ingest([second], tmp_path / "apart")
    for kind in ("prices", "cvd"):
        at_once = stored(tmp_path / "at-once", kind, "BTCUSDT")
        assert stored(tmp_path / "together", kind, "BTCUSDT") == at_once
        assert stored(tmp_path / "apart", kind, "BTCUSDT") == at_once
    assert at_once[-1]["cvd"] == 2.0


def test_aggregate_trades_after_raw_ones_are_refused(tmp_path):
    ingest([write_recording(tmp_path / "raw", [trade(1)])], tmp_path / "data")
    before = contents(tmp_path / "data")
    other = write_recording(tmp_path / "agg", [trade(7, event="aggTrade")])
    with pytest.raises(IdSpaceError, match="raw"):
        ingest([other], tmp_path / "data")
    assert contents(tmp_path / "data") == before
    # Another symbol's ids, and a recording without trades, are no matter.
    ingest(
        [write_recording(tmp_path / "eth", [trade(7, symbol="ETHUSDT", event="aggTrade")])], tmp_path / "data"
    )
    ingest([write_recording(tmp_path / "depth", [diff(1, 2, 0)])], tmp_path / "data")


def test_raw_and_aggregate_trades_at_once_are_refused(tmp_path):
    paths = [
        write_recording(tmp_path / "raw", [trade(1)]),
        write_recording(tmp_path / "agg", [trade(7, event="aggTrade")]),
    ]
    with pytest.raises(MixedTradesError):
        ingest(paths, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_trades_of_the_other_space_far_into_a_file_are_counted_not_stored(tmp_path):
    frames = [trade(number) for number in range(2_100)] + [trade(7, event="aggTrade")]
    summary = ingest([write_recording(tmp_path / "a", frames)], tmp_path / "data")
    assert summary.rows["prices", "BTCUSDT"] == 2_100
    assert any("1 aggregate trade: not recorded" in line for line in summary.oddities())


def test_snapshot_in_a_file_of_two_symbols_is_ambiguous_and_kept_for_inspection(tmp_path):
    frames = [
        trade(1),
        diff(1, 5, 0),
        snapshot(5, [(99.0, 1.0)], [(101.0, 1.0)], at_ms=T0_MS),
        trade(1, symbol="ETHUSDT"),
        diff(6, 9, 5),
    ]
    recording = write_recording(tmp_path / "both", frames)
    summary = ingest([recording], tmp_path / "data")
    (kept,) = quarantined(tmp_path / "data")
    assert kept["connection"] == "both:3"
    assert "2" in kept["why"]
    assert kept["text"] == frames[2].decode()
    assert [row["source"] for row in stored(tmp_path / "data", "depth", "BTCUSDT")] == ["ws", "ws"]
    assert stored(tmp_path / "data", "orderbook", "BTCUSDT") == []
    assert len(stored(tmp_path / "data", "prices", "ETHUSDT")) == 1
    assert summary.metrics.malformed == 1


def test_what_cannot_be_read_is_kept_with_its_place_and_the_rest_is_stored(tmp_path):
    content = b"".join(b"%d %s\n" % (STAMP + number, trade(number)) for number in range(3))
    content += b"a comment\n" + b"%d {broken}\n" % (STAMP + 3) + b'%d {"x":"\xff"}\n' % (STAMP + 4)
    content += b"%d %s\n" % (STAMP + 5, trade(3)) + b"%d %s" % (STAMP + 6, trade(4)[:-9])
    path = tmp_path / "a"
    path.write_bytes(content)
    summary = ingest([path], tmp_path / "data")
    assert [row["trade_id"] for row in stored(tmp_path / "data", "prices", "BTCUSDT")] == [0, 1, 2, 3]
    kept = quarantined(tmp_path / "data")
    assert [one["connection"] for one in kept] == ["a:4", "a", "a:6", "a:8"]
    assert kept[1]["recv_ns"] == STAMP + 3
    assert "base64" in kept[2]
    assert summary.metrics.malformed == 4
    assert any("4 malformed messages" in line for line in summary.oddities())


def test_damaged_gzip_gives_what_is_there_and_says_so(tmp_path):
    path = write_recording(tmp_path / "a", market())
    whole = path.read_bytes()
    path.write_bytes(gzip.compress(whole)[:-2000])
    summary = ingest([path], tmp_path / "data")
    (kept,) = quarantined(tmp_path / "data")
    assert "damaged" in kept["why"]
    assert 0 < summary.rows["prices", "BTCUSDT"] < 200


def test_one_recording_that_is_none_stops_the_ingest_before_anything_is_written(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(RecordingError, match="empty"):
        ingest([write_recording(tmp_path / "a", [trade(1)]), tmp_path / "empty"], tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_progress_goes_up_to_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest_module, "LINES_PER_MEASURE", 50)
    paths = [
        write_recording(tmp_path / "a", market()),
        write_recording(tmp_path / "b", market("ETHUSDT"), start_ns=STAMP + 5),
    ]
    job = Ingest(paths, settings_for(tmp_path / "data"))
    seen: list[int] = []
    job.run(seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == job.total_bytes == sum(path.stat().st_size for path in paths)
    assert len(seen) > 10


def test_failed_write_surfaces_and_what_was_published_is_whole(tmp_path, monkeypatch):
    recording = write_recording(tmp_path / "a", market())
    publish, calls = DataDirectory.publish, []

    def fail_at_the_fourth(self, path, data):
        calls.append(path)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        return publish(self, path, data)

    monkeypatch.setattr(DataDirectory, "publish", fail_at_the_fourth)
    with pytest.raises(OSError, match="No space"):
        ingest([recording], tmp_path / "data")
    for kind in KINDS:
        stored(tmp_path / "data", kind, "BTCUSDT")
    assert not list((tmp_path / "data").rglob("*.tmp"))


def failing(monkeypatch, at):
    """Let the publishing of the file number ``at`` fail, and all after it."""
    publish, calls = DataDirectory.publish, []

    def fail(self, path, data):
        calls.append(path)
        if len(calls) >= at:
            raise OSError(28, "No space left on device")
        return publish(self, path, data)

    monkeypatch.setattr(DataDirectory, "publish", fail)


@pytest.mark.parametrize("at", [2, 5, 9])
def test_an_ingest_that_failed_half_way_is_made_again_and_gives_what_it_should_have(
    tmp_path, monkeypatch, at
):
    recordings = [
        write_recording(tmp_path / "btc", market()),
        write_recording(tmp_path / "eth", market("ETHUSDT")),
    ]
    earlier = write_recording(tmp_path / "earlier", [trade(1), diff(1, 2, 0)], start_ns=STAMP - 10**9)
    for root in ("whole", "data"):
        ingest([earlier], tmp_path / root)
    ingest(recordings, tmp_path / "whole")
    with monkeypatch.context() as patched:
        failing(patched, at)
        with pytest.raises(OSError, match="No space"):
            ingest(recordings, tmp_path / "data")
    assert contents(tmp_path / "data").keys() < contents(tmp_path / "whole").keys()
    ingest(recordings, tmp_path / "data")
    assert contents(tmp_path / "data") == contents(tmp_path / "whole")
    with pytest.raises(AlreadyIngestedError):
        ingest(recordings, tmp_path / "data")


def test_what_an_ingest_left_is_not_removed_where_it_says_other_recordings_or_none(tmp_path, monkeypatch):
    recording = write_recording(tmp_path / "btc", market())
    with monkeypatch.context() as patched:
        failing(patched, 4)
        with pytest.raises(OSError, match="No space"):
            ingest([recording], tmp_path / "data")
    path = next((tmp_path / "data").rglob("*.parquet"))
    path.write_bytes(b"somebody else's")
    before = contents(tmp_path / "data")
    with pytest.raises(AlreadyIngestedError):
        ingest([recording], tmp_path / "data")
    assert contents(tmp_path / "data") == before


def test_foreign_file_under_the_name_of_one_to_be_written_is_left_as_it_is(tmp_path):
    recording = write_recording(tmp_path / "a", [trade(1)])
    job = Ingest([recording], settings_for(tmp_path / "data"))
    directory = tmp_path / f"data/prices/venue=binance-usdm/symbol=BTCUSDT/date={'2024-07-18'}"
    directory.mkdir(parents=True)
    foreign = directory / f"{job.run_id}-1-1.parquet"
    foreign.write_bytes(b"somebody else's")
    with pytest.raises(FileExistsInStoreError):
        job.run()
    assert foreign.read_bytes() == b"somebody else's"


def test_number_of_levels_is_a_setting(tmp_path):
    recording = write_recording(tmp_path / "a", market())
    settings = settings_for(tmp_path / "data")
    settings = attrs.evolve(settings, book=attrs.evolve(settings.book, levels=20))
    Ingest([recording], settings).run()
    assert "ask_qty_19" in stored(tmp_path / "data", "orderbook", "BTCUSDT", day=DAY)[0]
