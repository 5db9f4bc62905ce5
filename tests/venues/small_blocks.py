"""Blocks of diffs that are read in columns though they are small."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harvest.venues import binance_diffs, looks

if TYPE_CHECKING:
    import pytest


def let_few_be_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let few diffs and levels be enough for a stencil."""
    monkeypatch.setattr(binance_diffs, "LEAST_HEADS", 8)
    monkeypatch.setattr(binance_diffs, "LEAST_LEVELS", 8)


def let_all_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every look be learned, every level that has none be decoded alone, and no block be passed over."""
    monkeypatch.setattr(binance_diffs, "LEAST_DIFFS", 1)
    monkeypatch.setattr(binance_diffs, "LEAST_HEADS", 1)
    monkeypatch.setattr(binance_diffs, "LEAST_LEVELS", 1)
    monkeypatch.setattr(binance_diffs, "ALONE", 1)
    monkeypatch.setattr(looks, "MISSES", 10**6)
    monkeypatch.setattr(looks, "MOST_PASSED", 0)
