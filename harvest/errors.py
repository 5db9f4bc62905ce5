"""The one tree of expected errors. Each carries its facts; its message says what the user can do."""

from __future__ import annotations


class HarvestError(Exception):
    """Base of every error that harvest raises on purpose."""


class SettingsError(HarvestError):
    """Settings that cannot be run with; ``problems`` holds one line each, all of them."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class VenueError(HarvestError):
    """Something that a venue said or did not say."""

    def __init__(self, venue: str, message: str) -> None:
        self.venue = venue
        super().__init__(f"{venue}: {message}")


class MalformedMessageError(VenueError):
    """A message that is not what the venue documents; ``raw`` is kept for inspection."""

    def __init__(self, venue: str, why: str, raw: bytes) -> None:
        self.why = why
        self.raw = raw
        super().__init__(venue, f"malformed message ({why}): {raw[:200]!r}")


class UnknownSymbolError(VenueError):
    """A symbol that the venue does not trade (it would acknowledge it, and stay silent for ever)."""

    def __init__(self, venue: str, symbols: list[str], suggestions: dict[str, list[str]]) -> None:
        self.symbols = symbols
        self.suggestions = suggestions
        hints = [
            f"{symbol} (did you mean {', '.join(close)}?)" if (close := suggestions.get(symbol)) else symbol
            for symbol in symbols
        ]
        super().__init__(venue, f"not traded here: {'; '.join(hints)}. Take it out of --symbols / $SYMBOLS.")


class StorageError(HarvestError):
    """Something about the data directory or a file in it."""


class FileExistsInStoreError(StorageError):
    """A file that would be published exists already; nothing was overwritten."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"{path} exists already, and is left as it is: a run never overwrites a file")


class IdSpaceError(StorageError):
    """A data directory that holds the other kind of trade ids."""

    def __init__(self, path: str, stored: str, asked: str) -> None:
        self.path, self.stored, self.asked = path, stored, asked
        super().__init__(
            f"{path} holds {stored} trade ids, and this run would add {asked} ones: they are different id "
            f"spaces. Use another --output-dir, or set trade_event to match."
        )


class RecordingError(HarvestError):
    """A recording that cannot be read as the collector's line format."""

    def __init__(self, path: str, line: int, why: str) -> None:
        self.path, self.line, self.why = path, line, why
        super().__init__(f"{path}:{line}: {why}")


class SimulatorError(HarvestError):
    """The simulator's process did not start, or ended by itself."""
