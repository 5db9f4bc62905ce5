"""How the texts of a venue look, as far as it was seen: each look is a stencil, and what the learner says it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from harvest.venues.stencil import Numbers, Stencil

    Places = NDArray[np.intp]
    Integers = NDArray[np.int64]
    Keys = NDArray[np.uint64]

#: Looks that are remembered of texts of one kind, and kinds.
LOOKS, KINDS = 8, 512
#: Stencils that may be laid on the texts of one block in vain.
MISSES = 3


#: After a block in which too few texts look alike, so many are not looked at.
BLOCKS_PASSED = 32
#: Bits of a kind that are its texts' length.
_LENGTH_BITS = np.uint64(16)


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

    At least ``least`` texts have to look alike, and ``mean`` on the average: fewer are not worth a stencil. Of all texts one in
    ``alone`` may look like too few.
    """

    def __init__(
        self, learn: Callable[[bytes], L | None], *, least: int, alone: int, mean: int | None = None
    ) -> None:
        self._learn = learn
        self._least, self._mean = least, mean or least
        self._alone = alone
        self._known: dict[int, tuple[L, ...]] = {}

    def find(
        self, block: bytes, starts: Places, lengths: Integers, keys: Keys | None = None
    ) -> tuple[list[tuple[L, Places, Numbers]], list[int]] | None:
        """Find texts that look alike among those that begin at ``starts``: their look, which they are, and their numbers.

        Only texts of one length, and with the same of ``keys`` (lengths are below 2**16 then), are thought to look alike. Returns the places of those that look
        like too few others, too; None where these are too many. Behind each text ``stencil.REACH`` bytes must be there.
        """
        kinds = (
            lengths.astype(np.uint64) if keys is None else (keys << _LENGTH_BITS) + lengths.astype(np.uint64)
        )
        kinds, of, sizes = np.unique(kinds, return_inverse=True, return_counts=True)
        common = np.flatnonzero(sizes >= self._least)
        if sizes[common].sum() < self._mean * len(common):
            return None
        left = np.flatnonzero(sizes[of] < self._least)
        may_be_left = max(len(lengths) // self._alone, 1)
        found: list[tuple[L, Places, Numbers]] = []
        misses = 0
        for index in common.tolist():
            if len(left) > may_be_left:
                return None
            places = np.flatnonzero(of == index)
            looks = iter(self._known.get(int(kinds[index]), ()))
            while len(places) >= self._least and misses <= MISSES:
                look = next(looks, None)
                if look is None:
                    start = int(starts[places[0]])
                    look = self._learned(block[start : start + int(lengths[places[0]])], int(kinds[index]))
                if look is None:
                    break
                numbers, fits = look.stencil.lay(block, starts[places])
                if fits is None:
                    found.append((look, places, numbers))
                    places = places[:0]
                elif np.count_nonzero(fits) < self._least:
                    misses += 1
                else:
                    found.append((look, places[fits], numbers.only(fits)))
                    places = places[~fits]
            left = np.append(left, places)
        return None if len(left) > may_be_left else (found, left.tolist())

    def _learned(self, text: bytes, kind: int) -> L | None:
        look = self._learn(text)
        if look is not None:
            if len(self._known) >= KINDS:
                self._known.clear()
            self._known[kind] = (look, *self._known.get(kind, ())[: LOOKS - 1])
        return look
