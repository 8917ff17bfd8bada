"""The report of `kb eval --html`: one file with tables and plots, readable without a network.

Plots are SVG made here; no script, no font and no picture comes from elsewhere. Colours follow the
reader's light or dark mode.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 12, 34
_RECALLS = ("recall@1", "recall@5", "recall@10")
_BINS_PER_DOUBLING = 2

_STYLE = """
:root { color-scheme: light dark; --text: #1c2024; --muted: #5f6870; --line: #d5dadf;
  --page: #ffffff; --a: #2f6fbb; --b: #d9822b; --c: #3f9b62; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ec; --muted: #9aa4ad; --line: #3a4148;
  --page: #16191c; --a: #6ea8ec; --b: #f0a85c; --c: #72c892; } }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; background: var(--page);
  color: var(--text); font: 15px/1.55 system-ui, "Noto Sans CJK SC", sans-serif; }
h2 { margin-top: 2.4rem; } figure { margin: 1rem 0; } figcaption, .muted { color: var(--muted); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: 0.2rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
svg { display: block; max-width: 100%; height: auto; } svg text { fill: var(--muted);
  font: 11px system-ui, "Noto Sans CJK SC", sans-serif; }
.axis { stroke: var(--line); fill: none; } .a { fill: var(--a); } .b { fill: var(--b); }
.c { fill: var(--c); } .line-a { stroke: var(--a); } .line-b { stroke: var(--b); }
.line-a, .line-b { fill: none; stroke-width: 2; }
.mark { stroke: var(--muted); stroke-dasharray: 4 3; }
"""


def html_report(sets: Mapping[str, Mapping[str, Any]], *, machine: str, threshold: float) -> str:
    """Return the report on the sets of one run as a whole HTML document.

    Args:
        sets: as under "sets" of ``kb eval --json``.
        machine: hardware and versions, one line.
        threshold: the support below which questions were refused.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>kb eval</title><style>{_STYLE}</style></head><body>",
        f'<h1>kb eval</h1><p class="muted">{escape(machine)}</p>',
        _table(sets),
        "<h2>Recall</h2>",
        _figure(
            "Share of gold documents among the first 1, 5 and 10 documents.", recall_bars(sets)
        ),
    ]
    for name, measured in sets.items():
        parts.append(f"<h2>{escape(name)}</h2>")
        parts.append(
            _figure(
                "Refused at each threshold of support: questions with an answer (blue, should "
                "stay low) and without (orange, should be high). The dashed line is the "
                f"default, {threshold:g}."
                + (f" AUROC {measured['auroc']:.3f}." if measured.get("auroc") else ""),
                refusal_plot(measured.get("refusal_curve") or [], threshold),
            )
        )
        times = (measured.get("details") or {}).get("ms") or []
        parts.append(
            _figure(
                "Milliseconds per question, a whole answer; the scale doubles.", histogram(times)
            )
        )
        parts.append(_questions(measured.get("details") or {}))
    return "\n".join([*parts, "</body></html>\n"])


def recall_bars(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """Return grouped bars of recall@1, 5 and 10; sets without gold documents are left out."""
    shown = {n: m for n, m in sets.items() if isinstance(m.get(_RECALLS[0]), int | float)}
    if not shown:
        return ""
    row = 44
    height = row * len(shown) + _TOP + 20
    left = 150
    scale = WIDTH - left - 60
    pieces = []
    for i, (name, measured) in enumerate(shown.items()):
        top = _TOP + i * row
        pieces.append(_text(left - 8, top + 22, _short(name), "end"))
        for j, (figure, kind) in enumerate(zip(_RECALLS, "abc", strict=True)):
            value = float(measured[figure] or 0)
            y = top + 2 + j * 12
            pieces.append(
                f'<rect class="{kind}" x="{left}" y="{y}" height="10" width="{value * scale:.1f}">'
                f"<title>{escape(name)} {figure} {value:.3f}</title></rect>"
            )
            pieces.append(_text(left + value * scale + 5, y + 9, f"{value:.3f}"))
    return _svg(pieces, height)


def refusal_plot(points: Sequence[Sequence[float | None]], threshold: float) -> str:
    """Return both refusal curves over the threshold; "" without points."""
    if not points:
        return ""
    pieces = _frame([(i / 4, f"{i / 4:g}") for i in range(5)])
    for column, kind in ((1, "line-a"), (2, "line-b")):
        drawn = [
            f"{_x(point[0] or 0):.1f},{_y(value):.1f}"
            for point in points
            if (value := point[column]) is not None
        ]
        if drawn:
            pieces.append(f'<polyline class="{kind}" points="{" ".join(drawn)}"/>')
    x = f"{_x(threshold):.1f}"
    pieces.append(f'<line class="mark" x1="{x}" x2="{x}" y1="{_y(1):.1f}" y2="{_y(0):.1f}"/>')
    return _svg(pieces, HEIGHT)


def histogram(times_ms: Sequence[float]) -> str:
    """Return how many questions took how long, in bins of equal ratio; "" without times."""
    if not times_ms:
        return ""
    bins = [math.floor(math.log2(max(time_ms, 0.1)) * _BINS_PER_DOUBLING) for time_ms in times_ms]
    first, last = min(bins), max(bins)
    counts = [bins.count(i) for i in range(first, last + 1)]
    width = 1 / len(counts)
    step = max(1, len(counts) // 8)
    ticks = [
        ((i - first) * width, f"{2 ** (i / _BINS_PER_DOUBLING):.3g}")
        for i in range(first, last + 2)
        if (i - first) % step == 0
    ]
    pieces = _frame(ticks, top_label=str(max(counts)))
    for i, count in enumerate(counts):
        share = count / max(counts)
        pieces.append(
            f'<rect class="a" x="{_x(i * width) + 1:.1f}" y="{_y(share):.1f}" '
            f'width="{max(_x(width) - _x(0) - 2, 1):.1f}" height="{_y(0) - _y(share):.1f}">'
            f"<title>{count}</title></rect>"
        )
    return _svg(pieces, HEIGHT)


def _table(sets: Mapping[str, Mapping[str, Any]]) -> str:
    figures = list(
        dict.fromkeys(
            figure
            for measured in sets.values()
            for figure, value in measured.items()
            if not isinstance(value, list | dict)
        )
    )
    head = "".join(f"<th>{escape(figure)}</th>" for figure in ("set", *figures))
    rows = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(f"<td>{_number(measured.get(figure))}</td>" for figure in figures)
        + "</tr>"
        for name, measured in sets.items()
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _questions(details: Mapping[str, Sequence[Any]]) -> str:
    """Return the outcome of each question, folded away; "" without questions."""
    if not details.get("question"):
        return ""
    columns = list(dict.fromkeys(("question", *details)))
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>"
        for row in zip(*(details[name] for name in columns), strict=True)
    )
    return (
        f"<details><summary>each of {len(details['question'])} questions</summary>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _cell(value: Any) -> str:
    return escape(value) if isinstance(value, str) else _number(value)


def _figure(caption: str, plot: str) -> str:
    return f"<figure>{plot}<figcaption>{escape(caption)}</figcaption></figure>" if plot else ""


def _frame(x_ticks: Sequence[tuple[float, str]], top_label: str = "1") -> list[str]:
    pieces = [
        f'<path class="axis" d="M{_x(0)} {_y(1)}V{_y(0)}H{_x(1)}"/>',
        _text(_x(0) - 6, _y(1) + 8, top_label, "end"),
        _text(_x(0) - 6, _y(0), "0", "end"),
    ]
    return pieces + [_text(_x(at), _y(0) + 18, label, "middle") for at, label in x_ticks]


def _x(share: float) -> float:
    return _LEFT + share * (WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _TOP + (1 - share) * (HEIGHT - _TOP - _BOTTOM)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(pieces: Sequence[str], height: int) -> str:
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
        + "".join(pieces)
        + "</svg>"
    )


def _short(name: str) -> str:
    return name if len(name) <= 20 else name[:19] + "…"


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) and value <= 1 else escape(f"{value:g}")
