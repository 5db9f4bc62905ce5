"""One page about a data directory, that needs no network and no other file: what was recorded, and what was not."""

from harvest.report.page import render
from harvest.report.reading import Reading, read

__all__ = ["Reading", "read", "render"]
