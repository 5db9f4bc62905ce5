"""HTML that cannot be broken by what is put into it: text is escaped, elements are not escaped twice."""

from __future__ import annotations

from html import escape
from typing import TypeAlias

_VOID = frozenset({"meta", "input"})
#: Elements of SVG that hold nothing here.
_CLOSED = frozenset({"path", "rect"})


class Html(str):
    """Markup that is whole and safe."""

    __slots__ = ()


Content: TypeAlias = "str | Html | None"
"""What an element may hold: text, which is escaped; markup; or nothing."""


def element(name: str, /, *content: Content, **attributes: str | float | bool | None) -> Html:
    """Make an element. A trailing underscore of an attribute is dropped, others are hyphens; None and False leave it out."""
    opening = [name]
    for key, value in attributes.items():
        plain = key.rstrip("_").replace("_", "-")
        if value is True:
            opening.append(plain)
        elif value is not None and value is not False:
            opening.append(f'{plain}="{escape(str(value))}"')
    if name in _CLOSED:
        return Html(f"<{' '.join(opening)}/>")
    inner = joined(*content)
    return Html(f"<{' '.join(opening)}>" if name in _VOID else f"<{' '.join(opening)}>{inner}</{name}>")


def joined(*content: Content) -> Html:
    """Put content after one another."""
    return Html("".join(one if isinstance(one, Html) else escape(one) for one in content if one is not None))
