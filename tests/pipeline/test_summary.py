"""The account that a run leaves behind."""

from __future__ import annotations

import io

from rich.console import Console

from tests.pipeline.ingested import ingest, write_recording
from tests.pipeline.wire import diff, trade

TICKER = b'{"e":"bookTicker","u":1,"E":1,"T":1,"s":"BTCUSDT","b":"1","B":"1","a":"2","A":"1"}'


def printed(summary, **console):
    file = io.StringIO()
    summary.print(Console(file=file, **console))
    return file.getvalue()


def test_summary_names_rows_gaps_and_whatever_did_not_become_a_row(tmp_path):
    frames = [
        trade(1),
        trade(5),
        trade(5),
        diff(1, 2, 0),
        b"{",
        b'{"data":{"e":"novelty"}}',
        trade(1, symbol="X" * 300),
    ]
    frames += [b'{"stream":"btcusdt@bookTicker","data":%s}' % TICKER] * 1234
    summary = ingest([write_recording(tmp_path / "a", frames)], tmp_path / "data")
    text = printed(summary)
    (row,) = [line for line in text.splitlines() if "BTCUSDT" in line]
    # prices, depth, orderbook, ofi, cvd, breaks, audits; gaps, missing ids, duplicates
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "BTCUSDT",
        *("2", "1", "0", "0", "2", "1", "0"),
        *("1", "3", "1"),
    ]
    assert summary.run in text
    assert "1 malformed messages, kept in" in text
    assert "1,234 bookTicker: not recorded" in text
    assert "1 novelty: unknown events, not recorded" in text
    assert "symbols that were not asked for" in text


def test_rows_that_were_not_written_are_named(tmp_path):
    summary = ingest([write_recording(tmp_path / "a", [trade(1)])], tmp_path / "data")
    summary.unwritten.append("prices [BTCUSDT]: 5 rows")
    assert "NOT WRITTEN: prices [BTCUSDT]: 5 rows" in printed(summary)


def test_table_is_not_cut_where_there_is_no_terminal(tmp_path):
    frames = [trade(number, symbol="1000000MOGUSDT") for number in range(1, 2000)]
    summary = ingest([write_recording(tmp_path / "a", frames)], tmp_path / "data")
    assert "…" not in printed(summary, width=40)
