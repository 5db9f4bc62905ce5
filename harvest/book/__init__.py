"""Pure order book: the gap rule, the levels, the order flow."""
