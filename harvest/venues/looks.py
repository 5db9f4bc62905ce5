"""How the texts of a venue look, as far as it was seen: each look is a stencil, and what the learner says it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from harvest.venues.stencil import Numbers, Stencil

    Places = NDArray[np.intp]

#: Looks that are remembered of texts of one length, and that may be learned from one block.
LOOKS = 8


#: After a block in which too few texts look alike, so many are not looked at.
BLOCKS_PASSED = 32


class Trials:
    """Says whether it is worth it to look for what is alike: for a while not, after it was in vain."""

    def __init__(self) -> None:
        self._passed = BLOCKS_PASSED

    def may(self) -> bool:
        """Tell whether the next block may be looked at."""
        self._passed += 1
        return self._passed > BLOCKS_PASSED

    def failed(self) -> None:
        """Note that a block was looked at in vain."""
        self._passed = 0


class Look(Protocol):
    """What many texts have in common."""

    @property
    def stencil(self) -> Stencil:
        """What reads them."""
        ...


L = TypeVar("L", bound=Look)


class Looks(Generic[L]):
    """Remembers looks, and finds the texts that have one; ``learn`` says how a text looks, None where it cannot.

    At least ``least`` texts have to look alike: fewer are not worth a stencil.
    """

    def __init__(self, learn: Callable[[bytes], L | None], *, least: int) -> None:
        self._learn = learn
        self._least = least
        self._known: dict[int, tuple[L, ...]] = {}

    def find(
        self, block: bytes, starts: Places, lengths: NDArray[np.integer]
    ) -> Iterator[tuple[L, Places, Numbers]]:
        """Find texts that look alike among those that begin at ``starts``: their look, which they are, and their numbers.

        Behind each text ``stencil.REACH`` bytes must be there. What is not among the texts that are found, looks like too few others.
        """
        for length in np.flatnonzero(np.bincount(lengths)).tolist():
            if length:
                yield from self._find(block, starts, length, np.flatnonzero(lengths == length))

    def _find(
        self, block: bytes, starts: Places, length: int, places: Places
    ) -> Iterator[tuple[L, Places, Numbers]]:
        looks = list(self._known.get(length, ()))
        learned = 0
        while len(places) >= self._least:
            if not looks:
                start = int(starts[places[0]])
                look = self._learn(block[start : start + length]) if learned < LOOKS else None
                if look is None:
                    return
                self._known[length] = (look, *self._known.get(length, ())[: LOOKS - 1])
                learned += 1
                looks.append(look)
            look = looks.pop(0)
            numbers, fits = look.stencil.lay(block, starts[places])
            if fits is None:
                yield look, places, numbers
                return
            if fits.any():
                yield look, places[fits], numbers.only(fits)
                places = places[~fits]
