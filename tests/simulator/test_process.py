from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import attrs
import httpx
import pytest
import trio
import trio.lowlevel
import trustme
from trio_websocket import open_websocket_url

from harvest.errors import SimulatorError
from harvest.simulator import SimulatorConfig, serve, simulator_process
from harvest.simulator.arguments import from_arguments, to_arguments

if TYPE_CHECKING:
    from pathlib import Path

PARENT = """
import trio
from harvest.simulator import SimulatorConfig, simulator_process

async def main():
    async with simulator_process(SimulatorConfig()) as endpoints:
        print(endpoints.pid, endpoints.rest_url, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def wait_until_dead(pid: int) -> None:
    with trio.fail_after(20):
        while is_alive(pid):  # noqa: ASYNC110 -- another process's death sets no event
            await trio.sleep(0.02)


async def test_a_child_serves_and_ends_with_the_block() -> None:
    async with simulator_process(SimulatorConfig(venue="binance-spot", symbols=("BTCUSDT",))) as endpoints:
        async with httpx.AsyncClient(base_url=endpoints.rest_url) as client:
            info = (await client.get("/api/v3/exchangeInfo")).json()
        assert [one["symbol"] for one in info["symbols"]] == ["BTCUSDT"]
        async with open_websocket_url(f"{endpoints.ws_url}/ws/btcusdt@trade") as websocket:
            assert '"e":"trade"' in await websocket.get_message()
        assert is_alive(endpoints.pid)
        pid = endpoints.pid
    assert not is_alive(pid)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_child_ends_when_its_parent_dies(number: signal.Signals) -> None:
    parent = await trio.lowlevel.open_process([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    line = b""
    with trio.fail_after(60):
        while not line.endswith(b"\n"):
            line += await parent.stdout.receive_some()
    pid = int(line.split()[0])
    assert is_alive(pid)
    parent.send_signal(number)
    await parent.wait()
    await wait_until_dead(pid)
    await parent.stdout.aclose()


async def test_a_child_ends_when_the_block_is_cancelled() -> None:
    pid = 0
    with trio.CancelScope() as scope:
        async with simulator_process(SimulatorConfig()) as endpoints:
            pid = endpoints.pid
            scope.cancel()
            await trio.sleep_forever()
    assert not is_alive(pid)


async def test_a_child_that_cannot_start_says_why(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(SimulatorError, match=r"exit code 1[\s\S]*nowhere"):
        async with simulator_process(SimulatorConfig(replay=(tmp_path / "nowhere",)), on_stderr=said.append):
            pass
    assert any("nowhere" in line for line in said)


async def test_a_child_that_dies_in_use_is_an_error() -> None:
    async def kill_it() -> None:
        async with simulator_process(SimulatorConfig()) as endpoints:
            os.kill(endpoints.pid, signal.SIGTERM)
            while await answers(endpoints.rest_url):  # noqa: ASYNC110 -- as above
                await trio.sleep(0.02)

    with trio.fail_after(60), pytest.raises(SimulatorError, match="while in use"):
        await kill_it()


async def answers(url: str) -> bool:
    try:
        async with httpx.AsyncClient() as client:
            await client.get(f"{url}/fapi/v1/ping")
    except httpx.TransportError:
        return False
    return True


def test_options_and_configurations_are_the_same_thing(tmp_path: Path) -> None:
    config = SimulatorConfig(
        venue="binance-spot",
        symbols=("BTCUSDT", "牛来USDT"),
        seed=7,
        port=1234,
        speed=None,
        rate=2.5,
        faults=("stall trades at 1s", "cut at 2s"),
        fault_file=tmp_path / "a.toml",
        replay=(tmp_path / "-one", tmp_path / "two"),
        replay_streams=("btcusdt@trade",),
        sent_log=tmp_path / "sent",
        ping_interval_s=1.5,
        messages_per_s=3,
    )
    assert from_arguments(to_arguments(config)) == config
    assert to_arguments(SimulatorConfig()) == []
    assert from_arguments([]) == SimulatorConfig()
    assert from_arguments(["--exit-with-parent"]) == attrs.evolve(SimulatorConfig(), exit_with_parent=True)


async def test_it_serves_over_tls_where_it_has_a_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with trio.open_nursery() as nursery:
        endpoints = await nursery.start(serve, SimulatorConfig(tls_chain=chain, tls_key=key))
        assert endpoints.ws_url.startswith("wss://")
        async with httpx.AsyncClient(verify=trusting) as client:
            assert (await client.get(f"{endpoints.rest_url}/fapi/v1/ping")).status_code == 200
        async with httpx.AsyncClient(verify=ssl.create_default_context()) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"{endpoints.rest_url}/fapi/v1/ping")
        url = f"{endpoints.ws_url}/public/ws/btcusdt@bookTicker"
        async with open_websocket_url(url, ssl_context=trusting) as websocket:
            assert '"e":"bookTicker"' in await websocket.get_message()
        nursery.cancel_scope.cancel()
