"""What a measure has found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from rich.table import Table

if TYPE_CHECKING:
    from bench.ratios import Ratio


@attrs.frozen
class Found:
    """Figures under their names, with units in them, and those that have a floor."""

    title: str
    figures: dict[str, float]
    ratios: list[Ratio] = attrs.Factory(list)

    def table(self) -> Table:
        """Return the figures as a table."""
        table = Table("figure", title=self.title)
        table.add_column("value", justify="right")
        for name, value in self.figures.items():
            table.add_row(name, f"{value:,.2f}")
        return table
