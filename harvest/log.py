"""Log lines: structlog through the standard library. Human lines carry the tags that operators grep for.

A logger is ``get_logger("TRADE")``; ``log.info("connecting: 6 symbols", symbols=6)`` reads
``… INFO  [TRADE] connecting: 6 symbols`` for people, where the keywords are left to the JSON form.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Protocol

import structlog

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger
    from structlog.typing import EventDict, WrappedLogger


class SupportsWrite(Protocol):
    """Where lines can go."""

    def write(self, text: str, /) -> object:
        """Take a piece of text."""
        ...

    def flush(self) -> object:
        """Let nothing wait."""
        ...


def get_logger(*tags: str) -> BoundLogger:
    """Return a logger whose lines begin with ``[TAG]``, or ``[TAG][TAG2]``."""
    logger: BoundLogger = structlog.stdlib.get_logger("harvest", tag=".".join(tags))
    return logger


def render_human(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """Render ``time LEVEL [TAG] event``; an exception's text follows on lines of its own."""
    tags = "".join(f"[{tag}]" for tag in event.get("tag", "").split(".") if tag)
    head = f"{tags} " if tags else ""
    line = f"{event.get('timestamp', '')} {event.get('level', '').upper():<7} {head}{event.get('event', '')}"
    trace = event.get("exception")
    return f"{line}\n{trace}" if trace else line


def configure(*, log_format: str, level: str, stream: SupportsWrite | None = None) -> None:
    """Send the log to ``stream`` (standard error by default), human or JSON, from ``level`` on.

    Call it once, before anything logs. Other libraries' warnings take the same way.
    """
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = render_human if log_format == "human" else structlog.processors.JSONRenderer(default=str)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("harvest").setLevel(level.upper())
