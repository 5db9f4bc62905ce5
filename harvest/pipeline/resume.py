"""What a run takes over from the runs before it, as their files tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import attrs

from harvest.book.flow import sum_from_float
from harvest.errors import IdSpaceError
from harvest.storage.catalog import Catalog, scan
from harvest.storage.open_gaps import open_gaps

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from harvest.market import IdSpace


ResumeCvd: TypeAlias = Callable[[str, int], int]
"""Tells the running sum, in 1e-8, that is stored for a symbol and a date (days since 1970, UTC); 0 if none is."""


def resume_cvd(catalog: Catalog, symbols: Iterable[str] = (), day: int | None = None) -> ResumeCvd:
    """Read what is stored; for ``symbols`` and ``day`` at once, so that no file is opened for them later.

    It blocks on the disk, so call it in a thread.
    """

    def stored_units(symbol: str, of_day: int) -> int:
        last = catalog.last_cvd(symbol, of_day)
        return 0 if last is None else sum_from_float(last)

    known = {} if day is None else {(symbol, day): stored_units(symbol, day) for symbol in symbols}
    return lambda symbol, of_day: (
        known[symbol, of_day] if (symbol, of_day) in known else stored_units(symbol, of_day)
    )


@attrs.frozen
class Stored:
    """What the data directory holds of a run's symbols when they begin; ``day`` is the date that was looked at for ``cvd``."""

    catalog: Catalog
    resume_cvd: ResumeCvd
    #: The greatest stored trade id, of the symbols that have one.
    last_trade_ids: dict[str, int]
    day: int
    #: Trades of that date and the one before that are missing between stored ones, and may still be had.
    open_gaps: dict[str, list[tuple[int, int]]] = attrs.field(factory=dict)


def look_at_stored(
    root: Path, venue: str, symbols: Sequence[str], day: int, *, before_seq: int | None = None
) -> Stored:
    """Read what is taken over of ``symbols``, in a thread: it blocks on the disk. Trades from ``before_seq`` on do not count."""
    catalog = scan(root, venue)
    last_ids = {
        symbol: last
        for symbol in symbols
        if (last := catalog.last_trade_id(symbol, before_seq=before_seq)) is not None
    }
    gaps = {
        symbol: of_symbol
        for symbol in last_ids
        if (of_symbol := open_gaps(catalog, symbol, (day - 1, day), before_seq=before_seq))
    }
    return Stored(catalog, resume_cvd(catalog, symbols, day), last_ids, day, gaps)


def check_id_space(catalog: Catalog, symbols: Iterable[str], asked: IdSpace) -> None:
    """Refuse to mix aggregate and raw trade ids in one data directory.

    Raises:
        IdSpaceError: a symbol's stored ids are of the other space.
    """
    for symbol in symbols:
        stored = catalog.id_space(symbol)
        if stored is not None and stored != asked:
            raise IdSpaceError(f"{catalog.root} ({symbol})", stored, asked)
