from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harvest.errors import SettingsError
from harvest.settings import Loaded, load

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture(autouse=True)
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, on a disk that has room whatever the machine's has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("harvest.settings.checks.free_bytes", lambda _: 1024**4)
    return tmp_path


class Asker:
    """Calls ``load`` with what a test gives, and nothing else."""

    def load(
        self,
        toml: str | bytes | None = None,
        *,
        profile: str | None = None,
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, Any] | None = None,
        settings_file: Path | None = None,
    ) -> Loaded:
        if toml is not None:
            Path("settings.toml").write_bytes(toml if isinstance(toml, bytes) else toml.encode())
        return load(settings_file=settings_file, profile=profile, environ=environ or {}, flags=flags or {})

    def problems(self, *args: Any, **kwargs: Any) -> list[str]:
        with pytest.raises(SettingsError) as caught:
            self.load(*args, **kwargs)
        assert all("\n" not in problem for problem in caught.value.problems)
        return caught.value.problems

    def problem(self, *args: Any, **kwargs: Any) -> str:
        (problem,) = self.problems(*args, **kwargs)
        return problem


@pytest.fixture
def asker() -> Asker:
    return Asker()
