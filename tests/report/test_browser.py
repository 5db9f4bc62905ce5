"""The page in a real browser, where there is one: nothing is refused, both themes are drawn, and its few controls work."""

from __future__ import annotations

import re
import shutil
import subprocess
import zlib

import pytest

from harvest.report import render
from tests.report.made import large

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed"),
]
#: Uses the page as somebody would, and writes down what came of it.
VISITOR = """<script>addEventListener("load", () => {
  const said = {};
  const plot = document.querySelector(".frame .plot");
  plot.focus();
  plot.dispatchEvent(new KeyboardEvent("keydown", { key: "End", bubbles: true }));
  said.tip = document.getElementById("tip").textContent;
  const filter = document.getElementById("filter");
  filter.value = "coin003";
  filter.dispatchEvent(new Event("input"));
  said.rows = document.querySelectorAll("tbody tr[data-name]:not([hidden])").length;
  said.sections = document.querySelectorAll("details:not([hidden])").length;
  filter.value = "nothing is called so";
  filter.dispatchEvent(new Event("input"));
  said.none = !document.getElementById("none").hidden;
  location.hash = "#i7";
  setTimeout(() => { said.open = document.getElementById("i7").open; document.title = JSON.stringify(said); }, 100);
});</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(large(symbols=8, days=40, gaps=5), title="In a browser"), encoding="utf-8")
    return path


def browse(page, *options):
    """Open a page; returns the document as it became, and what the console said."""
    arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--enable-logging=stderr",
    ]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    done = subprocess.run(
        [BROWSER, *arguments, profile, *options, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, re.findall(r"CONSOLE.*", done.stderr)


def first_pixel(path):
    """Return the colour of a PNG's first pixel: its first row has nothing before it that a filter could add."""
    data, at, compressed = path.read_bytes(), 8, b""
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            compressed += data[at + 8 : at + 8 + length]
        at += length + 12
    return tuple(zlib.decompress(compressed)[1:4])


def test_the_page_is_light_or_dark_as_the_system_is_and_the_console_stays_empty(page, tmp_path):
    colours = {}
    for name, scheme in (("light", 1), ("dark", 0)):
        picture = tmp_path / f"{name}.png"
        _, console = browse(
            page,
            f"--screenshot={picture}",
            "--window-size=1280,900",
            f"--blink-settings=preferredColorScheme={scheme}",
        )
        assert console == []
        colours[name] = first_pixel(picture)
    assert min(colours["light"]) > 200
    assert max(colours["dark"]) < 60


def test_the_controls_work_with_the_keyboard_alone(page):
    visited = page.with_name("visited.html")
    visited.write_text(
        page.read_text(encoding="utf-8").replace("</body>", f"{VISITOR}</body>"), encoding="utf-8"
    )
    document, console = browse(visited, "--dump-dom", "--virtual-time-budget=3000")
    assert console == []
    title = re.search(r"<title>(.*?)</title>", document)[1]
    assert re.search(r"2024-08-\d\d .* UTC, \d+ s\\ntrades: [\d.]+ messages a second", title)
    for said in ('"rows":1', '"sections":1', '"none":true', '"open":true'):
        assert said in title
