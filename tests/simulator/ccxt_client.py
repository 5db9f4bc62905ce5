"""Reads a venue with ccxt, unmodified but for its addresses, and prints as JSON what it has read.

Not a test: ``test_third_party_client`` runs it as a program of its own, for ccxt lives in asyncio.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Any

import ccxt
import ccxt.pro

CLIENTS = {"binance-usdm": ccxt.pro.binanceusdm, "binance-spot": ccxt.pro.binance}
#: The symbols of raw and of aggregate trades; a client has one stream of trades a symbol.
SYMBOLS = {
    "binance-usdm": ("BTC/USDT:USDT", "ETH/USDT:USDT"),
    "binance-spot": ("BTC/USDT", "ETH/USDT"),
}
#: Where the venue is, for ccxt: the WebSocket and the REST host of each.
HOSTS = {
    "binance-usdm": ("wss://fstream.binance.com", "https://fapi.binance.com"),
    "binance-spot": ("wss://stream.binance.com:9443", "https://api.binance.com"),
}
#: Futures' markets alone, or spot's: the simulator is one venue at a time.
MARKETS = {"binance-usdm": "linear", "binance-spot": "spot"}


def moved(urls: Any, replacements: list[tuple[str, str]]) -> Any:
    if isinstance(urls, dict):
        return {name: moved(url, replacements) for name, url in urls.items()}
    if isinstance(urls, str):
        for old, new in replacements:
            urls = urls.replace(old, new)
    return urls


async def read_trades(client: Any, symbol: str, event: str, until: float) -> dict[str, Any]:
    ids: list[int] = []
    while time.monotonic() < until:
        # ccxt keeps the last thousand, and gives those that are new.
        ids += [int(trade["id"]) for trade in await client.watch_trades(symbol, params={"name": event})]
    return {"messages": len(ids), "first": ids[0], "last": ids[-1], "in_order": ids == sorted(set(ids))}


async def read_books(client: Any, symbol: str, until: float) -> dict[str, Any]:
    nonces: list[int] = []
    crossed = 0
    levels = 0
    while time.monotonic() < until:
        book = await client.watch_order_book(symbol)
        nonces.append(book["nonce"])
        crossed += book["bids"][0][0] >= book["asks"][0][0]
        levels = min(len(book["bids"]), len(book["asks"]))
    rising = nonces == sorted(nonces)
    return {"updates": len(set(nonces)), "rising": rising, "crossed": crossed, "levels": levels}


async def read(venue: str, ws_url: str, rest_url: str, seconds: float) -> dict[str, Any]:
    ws_host, rest_host = HOSTS[venue]
    client = CLIENTS[venue]({"options": {"fetchMarkets": {"types": [MARKETS[venue]]}}})
    client.urls["api"] = moved(client.urls["api"], [(ws_host, ws_url), (rest_host, rest_url)])
    symbol, other = SYMBOLS[venue]
    try:
        markets = await client.load_markets()
        rest_trades = await client.fetch_trades(symbol, limit=50)
        rest_book = await client.fetch_order_book(symbol, limit=50)
        until = time.monotonic() + seconds
        raw, aggregate, books = await asyncio.gather(
            read_trades(client, symbol, "trade", until),
            read_trades(client, other, "aggTrade", until),
            read_books(client, symbol, until),
        )
    finally:
        await client.close()
    return {
        "version": ccxt.__version__,
        "markets": len(markets),
        "rest_trades": len(rest_trades),
        "rest_levels": len(rest_book["bids"]),
        "raw_trades": raw,
        "aggregate_trades": aggregate,
        "books": books,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("venue", choices=sorted(CLIENTS))
    parser.add_argument("ws_url")
    parser.add_argument("rest_url")
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    print(json.dumps(asyncio.run(read(given.venue, given.ws_url, given.rest_url, given.seconds))))
