"""What a run takes over from the runs before it, as their files tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harvest.book.flow import sum_from_float
from harvest.errors import IdSpaceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from harvest.market import IdSpace
    from harvest.storage.catalog import Catalog


def resume_cvd(catalog: Catalog) -> Callable[[str, int], int]:
    """Make the function that tells the running sum, in 1e-8, that is stored for a symbol and date (0: none)."""

    def stored_units(symbol: str, day: int) -> int:
        last = catalog.last_cvd(symbol, day)
        return 0 if last is None else sum_from_float(last)

    return stored_units


def check_id_space(catalog: Catalog, symbols: Iterable[str], asked: IdSpace) -> None:
    """Refuse to mix aggregate and raw trade ids in one data directory.

    Raises:
        IdSpaceError: a symbol's stored ids are of the other space.
    """
    for symbol in symbols:
        stored = catalog.id_space(symbol)
        if stored is not None and stored != asked:
            raise IdSpaceError(f"{catalog.root} ({symbol})", stored, asked)
