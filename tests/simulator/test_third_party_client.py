"""A client that others wrote reads the simulated venue, unmodified but for its addresses."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from harvest.simulator import SimulatorConfig, simulator_process

SCRIPT = Path(__file__).parent / "ccxt_client.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("ccxt") is None,
        reason="ccxt is not installed: pip install 'market-harvest[peers]'",
    ),
]


@pytest.mark.parametrize("venue", ["binance-usdm", "binance-spot"])
async def test_ccxt_subscribes_and_reads_trades_and_books_and_rest(venue):
    config = SimulatorConfig(venue=venue, rate=3.0)
    async with simulator_process(config) as endpoints:
        with trio.fail_after(60):
            done = await trio.run_process(
                [sys.executable, str(SCRIPT), venue, endpoints.ws_url, endpoints.rest_url],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )
    assert done.returncode == 0, done.stderr.decode()
    read = json.loads(done.stdout)
    assert read["markets"] == 12
    assert (read["rest_trades"], read["rest_levels"]) == (50, 50)
    for trades in (read["raw_trades"], read["aggregate_trades"]):
        assert trades["in_order"]
        assert trades["messages"] == trades["last"] - trades["first"] + 1 > 20
    books = read["books"]
    assert books["rising"]
    assert (books["crossed"], books["updates"] > 5, books["levels"] > 100) == (0, True, True)
    print(f"ccxt {read['version']} on {venue}: {read}")
