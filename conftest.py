"""Options of the whole test suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Accept ``--trio``: the suite always runs its async tests under Trio; the flag says so aloud."""
    parser.addoption("--trio", action="store_true", help="run async tests under Trio (always on here)")
