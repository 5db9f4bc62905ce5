"""The ledger of a run: each file is entered once, however often the disk refuses."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from bench.faults.crash_disk import CrashDisk, Refusal
from harvest.nurseries.bookkeeper import Bookkeeper
from harvest.storage import ledger
from harvest.storage.parquet import Provenance, encode
from tests.storage.rows import sealed_trades

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("lasts", [False, True])
def test_what_the_disk_refused_is_entered_once_when_it_works_again(tmp_path: Path, lasts: bool) -> None:
    provenance = Provenance("binance-usdm", "20261122T000000Z00ff")
    files = [
        encode(sealed_trades(symbol=symbol, first_seq=seq), provenance) for symbol in "AB" for seq in (1, 9)
    ]
    for at in range(100):
        root = tmp_path / f"{at}"
        root.mkdir()
        refusal = Refusal(at, errno.ENOSPC, lasts=lasts, until=20)
        bookkeeper = Bookkeeper(root, filesystem=CrashDisk(root, refusal=refusal))
        for file in files:
            bookkeeper.enter(file)
        while not bookkeeper.flush():
            pass
        entries = ledger.read(root).entries
        assert [(one.symbol, one.first_seq) for one in entries] == [("A", 1), ("A", 9), ("B", 1), ("B", 9)], (
            at
        )
        assert bool(bookkeeper.failures) == bool(refusal.count)
        if not refusal.count:
            return
    pytest.fail("it never got to its end")
