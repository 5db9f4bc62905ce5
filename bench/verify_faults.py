"""Does ``harvest verify`` name exactly what was lost? Seeded faults, and an oracle that shares no code with harvest.

Two sorts of points, each at random places of the recordings: messages deleted, sent twice, or swapped with the next of their
stream, before they are ingested (what harvest knows to be missing); and rows deleted, doubled, swapped or changed in files
afterwards, with the files' metadata made to fit (what nobody knows of).

    python -m bench.verify_faults --points 1000 --recordings ../shared/recordings
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import attrs

from bench.fault_score import Interval, Score
from bench.stored_faults import stored_round
from harvest.pipeline.ingest import Ingest
from harvest.pipeline.verify import verify
from harvest.settings import Settings

FILES = {
    "binance-usdm": [
        "usdm__btcusdt_20240718.gz",
        "usdm__btcusdt_20240719.gz",
        "usdm__ethusdt_20240718.gz",
        "usdm__ethusdt_20240719.gz",
    ],
    "binance-spot": ["spot__btcusdt_20240808.gz"],
}


@attrs.define
class Message:
    """One line of a recording; ``stream`` is None for what is left alone."""

    stamp: bytes
    frame: bytes
    stream: str | None
    data: dict[str, Any]


def load(path: Path) -> list[Message]:
    """Read a recording; streams are ``trade`` and ``depth``."""
    messages = []
    with gzip.open(path) as file:
        for line in file:
            frame = line[20:].rstrip(b"\n")
            decoded = json.loads(frame)
            stream = decoded.get("stream", "@").split("@")[1]
            messages.append(
                Message(
                    line[:20],
                    frame,
                    stream if stream in ("trade", "depth") else None,
                    decoded.get("data", {}),
                )
            )
    return messages


def spoil(messages: list[Message], points: int, chaos: random.Random) -> tuple[list[Message], Counter[str]]:
    """Delete, double and swap messages at random points, never the first or last of a stream."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, message in enumerate(messages):
        if message.stream is not None:
            places[message.stream].append(place)
    inner = [(stream, at) for stream, of_stream in places.items() for at in range(1, len(of_stream) - 2)]
    spoilt: list[list[Message]] = [[message] for message in messages]
    kinds: Counter[str] = Counter()
    for stream, at in chaos.sample(inner, points):
        here, after = places[stream][at], places[stream][at + 1]
        fault = chaos.choice(("deleted", "doubled", "swapped"))
        kinds[f"{stream} {fault}"] += 1
        if fault == "deleted":
            spoilt[here] = []
        elif fault == "doubled":
            spoilt[chaos.choice((here, after))] += spoilt[here][:1]
        else:
            spoilt[here], spoilt[after] = spoilt[after], spoilt[here]
    # Each place keeps its receive time, so that these stay in order.
    return [
        attrs.evolve(message, stamp=messages[place].stamp)
        for place, there in enumerate(spoilt)
        for message in there
    ], kinds


def missing_by_rule(venue: str, symbol: str, messages: list[Message]) -> set[Interval]:
    """Say from the messages alone what must be missing, by the rules of the venue's documentation."""
    trades = {message.data["t"] for message in messages if message.stream == "trade"}
    absent = sorted(set(range(min(trades), max(trades) + 1)) - trades) if trades else []
    missing: set[Interval] = set()
    start = None
    for place, trade_id in enumerate(absent):
        start = trade_id if start is None else start
        if place + 1 == len(absent) or absent[place + 1] != trade_id + 1:
            missing.add((venue, symbol, "prices", start, trade_id))
            start = None
    last = None
    for message in messages:
        if message.stream != "depth":
            continue
        first_id, last_id = message.data["U"], message.data["u"]
        if last is not None and last_id <= last:
            continue
        if last is not None and "pu" in message.data and message.data["pu"] > last:
            missing.add((venue, symbol, "depth", last, message.data["pu"]))
        if last is not None and "pu" not in message.data and first_id > last + 1:
            missing.add((venue, symbol, "depth", last, first_id))
        last = last_id
    return missing


def ingest(paths: list[Path], venue: str, root: Path) -> None:
    """Ingest recordings into ``root``."""
    plain = Settings()
    capture = attrs.evolve(plain.capture, venue=venue, output_dir=root)
    Ingest(paths, attrs.evolve(plain, capture=capture)).run()


def recording_round(
    loaded: dict[str, dict[str, list[Message]]], points: int, seed: int, work: Path, score: Score
) -> None:
    """Spoil recordings, ingest them, and hold what verify names against the rules."""
    chaos = random.Random(seed)
    root = work / f"data-{seed}"
    expected: set[Interval] = set()
    sizes = {name: len(messages) for files in loaded.values() for name, messages in files.items()}
    shares = Counter(chaos.choices(list(sizes), weights=list(sizes.values()), k=points))
    for venue, files in loaded.items():
        paths, by_symbol = [], defaultdict(list)
        for name, messages in files.items():
            spoilt, kinds = spoil(messages, shares[name], chaos)
            score.points.update(kinds)
            path = work / f"{seed}-{name.removesuffix('.gz')}"
            path.write_bytes(b"".join(b"%s%s\n" % (one.stamp, one.frame) for one in spoilt))
            paths.append(path)
            by_symbol[name.split("_")[2].upper()] += spoilt
        ingest(paths, venue, root)
        for symbol, messages in by_symbol.items():
            expected |= missing_by_rule(venue, symbol, messages)
    report = verify(root, jobs=1)
    named = {
        (series.venue, series.symbol, series.kind, one.from_id, one.to_id)
        for series in report.series
        for one in series.missing
    }
    score.add(expected, named, f"seed {seed}")
    # What was deleted is explained, what came twice is stored once: no row is wrong.
    for one in report.damage:
        score.false_alarms += 1
        score.wrong.append(f"seed {seed}: damage: {one}")
    if report.exit_code != (1 if expected else 0):
        score.wrong.append(f"seed {seed}: exit {report.exit_code}")
    shutil.rmtree(root)


def run(recordings: Path, *, points: int, stored_points: int, per_round: int, seed: int, work: Path) -> Score:
    """Run all rounds: first the untouched files, which must raise no alarm."""
    loaded = {venue: {name: load(recordings / name) for name in names} for venue, names in FILES.items()}
    score = Score()
    clean = work / "clean"
    for venue, names in FILES.items():
        ingest([recordings / name for name in names], venue, clean)
    untouched = verify(clean, jobs=1)
    score.false_alarms += len(untouched.damage) + len(untouched.missing)
    if untouched.exit_code:
        score.wrong.append(f"the untouched files: exit {untouched.exit_code}")
    for number, begin in enumerate(range(0, points, per_round)):
        recording_round(loaded, min(per_round, points - begin), seed + number, work, score)
    for number, begin in enumerate(range(0, stored_points, per_round)):
        stored_round(clean, min(per_round, stored_points - begin), seed + number, work, score)
    return score


def main() -> None:
    """Run it, and exit 1 if anything was not found or was named in vain."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--points", type=int, default=1000, help="in recordings")
    parser.add_argument("--stored-points", type=int, default=None, help="in stored rows (as many)")
    parser.add_argument("--per-round", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    beside = Path(__file__).resolve().parents[2] / "shared" / "recordings"
    parser.add_argument("--recordings", type=Path, default=beside)
    options = parser.parse_args()
    stored = options.points if options.stored_points is None else options.stored_points
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        score = run(
            options.recordings,
            points=options.points,
            stored_points=stored,
            per_round=options.per_round,
            seed=options.seed,
            work=Path(directory),
        )
    for fault, number in sorted(score.points.items()):
        print(f"{number:6,} {fault}")
    for line in score.wrong[:50]:
        print(line)
    print(
        f"{sum(score.points.values()):,} points: {score.expected:,} to be named, {score.found:,} found, "
        f"{score.false_alarms:,} false alarms, {len(score.wrong):,} wrong; {time.monotonic() - started:.0f}s"
    )
    sys.exit(bool(score.wrong))


if __name__ == "__main__":
    main()
