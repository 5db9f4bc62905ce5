"""Charts as inline SVG that stretches to its place, with labels in HTML, so that text keeps its size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from harvest.report.axis import Tick
from harvest.report.histogram import BINS, EDGES_MS, FIRST_LATE, edge_text
from harvest.report.markup import Html, element, joined
from harvest.report.texts import short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from harvest.report.axis import TimeAxis
    from harvest.report.buckets import Floats

#: Units of a chart's height.
HEIGHT = 200
#: What exceeds this share of the buckets' extremes is cut off, so that one outlier does not flatten all else.
_SHOWN_SHARE = 0.98
_LEAST_MS = 0.1
#: What the name of an edge takes of a histogram's width.
_NAME_SHARE = 0.16
#: Marks along a chart.
_TICKS = 5


@attrs.frozen
class Line:
    """One line of a chart. ``role`` (a, b) is its colour and its dash; the band is drawn around it."""

    name: str
    role: str
    values: Floats
    low: Floats | None = None
    high: Floats | None = None
    #: Significant digits of its tooltips.
    digits: int = 3


@attrs.frozen
class _Scale:
    low: float
    high: float
    ticks: list[Tick]
    is_log: bool = False

    def place(self, values: Floats) -> NDArray[np.int64]:
        """Return the units from the top, within the chart; NaN must have been taken out."""
        low, high = self.low, self.high
        if self.is_log:
            values = np.log10(np.maximum(values, _LEAST_MS))
            low, high = np.log10(low), np.log10(high)
        shares = np.clip((values - low) / (high - low), 0.0, 1.0)
        placed: NDArray[np.int64] = np.round((1 - shares) * HEIGHT).astype(np.int64)
        return placed


def over_time(
    title: str,
    unit: str,
    axis: TimeAxis,
    lines: Sequence[Line],
    *,
    from_zero: bool = True,
    is_log: bool = False,
) -> Html:
    """Draw lines over time. Without a value there is no line."""
    here = [line for line in lines if np.isfinite(line.values).any()]
    if not here:
        return _figure(title, unit, None, element("p", "nothing recorded", class_="none"))
    # Clocks that differ make negative ones.
    is_log = is_log and all(np.nanmin(line.values) > 0 for line in here)
    scale = _decades(here) if is_log else _round_scale(here, from_zero=from_zero)
    bands = [_band(line, scale) for line in here if line.low is not None]
    paths = [
        element(
            "path",
            class_=f"line {line.role}",
            d=_path(scale, line.values),
            data_n=line.name,
            data_v=values_text(line.values, line.digits),
        )
        for line in here
    ]
    drawing = _drawing(axis.count, scale, [tick.at for tick in axis.ticks(_TICKS)], [*bands, *paths])
    plot = element(
        "div",
        drawing,
        class_="plot",
        tabindex=0,
        role="img",
        aria_label=title,
        data_axis="time",
        data_u=unit,
    )
    legend = joined(*(_key(line.role, line.name, _said(line)) for line in here))
    return _figure(title, unit, legend, _framed(scale, plot, axis.ticks(_TICKS)))


def latencies(title: str, feeds: Sequence[tuple[str, str, NDArray[np.int64]]]) -> Html:
    """Draw how latencies are spread: (name, role, counts by bin) of each feed, in percent of its own rows."""
    here = [(name, role, counts / counts.sum() * 100) for name, role, counts in feeds if counts.sum()]
    if not here:
        return _figure(title, "% of rows", None, element("p", "nothing recorded", class_="none"))
    filled = np.flatnonzero(np.any([shares > 0 for _, _, shares in here], axis=0))
    first, last = max(int(filled[0]) - 1, 0), min(int(filled[-1]) + 2, BINS)
    top = float(max(shares.max() for _, _, shares in here))
    scale = _scale_to(0.0, top)
    bars = []
    for name, role, shares in here:
        placed = scale.place(shares[first:last])
        steps = "".join(f"V{y}h1" for y in placed.tolist())
        bars.append(
            element(
                "path",
                class_=f"bars {role}",
                d=f"M0 {HEIGHT}{steps}V{HEIGHT}z",
                data_n=name,
                data_v=values_text(shares[first:last], digits=2),
            )
        )
    count = last - first
    marks = _edges(first, last)
    if first < FIRST_LATE < last:
        zero = element("path", class_="zero", d=f"M{FIRST_LATE - first} 0V{HEIGHT}")
        bars.append(zero)
    drawing = _drawing(count, scale, [], bars)
    plot = element(
        "div",
        drawing,
        class_="plot",
        tabindex=0,
        role="img",
        aria_label=title,
        data_axis="latency",
        data_from=first,
        data_u="%",
    )
    legend = joined(*(_key(role, name, None) for name, role, _ in here))
    return _figure(title, "% of rows", legend, _framed(scale, plot, marks))


def _edges(first: int, last: int) -> list[Tick]:
    """Choose edges of bins to be named, as far apart as their names need: zero and powers of ten before others."""
    here = [
        ((place + 1 - first) / (last - first), edge)
        for place, edge in enumerate(EDGES_MS)
        if first < place + 1 < last
    ]
    chosen: list[Tick] = []
    for digits in ("01", "125", "12345678"):
        for at, edge in here:
            if f"{abs(edge):e}"[0] in digits and all(abs(at - tick.at) >= _NAME_SHARE for tick in chosen):
                chosen.append(Tick(at, edge_text(edge)))
    return chosen


def values_text(values: Floats, digits: int = 4) -> str:
    """Write values for the tooltips: short, nothing where there is none, and what repeats once (``100*30``)."""
    texts = [
        "" if np.isnan(value) else f"{value:.7g}" if value >= 1000 else f"{value:.{digits}g}"
        for value in values
    ]
    written: list[str] = []
    place = 0
    while place < len(texts):
        end = place
        while end < len(texts) and texts[end] == texts[place]:
            end += 1
        written.append(texts[place] if end - place == 1 else f"{texts[place]}*{end - place}")
        place = end
    return ",".join(written)


def _said(line: Line) -> str:
    known = line.values[np.isfinite(line.values)]
    highest = known if line.high is None else line.high[np.isfinite(line.high)]
    return f"mean {short(float(known.mean()))}, greatest {short(float(highest.max()))}"


def _round_scale(lines: Sequence[Line], *, from_zero: bool) -> _Scale:
    tops, bottoms = [], []
    for line in lines:
        known = line.values[np.isfinite(line.values)]
        highs = known if line.high is None else line.high[np.isfinite(line.high)]
        lows = known if line.low is None else line.low[np.isfinite(line.low)]
        tops.append(max(float(known.max()), float(np.quantile(highs, _SHOWN_SHARE))))
        bottoms.append(min(float(known.min()), float(np.quantile(lows, 1 - _SHOWN_SHARE))))
    return _scale_to(min(0.0, *bottoms) if from_zero else min(bottoms), max(tops))


def _scale_to(low: float, high: float) -> _Scale:
    """Make a scale of round steps that holds both."""
    if high <= low:
        high, low = high + (abs(high) or 1.0) * 0.01, low - (abs(low) * 0.01 if low else 0.0)
    rough = (high - low) / 4
    power = 10.0 ** np.floor(np.log10(rough))
    step = float(next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * 0.999))
    bottom, top = float(np.floor(low / step + 1e-9)) * step, float(np.ceil(high / step - 1e-9)) * step
    count = round((top - bottom) / step)
    digits = max(0, 1 - int(np.floor(np.log10(step)))) if step < 10 else 0
    marks = [bottom + place * step for place in range(count + 1)]
    return _Scale(
        bottom, top, [Tick(place / count, _mark(value, digits)) for place, value in enumerate(marks)]
    )


def _mark(value: float, digits: int) -> str:
    if abs(value) >= 100_000:
        return short(value)
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _decades(lines: Sequence[Line]) -> _Scale:
    known = np.concatenate(
        [part[np.isfinite(part)] for line in lines for part in (line.values, line.high) if part is not None]
    )
    known = np.maximum(known, _LEAST_MS)
    low, high = int(np.floor(np.log10(known.min()))), int(np.ceil(np.log10(known.max()) + 1e-9))
    high = max(high, low + 1)
    ticks = [Tick((power - low) / (high - low), f"{10.0**power:g}") for power in range(low, high + 1)]
    return _Scale(10.0**low, 10.0**high, ticks, is_log=True)


def _runs(values: Floats) -> list[tuple[int, int]]:
    """Return the stretches of known values, from and to before."""
    known = np.concatenate(([False], np.isfinite(values), [False]))
    edges = np.flatnonzero(known[1:] != known[:-1]).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _path(scale: _Scale, values: Floats) -> str:
    """Draw through the middles of the buckets; a bucket alone is a dot."""
    parts = []
    for begin, end in _runs(values):
        placed = scale.place(values[begin:end])
        steps = "".join(_pair(dy) for dy in np.diff(placed).tolist())
        parts.append(f"M{begin}.5 {placed[0]}{'l' + steps.strip() if steps else 'h.01'}")
    return "".join(parts)


def _pair(dy: int) -> str:
    return f" 1{dy}" if dy < 0 else f" 1 {dy}"


def _band(line: Line, scale: _Scale) -> Html:
    assert line.low is not None
    assert line.high is not None
    parts = []
    for begin, end in _runs(line.values):
        upper, lower = scale.place(line.high[begin:end]), scale.place(line.low[begin:end])
        if end - begin == 1:
            parts.append(f"M{begin} {upper[0]}h1V{lower[0]}h-1z")
            continue
        there = "".join(_pair(dy) for dy in np.diff(upper).tolist()).strip()
        back = "".join(f"-1{dy}" if dy < 0 else f"-1 {dy}" for dy in np.diff(lower[::-1]).tolist())
        parts.append(f"M{begin}.5 {upper[0]}l{there}V{lower[-1]}l{back}z")
    return element("path", class_=f"band {line.role}", d="".join(parts))


def _drawing(width: int, scale: _Scale, verticals: Sequence[float], parts: Sequence[Html]) -> Html:
    across = "".join(f"M0 {round((1 - tick.at) * HEIGHT)}H{width}" for tick in scale.ticks)
    down = "".join(f"M{at * width:.2f} 0V{HEIGHT}" for at in verticals)
    grid = element("path", class_="grid", d=across + down)
    return element(
        "svg", grid, *parts, viewBox=f"0 0 {width} {HEIGHT}", preserveAspectRatio="none", aria_hidden="true"
    )


def _framed(scale: _Scale, plot: Html, ticks: Sequence[Tick]) -> Html:
    marks = (element("span", tick.text, style=f"bottom:{tick.at:.0%}") for tick in scale.ticks)
    return element("div", element("div", *marks, class_="y"), plot, time_labels(ticks), class_="frame")


def time_labels(ticks: Sequence[Tick]) -> Html:
    """Write the labels of a horizontal axis; those at its ends stay within it."""
    spans = (
        element(
            "span",
            tick.text,
            style=f"left:{tick.at:.1%}",
            class_="first" if tick.at < 0.03 else "last" if tick.at > 0.95 else None,
        )
        for tick in ticks
    )
    return element("div", *spans, class_="x")


def _key(role: str, name: str, said: str | None) -> Html:
    return element("span", element("i", class_=f"key {role}"), name, said and element("small", f" {said}"))


def _figure(title: str, unit: str, legend: Html | None, body: Html) -> Html:
    heading = element("span", element("b", title), element("small", f" {unit}"))
    shown = None if legend is None else element("span", legend, class_="legend")
    return element("figure", element("figcaption", heading, shown), body, class_="chart")
