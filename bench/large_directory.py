"""Make a directory of many days and symbols, as small a day as it may be, to time what reads whole directories.

python -m bench.large_directory DIR --days 400 --symbols 60
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from harvest.storage.files import DataDirectory
from harvest.storage.filesystem import Filesystem
from harvest.storage.parquet import Provenance, encode
from tests.pipeline.wire import DAY, Harness, diff, snapshot, trade

Book = tuple[list[tuple[float, float]], list[tuple[float, float]]]
VENUE, RUN = "simulated-binance-usdm", "20240718T000000Z0001"


class _Hasty(Filesystem):
    """A disk that is never waited for: what is made here can be made again."""

    def fsync(self, descriptor: int) -> None:
        """Do nothing."""

    def fsync_directory(self, path: Path) -> None:
        """Do nothing."""


def write(root: Path, *, days: int, symbols: int, ticks: int = 12, seed: int = 1) -> None:
    """Write the directory: ``ticks`` diffs and trades a day and symbol; one in a hundred of each is lost."""
    names = [f"COIN{number:03}USDT" for number in range(symbols)]
    harness = Harness("binance-usdm", symbols=names)
    directory = DataDirectory(root, filesystem=_Hasty())
    chaos = random.Random(seed)
    ids = dict.fromkeys(names, 1_000)
    books: dict[str, Book] = {}
    price = {name: 10.0 ** chaos.uniform(0, 4) for name in names}
    for day in range(days):
        for tick in range(ticks):
            at_ms = (DAY + day) * 86_400_000 + (tick * 86_400_000 + 43_200_000) // ticks
            harness.recv_ns = at_ms * 10**6 + 20_000_000
            for name in names:
                price[name] *= 1 + chaos.gauss(0, 0.004)
                bid, before = round(price[name], 4), ids[name]
                ids[name] += 1
                new = (
                    [(round(bid - 0.01, 4), 1 + chaos.random())],
                    [(round(bid + 0.01, 4), 1 + chaos.random())],
                )
                gone = [[(price, 0.0) for price, _ in side] for side in books.get(name, ([], []))]
                levels = [[*there, *here] for there, here in zip(gone, new, strict=True)]
                if chaos.random() > 0.01:
                    harness.frames(diff(before, ids[name], before, *levels, symbol=name, at_ms=at_ms))
                    if name not in books:
                        harness.body(snapshot(ids[name], *new, at_ms=at_ms), name)
                    books[name] = new
                else:
                    # The next diff shows it, and is followed by a snapshot.
                    books.pop(name, None)
                if chaos.random() > 0.01:
                    harness.frames(trade(ids[name], symbol=name, price=bid, at_ms=at_ms))
        harness.pipeline.tables.seal_all()
        for sealed in harness.pipeline.tables.take_sealed():
            path = directory.path_of(sealed, venue=VENUE, run=RUN)
            directory.publish(path, encode(sealed, Provenance(VENUE, RUN, trade_ids="raw")).data)


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path)
    parser.add_argument("--days", type=int, default=400)
    parser.add_argument("--symbols", type=int, default=60)
    arguments = parser.parse_args()
    write(arguments.root, days=arguments.days, symbols=arguments.symbols)


if __name__ == "__main__":
    main()
