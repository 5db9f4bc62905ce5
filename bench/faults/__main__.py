"""``python -m bench.faults``: what is promised of kills, power cuts, full disks and bursts, tried.

    python -m bench.faults --schedules 10000             crashes at random calls, on a disk that models lost writes
    python -m bench.faults --every-call                  each call of a flush and of a compaction fails, or is the last before a power cut
    python -m bench.faults --kills 100 --report kills.jsonl
                                                         random SIGKILLs of the program under load; goes on where it stopped
    python -m bench.faults --burst --seconds 600         ten times the rate of the recordings, and 25,000 messages a second
    python -m bench.faults --full-disk --seconds 60      a disk that is full for a minute under a flood, with memory enough and too little

On a machine of two cores the schedules take about half an hour, 100 kills nine minutes, the burst eleven.

Exit 0: every promise was kept. Exit 1: not so; what was broken is printed with what reproduces it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from bench.faults.burst import PEAK_RATE, PEAK_S, RATE, run_burst
from bench.faults.every_call import run_every_call
from bench.faults.full_disk import NoSmallDiskError, run_full_disks
from bench.faults.kills import run_kills
from bench.faults.schedules import report, run_schedules


def main() -> int:
    """Try what is asked for, and print what came of it."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--schedules", type=int, nargs="?", const=10_000, metavar="N")
    parser.add_argument("--every-call", action="store_true")
    parser.add_argument("--kills", type=int, nargs="?", const=100, metavar="N")
    parser.add_argument("--report", type=Path, help="a line of JSON a kill; a later call goes on behind it")
    parser.add_argument("--directory", type=Path, help="where the killed program writes (beside the report)")
    parser.add_argument("--burst", action="store_true")
    parser.add_argument("--full-disk", action="store_true")
    parser.add_argument(
        "--seconds",
        type=float,
        help="of the burst at ten times the usual rate (600), or in which the disk is full (60)",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="N", help="that schedule of the workload --seed alone")
    parser.add_argument("--jobs", type=int, help="processes (as many as cores)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the directories of violations there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found")
    arguments = parser.parse_args()
    found: dict[str, object] = {}
    is_good = True
    if arguments.schedules or arguments.only is not None:
        began = time.monotonic()
        tally = run_schedules(
            arguments.schedules or 1,
            seed=arguments.seed,
            only=arguments.only,
            jobs=arguments.jobs,
            keep=arguments.keep,
        )
        for violation in tally.violations:
            print(violation)
        found["schedules"] = report(tally, began)
        is_good = is_good and not tally.violations
    if arguments.every_call:
        points = run_every_call()
        print(*points.violations, points, sep="\n")
        found["every_call"] = points.to_json()
        is_good = is_good and not points.violations
    if arguments.kills:
        lines = arguments.report or Path(tempfile.mkdtemp(prefix="harvest-kills-")) / "kills.jsonl"
        directory = arguments.directory or lines.with_suffix("")
        account = run_kills(arguments.kills, directory, lines, seed=arguments.seed)
        print(account)
        found["kills"] = account.to_json()
        is_good = is_good and account.is_kept
    if arguments.burst:
        bursts, burst_s = [], arguments.seconds or 600.0
        for rate, seconds in ((RATE, burst_s), (PEAK_RATE, min(PEAK_S, burst_s))):
            bursts.append(run_burst(rate, seconds))
            print(bursts[-1], flush=True)
        found["bursts"] = [burst.to_json() for burst in bursts]
        is_good = is_good and all(burst.is_kept for burst in bursts)
    if arguments.full_disk:
        disks = []
        try:
            for disk in run_full_disks(arguments.seconds or 60.0):
                print(disk, flush=True)
                disks.append(disk)
        except NoSmallDiskError as error:
            parser.error(str(error))
        found["full_disks"] = [disk.to_json() for disk in disks]
        is_good = is_good and all(disk.is_kept for disk in disks)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
