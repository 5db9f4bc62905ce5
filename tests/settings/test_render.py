from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

from harvest.errors import SettingsError
from harvest.settings import Settings, describe, render_table, to_json
from harvest.settings.catalog import SETTINGS

if TYPE_CHECKING:
    from tests.settings.conftest import Asker


def test_every_setting_is_described_with_its_origin(asker: Asker) -> None:
    values = describe(asker.load("[streams]\nidle_s = 60\n", environ={"SYMBOLS": "solusdt"}))
    assert [f"{value.section}.{value.key}" for value in values] == list(SETTINGS)
    by_path = {f"{value.section}.{value.key}": value for value in values}
    idle = by_path["streams.idle_s"]
    assert (idle.value, idle.unit, idle.text) == (60, "s", "60 s")
    assert (idle.origin, idle.env) == ("settings.toml:2", "STREAM_IDLE_SEC")
    assert idle.help == "a stream without data for this long is connected anew"
    assert by_path["capture.symbols"].value == ("SOLUSDT",)
    assert by_path["capture.run_hours"].text == "for ever"
    assert by_path["streams.max_streams"].text == "the venue's"
    assert by_path["streams.allow_insecure"].text == "false"
    assert by_path["streams.max_message_bytes"].text == "16 MiB"
    assert by_path["rest.weight_share"].text == "0.5"
    assert by_path["rotation.max_rows_per_file"].text == "200000 rows"


def test_the_table_is_aligned_and_grouped(asker: Asker) -> None:
    table = render_table(asker.load(environ={"SYMBOLS": "牛来usdt,btcusdt"}, flags={"--hours": 0.5}))
    assert table.startswith(
        dedent("""\
        setting                   value              from      variable
        [capture]
          venue                   binance-usdm       default   $HARVEST_VENUE
          symbols                 牛来USDT, BTCUSDT  $SYMBOLS  $SYMBOLS
          output_dir              data               default   $OUTPUT_DIR
          run_hours               0.5 h              --hours   $RUN_HOURS
        """)
    )
    lines = table.splitlines()
    assert not any(line.endswith(" ") for line in lines)
    assert [line for line in lines if line.startswith("[")] == [
        f"[{name}]" for name in Settings.__annotations__
    ]


def test_many_symbols_go_on_in_the_next_lines_of_their_column(asker: Asker) -> None:
    symbols = [f"COIN{number}USDT" for number in range(30)]
    table = render_table(asker.load(flags={"--symbols": ",".join(symbols)}))
    assert max(map(len, table.splitlines())) < 120
    assert all(symbol in table for symbol in symbols)


def test_what_a_terminal_cannot_show_is_escaped(asker: Asker) -> None:
    table = render_table(asker.load(environ={"OUTPUT_DIR": "a\x1b[31m\nb\udcff"}))
    assert "a\\x1b[31m\\nb\\udcff" in table
    table.encode()


def test_the_machine_form_has_plain_values(asker: Asker) -> None:
    form = to_json(asker.load(environ={"SYMBOL": "x"}, flags={"--symbols": "solusdt"}))
    assert json.loads(json.dumps(form)) == form
    assert form["ok"] is True
    assert form["settings"]["capture"]["symbols"] == {
        "value": ["SOLUSDT"],
        "origin": "--symbols",
        "env": "SYMBOLS",
        "unit": "",
    }
    assert form["settings"]["capture"]["output_dir"]["value"] == "data"
    assert form["settings"]["capture"]["run_hours"] == {
        "value": None,
        "origin": "default",
        "env": "RUN_HOURS",
        "unit": "h",
    }
    assert form["warnings"] == ["$SYMBOL: not a variable of harvest, and not read. Did you mean SYMBOLS?"]
    assert sum(len(section) for section in form["settings"].values()) == len(SETTINGS)


def test_the_machine_form_of_an_error_has_its_problems() -> None:
    assert to_json(SettingsError(["a: b. C.", "d: e. F."])) == {
        "ok": False,
        "problems": ["a: b. C.", "d: e. F."],
    }


def test_a_path_with_a_long_name_is_shown_whole(asker: Asker) -> None:
    path = Path("/".join(["very-long-name"] * 8))
    assert str(path) in render_table(asker.load(flags={"--output-dir": path}))
