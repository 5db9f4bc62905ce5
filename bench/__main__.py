"""harvest beside its peers, in one run: ``python -m bench``.

    pip install -e '.[bench]'
    python -m bench                   all of it, about a quarter of an hour
    python -m bench --quick           under five minutes
    python -m bench --only trades --json FILE

Sides take turns, round after round, on the same prepared frames; the server has one core and the client the other. Each side
must have stored what it was sent, or its round is none.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from bench.measures import MEASURES
from bench.peers.certificate import make_certificate
from bench.peers.match import SIDES, Match, Side, rounds
from bench.ratios import Ratio, of_medians

if TYPE_CHECKING:
    from bench.peers.side import Result

#: Match, and the sides that play it: the ratio of harvest to each of the others, with floor and goal.
CARD: list[tuple[Match, int, dict[str, tuple[float, float] | None]]] = [
    (
        Match("trades", 1_500_000),
        200_000,
        {
            "cryptofeed": (4.0, 7.0),
            "cryptofeed to Parquet": (5.0, 9.0),
            "picows + uvloop": (0.8, 1.1),
            "asyncio recorder": None,
        },
    ),
    (
        Match("mix", 300_000),
        60_000,
        {
            "cryptofeed": (2.5, 4.0),
            "cryptofeed to Parquet": None,
            "picows + uvloop": None,
            "asyncio recorder": None,
        },
    ),
    (Match("trades", 1_000_000, is_tls=True), 200_000, {"cryptofeed": (2.0, 3.0), "picows + uvloop": None}),
]


def main() -> None:
    """Run what is asked for, print the tables, write the JSON; exits with 1 if a floor was missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer messages and rounds")
    parser.add_argument("--rounds", type=int, help="rounds of each match (default: 5; 3 if quick)")
    parser.add_argument(
        "--only", action="append", help="a match or a measure, by a part of its name; repeatable"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    console = Console()
    count = arguments.rounds or (3 if arguments.quick else 5)
    cores = _cores()
    ratios: list[Ratio] = []
    record: dict[str, Any] = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "matches": {},
        "measures": {},
    }
    with tempfile.TemporaryDirectory(prefix="harvest-bench-") as directory:
        for match, theirs, against in CARD:
            if not _is_asked(match.name, arguments.only):
                continue
            certificate = make_certificate(Path(directory)) if match.is_tls else None
            results: dict[str, list[Result]] = {}
            few = Match(match.mix, theirs // (2 if arguments.quick else 1), match.is_tls)
            many = Match(match.mix, match.messages // (4 if arguments.quick else 1), match.is_tls)
            for _ in range(count):
                for side in _present(["harvest", *against], console):
                    # A slow side plays with fewer messages: rates are compared, not times.
                    played = many if side.name in ("harvest", "picows + uvloop") else few
                    result = rounds(played, [side], 1, cores=cores, certificate=certificate)
                    results.setdefault(side.name, []).extend(result[side.name])
            console.print(_table(match, results))
            record["matches"][match.name] = {
                name: {
                    "thousands_a_second": [one.thousands_a_second for one in of_side],
                    "receive_seconds": [one.receive_seconds for one in of_side],
                    "seconds": [one.seconds for one in of_side],
                }
                for name, of_side in results.items()
            }
            for name, bounds in against.items():
                if bounds and name in results:
                    value = of_medians(_rates(results["harvest"]), _rates(results[name]))
                    ratios.append(Ratio(f"{match.name}, against {name}", value, *bounds))
    for name, measure in MEASURES.items():
        if _is_asked(name, arguments.only):
            found = measure(quick=arguments.quick)
            console.print(found.table())
            record["measures"][name] = found.figures
            ratios.extend(found.ratios)
    console.print(_ratio_table(ratios))
    record["ratios"] = [ratio.to_json() for ratio in ratios]
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    sys.exit(any(ratio.verdict == "below" for ratio in ratios))


def _is_asked(name: str, only: list[str] | None) -> bool:
    return only is None or any(part in name for part in only)


def _cores() -> tuple[int, int] | None:
    if not hasattr(os, "sched_getaffinity"):
        return None
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else None


def _present(names: list[str], console: Console) -> list[Side]:
    sides = []
    for name in names:
        missing = [package for package in SIDES[name].needs if importlib.util.find_spec(package) is None]
        if missing:
            console.print(f"{name}: not installed ({', '.join(missing)}); pip install -e '.[bench]'")
        else:
            sides.append(SIDES[name])
    return sides


def _rates(results: list[Result]) -> list[float]:
    return [result.thousands_a_second for result in results]


def _table(match: Match, results: dict[str, list[Result]]) -> Table:
    table = Table(title=f"{match.name}: messages from the socket to the sink")
    for heading in (
        "side",
        "thousand/s",
        "lowest",
        "highest",
        "harvest is",
        "received",
        "µs CPU each",
        "RSS MiB",
    ):
        table.add_column(heading, justify="left" if heading == "side" else "right")
    ours = median(_rates(results["harvest"]))
    for name, of_side in results.items():
        rates = _rates(of_side)
        table.add_row(
            name,
            f"{median(rates):.1f}",
            f"{min(rates):.1f}",
            f"{max(rates):.1f}",
            f"{ours / median(rates):.2f} ×",
            # Without what is written after the last message was there.
            f"{median(one.messages / one.receive_seconds for one in of_side) / 1000:.1f}",
            f"{median(one.cpu_seconds / one.messages for one in of_side) * 1e6:.1f}",
            f"{median(one.rss_mib for one in of_side):.0f}",
        )
    return table


def _ratio_table(ratios: list[Ratio]) -> Table:
    table = Table(title="what must be reached")
    for heading in ("measure", "value", "floor", "goal", "reached"):
        table.add_column(heading, justify="left" if heading in ("measure", "reached") else "right")
    for one in ratios:
        table.add_row(one.name, f"{one.value:.2f}", f"{one.floor:g}", f"{one.goal:g}", one.verdict)
    return table


if __name__ == "__main__":
    main()
