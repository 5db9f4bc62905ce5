"""Order flow by the papers' formulas, in fractions, from whole windows: slow, and sharing nothing with the product."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise


def exact(qty: float) -> Fraction:
    """Return the decimal number that a float64 was written as."""
    return Fraction(Decimal(repr(qty)))


def level_flow(now: tuple[float, float], before: tuple[float, float], sign: int) -> Fraction:
    """Return e_n of one side of one level (Cont, Kukanov and Stoikov 2014, eq. 3): ``sign`` is 1 for bids, -1 for asks.

    e = 1{P_n ≥ P_n-1} q_n − 1{P_n ≤ P_n-1} q_n-1 for bids, with the inequalities turned round for asks.
    """
    worst = -math.inf
    key_now = worst if math.isnan(now[0]) else sign * now[0]
    key_before = worst if math.isnan(before[0]) else sign * before[0]
    flow = Fraction(0)
    if key_now >= key_before:
        flow += exact(now[1])
    if key_now <= key_before:
        flow -= exact(before[1])
    return flow


def order_flow(tops: list[tuple[list[float], ...]]) -> list[tuple[Fraction, Fraction, Fraction]]:
    """Return ofi_1, ofi_5 and ofi_10 between each two successive tops (bid_px, bid_qty, ask_px, ask_qty)."""
    rows = []
    for before, now in pairwise(tops):
        levels = []
        for level in range(10):
            bid = [(top[0][level], top[1][level]) for top in (now, before)]
            ask = [(top[2][level], top[3][level]) for top in (now, before)]
            levels.append(level_flow(*bid, 1) - level_flow(*ask, -1))
        rows.append((levels[0], sum(levels[:5], Fraction(0)), sum(levels, Fraction(0))))
    return rows


def z_scores(values: list[Fraction], window: int) -> list[float | None]:
    """Return the z-score of each value over the last ``window`` ones, as the contract defines it; None where it is null."""
    assert all((value * 10**8).denominator == 1 for value in values)
    units = [int(value * 10**8) for value in values]
    scores: list[float | None] = []
    for end in range(1, len(units) + 1):
        last = units[max(0, end - window) : end]
        total, squares = sum(last), sum(unit * unit for unit in last)
        spread = window * squares - total * total
        if len(last) < window or not spread:
            scores.append(None)
        else:
            scores.append(float(window * last[-1] - total) / math.sqrt(float(spread)))
    return scores
