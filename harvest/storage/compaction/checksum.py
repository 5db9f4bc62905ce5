"""Checksums of rows by column that do not depend on the order in which files are read, nor on how rows are batched.

Each value is mixed with its row's ``seq`` and its place among the rows of that record, and the results are added up. So what is
read of many files and what is read of one must give the same sums, without one being held against the other row by row.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harvest.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Words = NDArray[np.uint64]

_MASK = 2**64 - 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_NULL = np.uint64(0xD1B54A32D192ED03)


class DisorderError(StorageError):
    """Rows of a file that are not in the order of ``seq``."""


class Checksum:
    """The sums of all rows that went through ``watch``."""

    def __init__(self) -> None:
        self.rows = 0
        self.columns: dict[str, int] = {}

    def watch(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Hand on the rows of one file, counting them in.

        Raises:
            DisorderError: they are not in the order of ``seq``.
        """
        last_seq, of_last = -1, 0
        for batch in batches:
            if not batch.num_rows:
                continue
            seq = batch.column("seq").to_numpy()
            if seq[0] < last_seq or (seq[1:] < seq[:-1]).any():
                raise DisorderError("its rows are not in the order of seq")
            places = _places(seq, of_last if seq[0] == last_seq else 0)
            last_seq, of_last = int(seq[-1]), int(places[-1]) + 1
            self._add(batch, _mixed(seq.view(np.uint64) * _GOLDEN + _mixed(places.view(np.uint64))))
            yield batch

    def _add(self, batch: pa.RecordBatch, keys: Words) -> None:
        self.rows += batch.num_rows
        for name in batch.schema.names:
            total = int(np.add.reduce(_hashed(batch.column(name), keys)))
            self.columns[name] = (self.columns.get(name, 0) + total) & _MASK


def _places(seq: NDArray[np.int64], before: int) -> NDArray[np.int64]:
    """Number the rows of each record; ``before`` rows of the first one were in the batch before."""
    starts = np.concatenate(([0], np.flatnonzero(seq[1:] != seq[:-1]) + 1))
    lengths = np.diff(starts, append=len(seq))
    places: NDArray[np.int64] = np.arange(len(seq)) - np.repeat(starts, lengths)
    places[: lengths[0]] += before
    return places


def _mixed(words: Words) -> Words:
    """Spread every bit over all (the finalizer of SplitMix64)."""
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))


def _hashed(column: pa.Array, keys: Words) -> Words:
    if pa.types.is_list(column.type):
        lengths = column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        ends = np.cumsum(lengths)
        places = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
        inner = _hashed(column.flatten(), np.repeat(keys, lengths) + places.view(np.uint64) * _GOLDEN)
        return np.concatenate((_mixed(lengths.view(np.uint64) ^ keys), inner))
    hashed = _mixed(_bits(column) ^ keys)
    if column.null_count:
        unknown = column.is_null().to_numpy(zero_copy_only=False)
        hashed[unknown] = _mixed(keys[unknown] ^ _NULL)
    return hashed


def _bits(column: pa.Array) -> Words:
    """Return one word a value, from all its bits; that of a null is of no matter."""
    if pa.types.is_string(column.type):
        encoded = pc.dictionary_encode(column, null_encoding="encode")
        hashes = [
            int.from_bytes(hashlib.blake2b(str(text).encode(), digest_size=8).digest(), "little")
            for text in encoded.dictionary.to_pylist()
        ]
        found: Words = np.array(hashes, np.uint64)[encoded.indices.to_numpy(zero_copy_only=False)]
        return found
    if pa.types.is_boolean(column.type):
        flags: Words = (
            pc.fill_null(column.cast(pa.uint8()), 0).to_numpy(zero_copy_only=False).astype(np.uint64)
        )
        return flags
    words: Words = pc.fill_null(column.view(pa.int64()), 0).to_numpy(zero_copy_only=False).view(np.uint64)
    return words
