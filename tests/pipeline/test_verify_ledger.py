"""The ledger and the files: where they disagree the files win, and it is said."""

from __future__ import annotations

import msgspec

from harvest.storage import ledger
from tests.pipeline.stored import files, recorded, verified


def test_a_ledger_that_agrees_is_not_spoken_of(tmp_path):
    recorded(tmp_path)
    ledger.rebuild(tmp_path)
    report = verified(tmp_path)
    assert (report.complete, report.warnings) == (True, [])


def test_duplicates_that_only_the_writer_could_count_are_no_disagreement(tmp_path):
    recorded(tmp_path)
    counted = [msgspec.structs.replace(one, duplicates=7) for one in ledger.rebuild(tmp_path).entries]
    for page in ledger.pages(tmp_path):
        page.unlink()
    ledger.append(tmp_path, counted)
    assert verified(tmp_path).warnings == []


def test_a_file_that_the_ledger_names_and_that_is_not_there_is_a_warning_with_its_ids(tmp_path):
    recorded(tmp_path, ticks=20)
    ledger.rebuild(tmp_path)
    for kind in ("prices", "cvd"):
        (path,) = files(tmp_path, kind)
        path.unlink()
    report = verified(tmp_path)
    # The files alone show no hole: nothing is there that would be on both sides of it.
    assert report.complete
    (line,) = [line for line in report.warnings if " prices " in line]
    assert "20 rows, ids 1001 to 1020" in line


def test_a_disagreement_names_what_differs_and_is_no_damage(tmp_path):
    recorded(tmp_path)
    entries = ledger.rebuild(tmp_path).entries
    dropped = next(one for one in entries if one.kind == "cvd")
    wrong = [
        msgspec.structs.replace(one, ws=(), rows=3) if one.kind == "prices" else one
        for one in entries
        if one is not dropped
    ]
    for page in ledger.pages(tmp_path):
        page.unlink()
    ledger.append(tmp_path, wrong)
    report = verified(tmp_path)
    assert report.complete
    assert len([line for line in report.warnings if "otherwise (rows, ws)" in line]) == 2
    assert len([line for line in report.warnings if "does not know" in line]) == 1


def test_a_torn_ledger_and_one_of_a_symbol_that_is_gone_are_warnings(tmp_path):
    recorded(tmp_path)
    entries = ledger.rebuild(tmp_path).entries
    ledger.append(tmp_path, [msgspec.structs.replace(entries[0], symbol="GONEUSDT")])
    page = ledger.page_path(tmp_path, "binance-usdm", "BTCUSDT", entries[0].date)
    with page.open("ab") as file:
        file.write(b'{"kind":"pri')
    report = verified(tmp_path)
    assert report.complete
    assert len([line for line in report.warnings if "torn" in line]) == 1
    assert len([line for line in report.warnings if "GONEUSDT" in line]) == 1
