"""The README's promises: what it tells a new user to type does what it says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from tests.program import ROOT, environment, harvest

README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = re.findall(r"```python\n(.*?)\n```", README, re.DOTALL)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Make a directory with a short simulated run in ``data``."""
    where = tmp_path_factory.mktemp("readme")
    done = harvest(
        "run", "--symbols", "BTCUSDT,ETHUSDT", "--simulate", "--hours", "0.0006", "--no-live", cwd=where
    )
    assert done.returncode == 0, done.stderr
    return where


@pytest.mark.parametrize("line", LINES, ids=["duckdb", "polars", "pandas"])
def test_each_reader_opens_the_result_with_one_line(line, recorded):
    library = re.match(r"import (\w+)", line)[1]
    pytest.importorskip(library)
    assert "\n" not in line
    done = subprocess.run(
        [sys.executable, "-c", line],
        cwd=recorded,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "BTCUSDT" in done.stdout
    assert "ETHUSDT" in done.stdout


def test_every_harvest_command_of_the_readme_is_one_that_exists(tmp_path):
    commands = re.findall(r"^(?:\w+=\S+ )*harvest ([a-z-]+)(.*?)(?:\s+#.*)?$", README, re.MULTILINE)
    assert {name for name, _ in commands} >= {"run", "check-config", "ingest", "simulate"}
    for name, rest in commands:
        options = [word for word in shlex.split(rest) if word.startswith("--")]
        text = harvest(name, "--help", cwd=tmp_path).stdout
        assert not [option for option in options if option not in text], (name, rest)
