from __future__ import annotations

import random

import pytest

from harvest.book import ladder as module
from harvest.book.ladder import Ladder


@pytest.mark.parametrize(("near", "forget_from"), [(4, 10), (16, 50), (128, 1000)])
@pytest.mark.parametrize("seed", range(3))
def test_tops_are_those_of_a_plain_book_however_few_levels_are_near(monkeypatch, near, forget_from, seed):
    monkeypatch.setattr(module, "NEAR_LEVELS", near)
    monkeypatch.setattr(module, "FORGET_FROM", forget_from)
    chaos, mid = random.Random(seed), 1000
    plain: tuple[dict[float, float], dict[float, float]] = ({}, {})
    book = Ladder()
    for _ in range(400):
        # Mostly a step, now and then a leap that leaves all near levels behind.
        mid += chaos.choice((-1, 0, 1)) if chaos.random() < 0.97 else chaos.randint(-200, 200)
        bids, asks = (
            [
                (float(mid + way * int(chaos.expovariate(0.05))), chaos.choice((0.0, 0.0, 1.0, 2.5)))
                for _ in range(chaos.randrange(30))
            ]
            for way in (-1, 1)
        )
        book.apply(bids, asks)
        for levels, changes in zip(plain, (bids, asks), strict=True):
            levels.update(changes)
            for price in [price for price, qty in levels.items() if not qty]:
                del levels[price]
        best = sorted(plain[0].items(), reverse=True), sorted(plain[1].items())
        bid_px, bid_qty, ask_px, ask_qty = book.top(10)
        assert list(zip(bid_px, bid_qty, strict=True))[: len(best[0])] == best[0][:10]
        assert list(zip(ask_px, ask_qty, strict=True))[: len(best[1])] == best[1][:10]
    assert book.levels() == best
    assert len(book) == len(plain[0]) + len(plain[1])
