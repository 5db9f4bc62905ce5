"""Numbers that depend on nothing but their arguments: hashes, and smooth noise made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Ints: TypeAlias = NDArray[np.int64]
    Hashes: TypeAlias = NDArray[np.uint64]

_MASK: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15
_FIRST: Final = 0xBF58476D1CE4E5B9
_SECOND: Final = 0x94D049BB133111EB


def mix(key: int, value: int) -> int:
    """Hash an integer under a 64-bit key (the finaliser of SplitMix64).

    Chain it to hash several: ``mix(mix(key, tick), slot)``.
    """
    z = (key ^ (value * _GOLDEN)) & _MASK
    z = ((z ^ (z >> 30)) * _FIRST) & _MASK
    z = ((z ^ (z >> 27)) * _SECOND) & _MASK
    return z ^ (z >> 31)


def mix_array(key: int | Hashes, values: Ints) -> Hashes:
    """Hash every element as `mix` would, under one key or one key an element."""
    keys = np.uint64(key) if isinstance(key, int) else key
    z = keys ^ (values.astype(np.uint64) * np.uint64(_GOLDEN))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_FIRST)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_SECOND)
    hashed: Hashes = z ^ (z >> np.uint64(31))
    return hashed


def key_of(seed: int, *words: str) -> int:
    """Derive a 64-bit key from a seed and words, the same on every machine and in every process."""
    key = mix(_GOLDEN, seed)
    for word in words:
        for byte in word.encode():
            key = mix(key, byte)
        key = mix(key, -1)
    return key


class ValueNoise:
    """A smooth function of an integer: the sum of octaves, each (period, amplitude).

    An octave takes a hashed value in [-amplitude, amplitude] at the multiples of its period and is
    interpolated by smoothstep between them, so that its slope never exceeds 3 x amplitude / period.
    """

    def __init__(self, key: int, octaves: Sequence[tuple[int, float]]) -> None:
        self._octaves = [(mix(key, number), *octave) for number, octave in enumerate(octaves)]
        self._cells = [(-(1 << 62), 0.0, 0.0)] * len(self._octaves)

    def at(self, x: int) -> float:
        """Give the noise at ``x``; it needs no history, at any ``x``."""
        total = 0.0
        for number, (key, period, amplitude) in enumerate(self._octaves):
            cell, offset = divmod(x, period)
            known, left, right = self._cells[number]
            if known != cell:
                left = mix(key, cell) / 2.0**63 - 1.0
                right = mix(key, cell + 1) / 2.0**63 - 1.0
                self._cells[number] = (cell, left, right)
            part = offset / period
            total += amplitude * (left + (right - left) * part * part * (3.0 - 2.0 * part))
        return total
