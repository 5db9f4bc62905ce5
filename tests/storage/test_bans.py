"""Bans are remembered, whoever hears of them at the same time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from harvest.storage.bans import Bans

if TYPE_CHECKING:
    from pathlib import Path


def test_requests_that_are_refused_together_all_remember_the_ban(tmp_path: Path):
    bans, now_ns = Bans(tmp_path), time.time_ns()
    hosts = [f"host-{number}" for number in range(8)]
    together, failed = threading.Barrier(len(hosts)), []

    def remember(host: str) -> None:
        together.wait()
        for seconds in range(1, 11):
            try:
                bans.remember(host, now_ns + seconds * 60 * 10**9)
            except OSError as error:
                failed.append(error)

    threads = [threading.Thread(target=remember, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert {bans.seconds_left(host, now_ns) for host in hosts} == {600.0}
