from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harvest.storage.layout import (
    MAX_ENCODED_SYMBOL,
    FileName,
    UnstorableSymbolError,
    date_directory,
    date_text,
    decode_symbol,
    encode_symbol,
    file_name,
    new_run_id,
    parse_date,
    parse_file_name,
    run_of_leftover,
)

SYMBOLS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=16)


@pytest.mark.parametrize(
    ("symbol", "encoded"),
    [
        ("BTCUSDT", "BTCUSDT"),
        ("BTCUSDT_261225", "BTCUSDT_261225"),
        ("../x", "%2E%2E%2Fx"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("牛来USDT", "%E7%89%9B%E6%9D%A5USDT"),
        ("a%41", "a%2541"),
        ("a=b/c:d\\e", "a%3Db%2Fc%3Ad%5Ce"),
        ("x ", "x%20"),
        ("a\0b\n", "a%00b%0A"),
    ],
)
def test_symbols_become_names_that_are_safe_everywhere(symbol: str, encoded: str) -> None:
    assert encode_symbol(symbol) == encoded
    assert decode_symbol(encoded) == symbol


@given(SYMBOLS)
def test_every_symbol_comes_back_from_its_name(symbol: str) -> None:
    encoded = encode_symbol(symbol)
    assert re.fullmatch(r"(?:[A-Za-z0-9_-]|%[0-9A-F]{2})+", encoded)
    assert decode_symbol(encoded) == symbol


@given(SYMBOLS)
def test_no_symbol_leads_out_of_its_directory(symbol: str) -> None:
    parts = date_directory("prices", "binance-usdm", symbol, 0).parts
    assert len(parts) == 4
    assert parts[0] == "prices"
    assert parts[2].startswith("symbol=")


@pytest.mark.parametrize("reserved", ["CON", "nul", "COM1", "AUX"])
def test_names_that_windows_reserves_stand_behind_their_key(reserved: str) -> None:
    assert date_directory("prices", "v", reserved, 0).parts[2] == f"symbol={reserved}"


@given(st.text(max_size=12))
def test_a_name_is_decoded_only_if_a_symbol_is_encoded_so(name: str) -> None:
    try:
        symbol = decode_symbol(name)
    except ValueError:
        return
    assert encode_symbol(symbol) == name


@pytest.mark.parametrize("foreign", ["", "a.b", "%2e", "%", "%4", "%41", "%FF", "a b", "%ED%A0%80"])
def test_foreign_names_are_no_symbols(foreign: str) -> None:
    with pytest.raises(ValueError, match="is not an encoded symbol"):
        decode_symbol(foreign)


@pytest.mark.parametrize(
    ("symbol", "why"), [("", "it is empty"), ("\ud800", "not valid Unicode"), ("x" * 201, "exceed 200 bytes")]
)
def test_symbols_that_cannot_name_a_directory_are_refused(symbol: str, why: str) -> None:
    with pytest.raises(UnstorableSymbolError, match=why):
        encode_symbol(symbol)


def test_the_longest_symbol_still_fits() -> None:
    assert decode_symbol(encode_symbol("x" * MAX_ENCODED_SYMBOL)) == "x" * MAX_ENCODED_SYMBOL


def test_run_ids_sort_by_their_start_and_hold_no_hyphen() -> None:
    earlier, later = new_run_id(1_795_880_865_999_999_999), new_run_id(1_795_880_866_000_000_000)
    assert re.fullmatch(r"20261128T154745Z[0-9a-f]{4}", earlier)
    assert re.fullmatch(r"20261128T154746Z[0-9a-f]{4}", later)
    assert earlier < later
    assert "-" not in new_run_id(time.time_ns())


def test_runs_of_one_second_have_different_ids() -> None:
    assert len({new_run_id(0) for _ in range(20)}) > 1


@given(st.integers(-700_000, 10_000_000))
def test_dates_come_back_from_their_text(day: int) -> None:
    assert parse_date(date_text(day)) == day


def test_dates_are_written_as_readers_know_them() -> None:
    assert date_text(20_779) == "2026-11-22"
    assert date_text(-1) == "1969-12-31"
    assert date_text(2_932_897) == "10000-01-01"


@pytest.mark.parametrize("text", ["", "2026-11", "2026-13-01", "2026-02-30", "NaT", "today", "2026-11-22T00"])
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_date(text)


def test_file_names_say_run_and_records() -> None:
    name = file_name("20261122T000000Z00ff", 1, 2**63 - 1)
    assert name == "20261122T000000Z00ff-1-9223372036854775807.parquet"
    assert parse_file_name(name) == FileName("20261122T000000Z00ff", 1, 2**63 - 1)


@pytest.mark.parametrize(
    "name",
    [
        "data.parquet",
        "20261122T000000Z00ff-1.parquet",
        "20261122T000000Z00ff-1-2.parquet.tmp",
        ".20261122T000000Z00ff-1-2.parquet",
        "20261122T000000Z00ff--1-2.parquet",
        "20261122T000000Z00ff-1-٢.parquet",
    ],
)
def test_other_names_are_no_data_files(name: str) -> None:
    assert parse_file_name(name) is None


def test_leftovers_say_whose_they_are() -> None:
    assert run_of_leftover(".20261122T000000Z00ff-1-2.parquet.tmp") == "20261122T000000Z00ff"
    assert run_of_leftover(".20261122T000000Z00ff-1-2.parquet.0af3.tmp") == "20261122T000000Z00ff"
    assert run_of_leftover(".20261122T000000Z00ff-1-2.parquet.claim") == "20261122T000000Z00ff"
    assert run_of_leftover("20261122T000000Z00ff-1-2.parquet") is None
    assert run_of_leftover(".notes.tmp") is None
