"""Faults in rows that are stored already, with the files' metadata made to fit: nobody knows of them."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from harvest.pipeline.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

    from bench.fault_score import Interval, Score

#: Kinds that are spoilt together: a lost diff leaves nothing to say of the tops behind it.
STORED_ROUNDS = (("prices", "depth"), ("orderbook", "ofi", "cvd"))
_ID = {
    "prices": "trade_id",
    "cvd": "trade_id",
    "depth": "last_update_id",
    "orderbook": "update_id",
    "ofi": "update_id",
}


def stored_round(clean: Path, points: int, seed: int, work: Path, score: Score) -> None:
    """Spoil rows in files; every id must be named, and no other."""
    chaos = random.Random(seed)
    root = work / f"stored-{seed}"
    shutil.copytree(clean, root)
    kinds = STORED_ROUNDS[seed % len(STORED_ROUNDS)]
    files = [path for kind in kinds for path in sorted((root / kind).rglob("*.parquet"))]
    rows = {path: pq.read_metadata(path).num_rows for path in files}
    shares = Counter(chaos.choices(files, weights=[rows[path] for path in files], k=points))
    expected: set[Interval] = set()
    for path, share in shares.items():
        expected |= _spoil_file(path, share, chaos, score)
    report = verify(root, jobs=1)
    named = set()
    for series in report.series:
        for gap in series.missing:
            # USD-M names what the next diff names as its predecessor, trades and spot the ids themselves.
            at = gap.to_id if series.kind == "prices" or series.venue.endswith("usdm") else gap.to_id - 1
            named.add((series.venue, series.symbol, series.kind, at))
    for one in report.damage:
        if one.kind in kinds and one.from_id is not None and one.to_id is not None:
            named |= {(one.venue, one.symbol, one.kind, at) for at in (one.from_id, one.to_id)}
    found = {one for one in expected if one[:4] in named}
    score.expected += len(expected)
    score.found += len(found)
    score.wrong += [f"stored seed {seed}: not named: {one}" for one in sorted(expected - found)]
    known = {one[:4] for one in expected} | {(*one[:3], one[4]) for one in expected}
    extra = {one for one in named if one not in known}
    score.false_alarms += len(extra)
    score.wrong += [f"stored seed {seed}: false alarm: {one}" for one in sorted(map(str, extra))]
    if report.exit_code != 3:
        score.wrong.append(f"stored seed {seed}: exit {report.exit_code}")
    shutil.rmtree(root)


def _spoil_file(path: Path, points: int, chaos: random.Random, score: Score) -> set[Interval]:
    """Spoil rows of one file, far enough from each other to be told apart; returns the ids (twice, or with a neighbour)."""
    kind, venue, symbol = (part.rpartition("=")[2] for part in path.parts[-5:-2])
    table = pq.read_table(path, partitioning=None)
    ids = table[_ID[kind]].to_pylist()
    plain = [True] * len(ids)
    if kind == "depth":
        plain = [not flag for flag in table["is_snapshot"].to_pylist()]
    free = [at for at in range(2, len(ids) - 3, 4) if all(plain[at - 1 : at + 3])]
    order = [[at] for at in range(len(ids))]
    changed: dict[int, float] = {}
    expected: set[Interval] = set()
    for at in chaos.sample(free, min(points, len(free))):
        faults = ["deleted", "doubled", "swapped", "changed"]
        # Another quantity in a diff shows in every top after it, so that no single id can be named.
        fault = chaos.choice(faults[:3] if kind in ("depth", "prices") else faults)
        other = ids[at]
        if fault == "deleted":
            order[at] = []
        elif fault == "doubled":
            order[at] = [at, at]
        elif fault == "swapped":
            order[at], order[at + 1] = [at + 1], [at]
            other = ids[at + 1]
        else:
            changed[at] = chaos.random()
        score.points[f"stored {kind} {fault}"] += 1
        expected.add((venue, symbol, kind, ids[at], other))
    column = {"orderbook": "ask_qty_2", "ofi": "ofi_5", "cvd": "delta"}.get(kind)
    if column is not None:
        values = table[column].to_pylist()
        for at, by in changed.items():
            values[at] += 1 + by
        place = table.schema.get_field_index(column)
        table = table.set_column(place, table.schema.field(column), pa.array(values, pa.float64()))
    table = table.take(pa.array([at for there in order for at in there], pa.int64()))
    rewrite(path, table)
    return expected


def rewrite(path: Path, table: pa.Table, **facts: str) -> None:
    """Write other rows under the name of a file, with metadata that fit them, but for the ``facts`` that are given."""
    metadata = dict(pq.read_metadata(path).metadata)
    metadata[b"harvest.rows"] = str(len(table)).encode()
    metadata |= {f"harvest.{key}".encode(): value.encode() for key, value in facts.items()}
    schema = pq.read_schema(path).remove_metadata()
    with pq.ParquetWriter(path, schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(table.cast(schema))
        writer.add_key_value_metadata({key.decode(): value.decode() for key, value in metadata.items()})
