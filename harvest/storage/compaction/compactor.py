"""One pass of compaction over a data directory."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import attrs
import pyarrow as pa

from harvest.errors import StorageError
from harvest.storage.compaction.pieces import combined, groups, look_at
from harvest.storage.compaction.rewrite import rewrite
from harvest.storage.compaction.standing import bring_ledger_up
from harvest.storage.compaction.swap import STAGING, Place, staged_places
from harvest.storage.directories import make_directories
from harvest.storage.filesystem import Filesystem
from harvest.storage.flock import try_lock
from harvest.storage.layout import (
    PRIVATE_PREFIX,
    decode_symbol,
    file_name,
    parse_date,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harvest.storage.compaction.pieces import Piece
    from harvest.storage.layout import FileName

DAY_NS = 86_400 * 10**9
HOUR_NS = 3_600 * 10**9
#: Rows of a date may still be on their way so long after its end.
CLOSED_AFTER_NS = HOUR_NS


@attrs.frozen
class Options:
    """What a pass is to do. Days are counted from 1970-01-01, UTC.

    Dates before ``closed_before`` become one file, or as many as have ``max_rows``; of later ones, the files that are older than
    ``settled_before_ns``: the hours that are over. Dates before ``since_day`` are not looked at.
    """

    closed_before: int
    settled_before_ns: int = 0
    since_day: int | None = None
    max_rows: int = 20_000_000
    force: bool = False
    dry_run: bool = False

    @classmethod
    def at(cls, now_ns: int, *, hours: bool = True, **changes: object) -> Options:
        """Make the options of a pass at ``now_ns``; ``hours`` compacts those of the current date that are over."""
        return cls(
            closed_before=(now_ns - CLOSED_AFTER_NS) // DAY_NS,
            settled_before_ns=now_ns // HOUR_NS * HOUR_NS if hours else 0,
            **changes,  # type: ignore[arg-type]
        )


@attrs.define
class Compaction:
    """What a pass has done."""

    directories: int = 0
    files_before: int = 0
    files_after: int = 0
    rows: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    seconds: float = 0.0
    #: What was left as it is, and why.
    problems: list[str] = attrs.Factory(list)

    def add(self, other: Compaction) -> None:
        """Add what another pass has done, but for its time."""
        for field in attrs.fields(Compaction):
            if field.name not in ("seconds", "problems"):
                setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        self.problems += other.problems


def compact(
    root: Path,
    options: Options,
    *,
    jobs: int = 1,
    filesystem: Filesystem | None = None,
    on_done: Callable[[int, int], None] = lambda _done, _of: None,
) -> Compaction:
    """Compact what is to be compacted below ``root``, and clear away what a pass before has left.

    ``jobs`` processes work at once. ``on_done`` gets how many directories were looked at, and of how many. A directory in which
    something is wrong is left as it is, and named in the result. Another pass that goes on meanwhile is waited for.

    Raises:
        OSError: the lock of compaction cannot be made.
    """
    started = time.monotonic()
    done = Compaction()
    filesystem = filesystem or Filesystem()
    if not root.is_dir():
        return done
    with contextlib.nullcontext() if options.dry_run else _alone(root, filesystem):
        places = list(dict.fromkeys(_directories(root, options)))
        if not options.dry_run:
            # What a crash left is cleared even if its date is not looked at any more.
            places += [one.relative for one in staged_places(root, filesystem) if one.relative not in places]
        if jobs > 1 and len(places) > 1:
            for number, one in enumerate(_in_processes(root, places, options, jobs), start=1):
                done.add(one)
                on_done(number, len(places))
        else:
            for number, relative in enumerate(places, start=1):
                done.add(compact_directory(root, relative, options, filesystem))
                on_done(number, len(places))
    done.seconds = time.monotonic() - started
    return done


def compact_directory(
    root: Path, relative: PurePosixPath, options: Options, filesystem: Filesystem | None = None
) -> Compaction:
    """Compact one date directory, ``<kind>/venue=…/symbol=…/date=…`` below ``root``."""
    place = Place(root, relative, filesystem or Filesystem())
    done = Compaction()
    try:
        if not options.dry_run and place.staged.exists():
            _finish(place)
        pieces = _chosen(place, options)
        found = groups(pieces, options.max_rows)
        after = _replace(place, found, options) if found and not options.dry_run else 0
    except (OSError, pa.ArrowException, LookupError, ValueError) as error:
        done.problems.append(f"{relative}: {str(error).splitlines()[0]}")
        return done
    except StorageError as error:
        done.problems.append(str(error))
        return done
    if found:
        replaced = [piece for group in found for piece in group]
        done.directories = 1
        done.files_before, done.files_after = len(replaced), len(found)
        done.rows = sum(piece.rows for piece in replaced)
        done.bytes_before = sum(piece.size_bytes for piece in replaced)
        done.bytes_after = after
    return done


def _chosen(place: Place, options: Options) -> list[Piece]:
    kind, venue, symbol, date = place.relative.parts
    names = place.names()
    if parse_date(date.removeprefix("date=")) >= options.closed_before:
        names = [name for name in names if not name.generation and _is_settled(place, name, options)]
    if len(names) < 2:
        return []
    expected = {
        "kind": kind,
        "venue": venue.removeprefix("venue="),
        "symbol": decode_symbol(symbol.removeprefix("symbol=")),
        "date": date.removeprefix("date="),
    }
    return [look_at(place.live / file_name(*name), name, expected) for name in names]


def _is_settled(place: Place, name: FileName, options: Options) -> bool:
    return (place.live / file_name(*name)).stat().st_mtime_ns < options.settled_before_ns


def _replace(place: Place, found: list[list[Piece]], options: Options) -> int:
    """Replace each group by one file; returns the bytes of these."""
    size_bytes = 0
    filesystem = place.filesystem
    # Greater than that of any file which is there: a reader that has listed the old directory finds none of its names anew.
    generation = 1 + max(name.generation for name in place.names())
    try:
        place.prepare()
        for group in found:
            name, facts = combined(group, generation)
            rewrite(group, place.new / name, facts, filesystem)
            size_bytes += (place.new / name).stat().st_size
        place.exchange({piece.path.name for group in found for piece in group}, force=options.force)
    except (OSError, StorageError):
        with contextlib.suppress(
            OSError, pa.ArrowException, LookupError, ValueError
        ):  # The next pass tries again.
            _finish(place)
        raise
    _finish(place)
    return size_bytes


def _finish(place: Place) -> None:
    """Make the exchange durable, bring the ledger up to it, and clear what is staged: in this order, for a crash."""
    place.put_back()
    place.settle()
    bring_ledger_up(place)
    place.clear()


def _directories(root: Path, options: Options) -> Iterator[PurePosixPath]:
    for kind in _subdirectories(root, ""):
        for venue in _subdirectories(root / kind, "venue="):
            for symbol in _subdirectories(root / kind / venue, "symbol="):
                for date in _subdirectories(root / kind / venue / symbol, "date="):
                    with contextlib.suppress(ValueError):  # No directory of harvest: verify says so.
                        day = parse_date(date.removeprefix("date="))
                        decode_symbol(symbol.removeprefix("symbol="))
                        if options.since_day is None or day >= options.since_day:
                            yield PurePosixPath(kind, venue, symbol, date)


def _subdirectories(path: Path, prefix: str) -> list[str]:
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.name.startswith(prefix) and entry.name[0] not in (PRIVATE_PREFIX, ".") and entry.is_dir()
        )
    return []


@contextlib.contextmanager
def _alone(root: Path, filesystem: Filesystem) -> Iterator[None]:
    """Wait until no other pass goes on: that of a run which was just killed has not ended yet, perhaps."""
    make_directories(root / STAGING, filesystem)
    descriptor = filesystem.open(root / STAGING / "lock", os.O_CREAT)
    try:
        while not _locked(descriptor):
            time.sleep(0.1)
        yield
    finally:
        filesystem.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        return try_lock(descriptor)
    except OSError:
        return True  # No locks here: then nothing can be exchanged either, unless by hand.


def _in_processes(
    root: Path, places: list[PurePosixPath], options: Options, jobs: int
) -> Iterator[Compaction]:
    # Not fork: the caller may have threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(places)), mp_context=context) as pool:
        futures = [pool.submit(compact_directory, root, relative, options) for relative in places]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
