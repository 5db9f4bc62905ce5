"""The project's own files agree with each other."""

from __future__ import annotations

import re
import tomllib
from typing import get_args

from harvest.settings import Settings
from harvest.settings.checks import VENUES as SETTINGS_VENUES
from harvest.venues import VENUES
from harvest.venues.protocol import TradeEvent
from tests.program import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_lowest_constraints_are_the_lower_bounds_of_the_project():
    bounds = dict(re.fullmatch(r"([a-z0-9-]+)>=([\d.]+)", one).groups() for one in PROJECT["dependencies"])
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pinned == bounds


def test_settings_and_venues_know_the_same_names():
    assert set(SETTINGS_VENUES) == set(VENUES)
    assert Settings().capture.venue in VENUES
    assert set(get_args(TradeEvent)) == {"aggTrade", "trade"}


def test_no_file_of_the_product_outgrows_its_room():
    long = {
        str(path.relative_to(ROOT)): count
        for path in (ROOT / "harvest").rglob("*.py")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 320
    }
    assert not long
