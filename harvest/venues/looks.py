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

#: Forms that are remembered, and looks of each: in one of them other digits are fixed than in another.
FORMS, LOOKS = 512, 8
#: Stencils that may be laid on the texts of one block in vain.
MISSES = 3
#: After blocks in which too few texts look alike, at most so many are not looked at.
MOST_PASSED = 32
#: Makes one text of all that differ in digits.
_FORM = bytes.maketrans(b"123456789", b"0" * 9)
#: Bits of a kind that are its texts' length.
_LENGTH_BITS = np.uint64(16)


class Trials:
    """Says whether it is worth it to look for what is alike: for a while not, and each time longer, after it was in vain."""

    def __init__(self) -> None:
        self._to_pass = self._passing = 0

    def may(self) -> bool:
        """Tell whether the next block may be looked at."""
        self._to_pass -= 1
        return self._to_pass < 0

    def ended(self, *, well: bool) -> None:
        """Note how it went with a block that was looked at."""
        self._passing = 0 if well else min(2 * self._passing + 1, MOST_PASSED)
        self._to_pass = self._passing


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
        self._known: dict[bytes, tuple[L, ...]] = {}

    def find(
        self, block: bytes, starts: Places, lengths: Integers, keys: Keys | None = None
    ) -> tuple[list[tuple[L, Places, Numbers]], list[int]] | None:
        """Find texts that look alike among those that begin at ``starts``: their look, which they are, and their numbers.

        Only texts of one length, and with the same of ``keys`` (lengths are below 2**16 then), are thought to look alike. Returns
        the places of those that look like too few others, too; None where these are too many. Behind each text ``stencil.REACH``
        bytes must be there.
        """
        kinds = lengths.astype(np.uint64)
        if keys is not None:
            kinds += keys << _LENGTH_BITS
        _, of, sizes = np.unique(kinds, return_inverse=True, return_counts=True)
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
            length = int(lengths[places[0]])
            while len(places) >= self._least and misses <= MISSES:
                start = int(starts[places[0]])
                look = self._look_of(block[start : start + length])
                if look is None:
                    break
                numbers, fits = look.stencil.lay(block, starts[places])
                if fits is None:
                    found.append((look, places, numbers))
                    places = places[:0]
                elif np.count_nonzero(fits) >= self._least:
                    found.append((look, places[fits], numbers.only(fits)))
                    places = places[~fits]
                else:
                    misses += 1
                    # Its own look does not fit the first where that has a number which begins with 0.
                    fits[0] = True
                    left, places = np.append(left, places[fits]), places[~fits]
            left = np.append(left, places)
        return None if len(left) > may_be_left else (found, left.tolist())

    def _look_of(self, text: bytes) -> L | None:
        """Return how a text looks; None where nobody can say."""
        form = text.translate(_FORM)
        known = self._known.get(form, ())
        for look in known:
            if look.stencil.is_like(text):
                return look
        learned = self._learn(text)
        if learned is not None:
            if len(self._known) >= FORMS:
                self._known.clear()
            self._known[form] = (learned, *known[: LOOKS - 1])
        return learned
