"""Compaction: many small files of a date become one, with the same rows, and no reader sees a row twice or not at all."""

from harvest.storage.compaction.compactor import Compaction, Options, compact

__all__ = ["Compaction", "Options", "compact"]
