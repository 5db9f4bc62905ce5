"""``harvest report``, as it is typed."""

from __future__ import annotations

import pytest

from tests.pipeline.stored import recorded
from tests.program import harvest

pytestmark = pytest.mark.slow


def test_the_command_writes_the_page_and_says_the_verdict(tmp_path):
    recorded(tmp_path / "data")
    (tmp_path / "report.html").write_text("an older one", encoding="utf-8")
    done = harvest("report", "data", "--out", "report.html", "--title", "Mine & yours", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    verdict, path = done.stdout.splitlines()
    assert verdict.startswith("COMPLETE: nothing is missing")
    assert path == "report.html"
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h1>Mine &amp; yours</h1>" in page


def test_what_cannot_be_done_is_said_and_exits_with_2(tmp_path):
    (tmp_path / "empty").mkdir()
    done = harvest("report", "empty", cwd=tmp_path)
    assert (done.returncode, "holds no data of harvest" in done.stderr) == (2, True)
    assert not (tmp_path / "report.html").exists()
    recorded(tmp_path / "data")
    done = harvest("report", "data", "--out", "nowhere/report.html", cwd=tmp_path)
    assert (done.returncode, "cannot write nowhere/report.html" in done.stderr) == (2, True)
