"""The commands, one a file. No logic: options in, the right room called, an exit code out."""

from __future__ import annotations

from harvest.cli.app import app, main

# Each command adds itself to the application; the help lists them in this order.
# isort: off
from harvest.cli import run, check_config, ingest, verify, report, compact, recover, export_raw, simulate  # noqa: F401

__all__ = ["app", "main"]
