"""Plain tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harvest.report.markup import Html, element

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harvest.report.markup import Content


def table(heads: Sequence[Content], rows: Iterable[Sequence[Content]], *, text_columns: int) -> Html:
    """Write a table; the columns after the first ``text_columns`` hold numbers."""

    def line(name: str, cells: Sequence[Content]) -> Html:
        return element("tr", *(element(name, cell) for cell in cells))

    body = element("tbody", *(line("td", row) for row in rows))
    shown = element("table", element("thead", line("th", heads)), body, class_=f"text{text_columns}")
    return element("div", shown, class_="scroll", tabindex=0)
