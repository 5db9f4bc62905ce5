"""The instruments that the simulated venue lists: how their numbers look, how lively they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from harvest.simulator.noise import key_of
from harvest.simulator.rules import RULES

if TYPE_CHECKING:
    from harvest.simulator.rules import VenueName, VenueRules

_QUOTES: Final = ("USDT", "USDC", "FDUSD", "BTC", "ETH", "EUR")


@attrs.frozen
class Listed:
    """One listed instrument. Prices are integers of ticks, quantities integers of steps.

    ``tick_places`` and ``price_places`` differ where the venue writes more digits than a tick has.
    ``price_ticks`` is the price around which the random market moves, ``step_base`` a usual small
    quantity, ``orders_per_s`` the rate of aggregate trades, ``book_period`` how many steps of the market
    the book stands still (1 for the liveliest).
    """

    symbol: str
    base: str
    quote: str
    tick_places: int
    price_places: int
    step_places: int
    qty_places: int
    price_ticks: int
    step_base: int
    orders_per_s: float
    book_period: int

    def price(self, ticks: int) -> str:
        """Write a price as the venue does, with all its digits."""
        return _decimal(ticks, self.tick_places, self.price_places)

    def qty(self, steps: int) -> str:
        """Write a quantity as the venue does."""
        return _decimal(steps, self.step_places, self.qty_places)


def _decimal(units: int, places: int, written: int) -> str:
    text = str(units) + "0" * (written - places)
    if not written:
        return text
    text = text.rjust(written + 1, "0")
    return f"{text[:-written]}.{text[-written:]}"


#: symbol: price, then for each venue (places of tick, written, of step, written), orders a second, book period.
_Row = tuple[float, tuple[int, int, int, int], tuple[int, int], float, int]
_KNOWN: Final[dict[str, _Row]] = {
    "BTCUSDT": (84_500.0, (1, 2, 3, 3), (2, 5), 10.0, 1),
    "ETHUSDT": (2_690.0, (2, 2, 3, 3), (2, 4), 8.0, 1),
    "SOLUSDT": (139.0, (2, 4, 2, 2), (2, 3), 3.0, 2),
    "BNBUSDT": (871.0, (2, 3, 2, 2), (2, 3), 1.5, 2),
    "XRPUSDT": (2.15, (4, 4, 1, 1), (4, 1), 2.0, 2),
    "DOGEUSDT": (0.152, (5, 5, 0, 0), (5, 0), 1.5, 4),
    "ADAUSDT": (0.441, (4, 5, 0, 0), (4, 1), 0.7, 4),
    "LINKUSDT": (13.4, (3, 3, 2, 2), (2, 2), 0.6, 4),
    "AVAXUSDT": (14.1, (3, 4, 0, 0), (2, 2), 0.5, 4),
    "LTCUSDT": (84.6, (2, 2, 3, 3), (2, 3), 0.3, 10),
    "TRXUSDT": (0.277, (5, 5, 0, 0), (4, 1), 0.3, 10),
    "牛来USDT": (0.1011, (5, 7, 0, 0), (5, 0), 0.05, 20),
    "PEPEUSDT": (0.0000046, (8, 8, 0, 0), (8, 0), 0.05, 20),
}
_NOT_ON: Final = {"binance-usdm": "PEPEUSDT", "binance-spot": "牛来USDT"}


def list_symbols(rules: VenueRules, symbols: tuple[str, ...]) -> dict[str, Listed]:
    """List ``symbols``, or the well-known dozen of the venue; an unknown symbol gets numbers of its own.

    What an instrument looks like depends on its symbol alone, so that it is the same in every run.
    """
    names = symbols or tuple(name for name in _KNOWN if name != _NOT_ON[rules.venue])
    return {name: _listed(rules, name) for name in names}


def listed_for(venue: VenueName, asked: tuple[str, ...]) -> tuple[str, ...]:
    """Name what a venue lists that is going to be asked for ``asked``: the well-known dozen, and every plausible pair.

    A symbol that is no pair of a known quote asset stays unknown, as it would be at the real venue.
    """
    known = list_symbols(RULES[venue], ())
    pairs = (name for name in asked if name.endswith(_QUOTES) and name not in _QUOTES)
    return tuple(dict.fromkeys((*known, *pairs)))


def _listed(rules: VenueRules, symbol: str) -> Listed:
    price, futures, spot, orders_per_s, book_period = _KNOWN.get(symbol) or _invent(symbol)
    tick_places, price_places, step_places, qty_places = futures
    if not rules.futures:
        (tick_places, step_places), price_places, qty_places = spot, 8, 8
    quote = next((quote for quote in _QUOTES if symbol.endswith(quote) and symbol != quote), "USDT")
    return Listed(
        symbol=symbol,
        base=symbol.removesuffix(quote) or symbol,
        quote=quote,
        tick_places=tick_places,
        price_places=price_places,
        step_places=step_places,
        qty_places=qty_places,
        price_ticks=round(price * 10**tick_places),
        step_base=max(1, round(150.0 / price * 10**step_places)),
        orders_per_s=orders_per_s,
        book_period=book_period,
    )


def _invent(symbol: str) -> _Row:
    key = key_of(0, "listing", symbol)
    magnitude = key % 5 - 2
    price = (1 + (key >> 8) % 900 / 100) * 10.0**magnitude
    tick_places, step_places = 4 - magnitude, max(0, magnitude + 1)
    places = (tick_places, tick_places, step_places, step_places)
    return price, places, (tick_places, step_places), 0.2 + (key >> 24) % 100 / 100, 4 + (key >> 40) % 8


def exchange_info(rules: VenueRules, listing: dict[str, Listed], now_ms: int) -> dict[str, Any]:
    """Give the body of exchangeInfo: what real clients read of it, in the venue's own layout."""
    limits = [
        {
            "rateLimitType": "REQUEST_WEIGHT",
            "interval": "MINUTE",
            "intervalNum": 1,
            "limit": rules.weight_per_minute,
        }
    ]
    write = _futures_symbol if rules.futures else _spot_symbol
    info: dict[str, Any] = {
        "timezone": "UTC",
        "serverTime": now_ms,
        "rateLimits": limits,
        "exchangeFilters": [],
        "symbols": [write(listed) for listed in listing.values()],
    }
    if rules.futures:
        assets = sorted({listed.quote for listed in listing.values()})
        info["futuresType"] = "U_MARGINED"
        info["assets"] = [
            {"asset": asset, "marginAvailable": True, "autoAssetExchange": "-10000"} for asset in assets
        ]
    return info


def _filters(listed: Listed) -> list[dict[str, Any]]:
    most_ticks = min(listed.price_ticks * 20, 10**12)
    most_steps = min(listed.step_base * 100_000, 10**13)
    lot = {
        "minQty": listed.qty(1),
        "maxQty": listed.qty(most_steps),
        "stepSize": listed.qty(1),
    }
    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": listed.price(1),
            "maxPrice": listed.price(most_ticks),
            "tickSize": listed.price(1),
        },
        {"filterType": "LOT_SIZE", **lot},
        {"filterType": "MARKET_LOT_SIZE", **lot},
    ]


def _futures_symbol(listed: Listed) -> dict[str, Any]:
    return {
        "symbol": listed.symbol,
        "pair": listed.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": 4133404800000,
        "onboardDate": 1569398400000,
        "status": "TRADING",
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": listed.base,
        "quoteAsset": listed.quote,
        "marginAsset": listed.quote,
        "pricePrecision": listed.price_places,
        "quantityPrecision": listed.qty_places,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012000",
        "marketTakeBound": "0.05",
        "filters": [
            *_filters(listed),
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
            {"filterType": "MAX_NUM_ALGO_ORDERS", "limit": 10},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
            {
                "filterType": "PERCENT_PRICE",
                "multiplierDown": "0.9500",
                "multiplierUp": "1.0500",
                "multiplierDecimal": "4",
            },
        ],
        "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
    }


def _spot_symbol(listed: Listed) -> dict[str, Any]:
    return {
        "symbol": listed.symbol,
        "status": "TRADING",
        "baseAsset": listed.base,
        "baseAssetPrecision": 8,
        "quoteAsset": listed.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": True,
        "filters": [
            *_filters(listed),
            {"filterType": "ICEBERG_PARTS", "limit": 10},
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
            {
                "filterType": "NOTIONAL",
                "minNotional": "5.00000000",
                "applyMinToMarket": True,
                "maxNotional": "9000000.00000000",
                "applyMaxToMarket": False,
                "avgPriceMins": 5,
            },
        ],
        "permissions": [],
        "permissionSets": [["SPOT", "MARGIN"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }
