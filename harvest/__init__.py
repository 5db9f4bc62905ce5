"""A market-data harvester that can prove what it recorded."""

__version__ = "0.1.0"
