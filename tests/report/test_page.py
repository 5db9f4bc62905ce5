"""The page: what it says is what was verified, and nothing in the data can make it anything else."""

from __future__ import annotations

import re

import numpy as np
import pytest

from harvest.pipeline.verify import NothingToVerifyError
from harvest.pipeline.verify.findings import UNEXPLAINED, Damage
from harvest.report import read, render
from harvest.report.lanes import ALL_REASONS
from harvest.report.page import resource
from harvest.storage.kinds import REASONS
from tests.pipeline.stored import Market, Run, files, record, recorded
from tests.pipeline.wire import trade
from tests.report.made import Page, large


def page_of(root, **options):
    return render(read(root, jobs=1, **options), title="data")


def with_gaps(root):
    run, market = Run(root), Market()
    record(run, market, 5)
    run.body(market.book())
    record(run, market, 12, lose={"diff 0", "trade 0", "trade 1", "trade 6"})
    run.closed("trade", "stall")
    record(run, market, 5, lose={"trade 0"})
    run.publish()


def test_a_page_is_well_formed_and_loads_nothing(tmp_path):
    with_gaps(tmp_path)
    text = page_of(tmp_path)
    page = Page(text)
    assert page.wrong == []
    assert not re.search(r"(?:https?:)?//[a-z]|url\(|@import|<link|<img|<iframe", text)
    assert {tag for tag, attributes in page.elements if {"src", "action"} & set(attributes)} == set()
    assert all(link.startswith("#") for link in page.having("href"))
    anchors = page.having("id")
    assert len(set(anchors)) == len(anchors)
    assert {link[1:] for link in page.having("href")} <= set(anchors)
    assert any("default-src 'none'" in content for content in page.having("content"))


def test_every_gap_that_verify_names_is_in_the_page_with_its_reason(tmp_path):
    with_gaps(tmp_path)
    reading = read(tmp_path, jobs=1)
    text = render(reading, title="data")
    page = Page(text)
    missing = [one for series in reading.report.to_json()["series"] for one in series["missing"]]
    assert len(missing) == 4
    cells = " ".join(page.texts)
    hints = " ".join(page.having("data-t"))
    for one in missing:
        assert f"{one['from_id']} to {one['to_id']}" in cells
        assert one["why"] in cells
        assert one["why"] in hints
    assert "stall" in cells
    assert "4 gaps, all with their reasons; nothing is damaged" in cells


def test_the_same_data_gives_the_same_page(tmp_path):
    recorded(tmp_path)
    assert page_of(tmp_path) == page_of(tmp_path)


@pytest.mark.slow
def test_processes_read_the_same_as_one(tmp_path):
    recorded(tmp_path)
    run, market = Run(tmp_path, "20240719T001000Z0002", venue="binance-spot"), Market(spot=True)
    record(run, market, 5)
    run.publish()
    assert render(read(tmp_path, jobs=2), title="data") == page_of(tmp_path)


@pytest.mark.parametrize("symbol", ["<script>alert(1)</script>", "\"'><b onload=x>&amp;", "牛来USDT"])
def test_a_hostile_symbol_stays_text(tmp_path, symbol):
    run = Run(tmp_path, symbols=[symbol])
    for number in (1, 2, 5, 6):
        run.frames(trade(number, symbol=symbol))
    run.publish()
    reading = read(tmp_path, jobs=1)
    text = render(reading, title=symbol)
    page = Page(text)
    assert page.wrong == []
    assert symbol in page.texts
    assert text.count("<script>") == 1
    assert "onload" not in {name for _, attributes in page.elements for name in attributes}


def test_an_empty_directory_has_no_page(tmp_path):
    with pytest.raises(NothingToVerifyError):
        read(tmp_path)


def test_damage_comes_before_all_else_and_the_rest_is_shown(tmp_path):
    recorded(tmp_path)
    broken = files(tmp_path, "prices")[0]
    broken.write_bytes(broken.read_bytes()[:100])
    reading = read(tmp_path, jobs=1)
    assert [one.unread for one in reading.measures] == [1]
    page = Page(render(reading, title="data"))
    said = page.texts[page.texts.index("with gaps only") :]
    damage = next(one for one in said if one.startswith("Damage ("))
    assert said.index("Not proven") < said.index(damage) < said.index("At a glance")
    assert any(broken.relative_to(tmp_path).as_posix() in one for one in said)
    assert any("1 file could not be read" in one for one in said)


def test_a_directory_of_nothing_but_damage_still_has_a_page(tmp_path):
    recorded(tmp_path)
    for kind in ("prices", "depth", "orderbook", "ofi", "cvd"):
        for path in files(tmp_path, kind):
            path.write_bytes(b"")
    page = Page(page_of(tmp_path))
    assert page.wrong == []
    assert "Not proven" in page.texts


@pytest.mark.parametrize(
    ("symbols", "days", "gaps", "most_mb"),
    [(2, 365, 2_000, 2), pytest.param(500, 365, 3, 10, marks=pytest.mark.slow)],
    ids=["two", "five hundred"],
)
def test_the_page_stays_small_however_much_there_is(symbols, days, gaps, most_mb):
    text = render(large(symbols=symbols, days=days, gaps=gaps), title="large")
    assert len(text.encode()) < most_mb * 10**6


def test_of_too_many_gaps_the_unexplained_and_the_longest_are_listed_and_the_rest_is_counted():
    reading = large(symbols=1, days=30, gaps=1_200)
    prices = next(one for one in reading.report.series if one.kind == "prices")
    last = prices.missing[-1]
    prices.missing[-1] = type(last)(777, 778, last.from_ns, last.to_ns, UNEXPLAINED)
    said = Page(render(reading, title="large")).texts
    assert "777 to 778" in said
    assert any(one.startswith("… and 400 more") for one in said)


def test_sections_are_open_where_they_are_few_and_closed_where_they_are_many():
    for symbols, is_open in ((2, True), (12, False)):
        page = Page(render(large(symbols=symbols, days=2, gaps=1), title="some"))
        sections = [attributes for tag, attributes in page.elements if tag == "details"]
        assert [("open" in one) for one in sections] == [is_open] * symbols


def test_negative_latencies_are_called_clock_skew(tmp_path):
    run, market = Run(tmp_path), Market()
    for _ in range(3):
        market.tick()
        run.recv_ns = (market.at_ms - 1500) * 10**6
        run.frames(market.trade())
    run.publish()
    assert any("clock skew: 3 rows negative" in one for one in Page(page_of(tmp_path)).texts)


def test_every_reason_has_a_colour_of_its_own():
    css = resource("page.css")
    colours = [re.search(rf"--r-{reason}: (light-dark\(.*?\));", css)[1] for reason in ALL_REASONS]
    assert len(set(colours)) == len(ALL_REASONS)
    assert set(REASONS) < set(ALL_REASONS)
    for reason in ALL_REASONS:
        assert f".r-{reason} {{ fill" in css


def test_what_is_damaged_is_bounded_in_the_page():
    reading = large(symbols=1, days=1, gaps=0)
    reading.report.damage.extend(Damage("value", f"row {number}") for number in range(900))
    said = Page(render(reading, title="large")).texts
    assert any("and 700 more" in one for one in said)


def test_the_values_of_a_tooltip_are_as_many_as_the_buckets_of_its_axis():
    reading = large(symbols=1, days=365, gaps=1)
    page = Page(render(reading, title="large"))
    width = int(next(one for one in page.having("viewbox") if one.endswith(" 200")).split()[2])
    series = [
        one for tag, one in page.elements if tag == "path" and (one.get("class") or "").startswith("line")
    ]
    assert len(series) >= 8
    for one in series:
        times = [int(([*part.split("*"), "1"])[1]) for part in one["data-v"].split(",")]
        assert np.sum(times) == width
