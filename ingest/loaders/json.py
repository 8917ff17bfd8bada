"""JSON and JSON Lines as text that reads: ``名称: 三坐标测量机; 位置: 2号楼`` instead of braces.

A record without inner ones is a line, a list of plain values is a line, and the names of what
holds more are headings down to the third level, then lines of their own. Numbers are kept as
they are written. A file that is not valid JSON is kept as plain text, with a note where it
breaks.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ingest.decode import decode
from ingest.loaders.base import (
    LoadedText,
    ParseLimits,
    TextBuilder,
    check_cells,
    check_text_chars,
)
from ingest.loaders.whitespace import squeeze
from kb.errors import LimitExceededError

_MAX_DEPTH = 100
_MAX_HEADING_LEVEL = 3
_SHOWN_LINES = 10


@dataclass(slots=True)
class _Count:
    limits: ParseLimits
    n_values: int = 0

    def add(self) -> None:
        self.n_values += 1
        check_cells(self.n_values, self.limits.max_cells)


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    source, encoding, is_guessed = decode(data)
    check_text_chars(len(source), limits.max_text_chars)
    notes: tuple[str, ...] = ()
    try:
        values = [parse(source)]
    except json.JSONDecodeError as exc:
        values, broken = _parse_lines(source)
        if len(broken) == len(values):  # no line of it is JSON
            notes = (f"this is no valid JSON ({_place(exc)}); it is kept as plain text",)
            return LoadedText(source, (), (), encoding, is_guessed, notes)
        notes = tuple(_notes(broken))
    builder = TextBuilder(limits.max_text_chars)
    count = _Count(limits)
    value = values if len(values) > 1 else values[0]
    _add(builder, value, "", 0, count)
    return replace(builder.build(), encoding=encoding, encoding_guessed=is_guessed, notes=notes)


def parse(source: str) -> Any:
    """Parse JSON with its numbers as text, exactly as written.

    Raises:
        json.JSONDecodeError: it is not valid.
        LimitExceededError: it is nested too deeply.
    """
    try:
        return json.loads(source, parse_int=str, parse_float=str, parse_constant=str)
    except RecursionError as exc:
        raise LimitExceededError("the JSON is nested too deeply to be read") from exc


def _parse_lines(source: str) -> tuple[list[Any], list[int]]:
    """Return a value per line that is not blank, and the numbers of those that are no JSON."""
    values: list[Any] = []
    broken = []
    for number, line in enumerate(source.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = parse(line)
            if not isinstance(value, dict | list):
                raise json.JSONDecodeError("a record was expected", line, 0)
            values.append(value)
        except json.JSONDecodeError:
            values.append(line)
            broken.append(number)
    return values, broken


def _place(error: json.JSONDecodeError) -> str:
    return f"line {error.lineno}, column {error.colno}"


def _notes(broken: list[int]) -> Iterator[str]:
    if broken:
        shown = ", ".join(map(str, broken[:_SHOWN_LINES]))
        more = f" and {len(broken) - _SHOWN_LINES:,} more" if len(broken) > _SHOWN_LINES else ""
        plural = "s" if len(broken) > 1 else ""
        yield f"line{plural} {shown}{more}: no valid JSON, kept as plain text"


def _add(builder: TextBuilder, value: Any, name: str, depth: int, count: _Count) -> None:
    """Append a value and all in it; `name` is its key, "" for list items."""
    if depth > _MAX_DEPTH:
        raise LimitExceededError("the JSON is nested too deeply to be read")
    if (line := _as_line(value, count)) is not None:
        if line:
            builder.add(f"{name}: {line}" if name else line, "\n" if depth else "\n\n")
        return
    level = min(depth, _MAX_HEADING_LEVEL + 1)
    if name and level <= _MAX_HEADING_LEVEL:
        builder.heading(name, max(level, 1))
    elif name:
        builder.add(f"{name}:", "\n")
    if isinstance(value, list):
        _add_list(builder, value, depth, count)
        return
    # What is short comes first, else it would seem to belong under the last heading.
    items = sorted(value.items(), key=lambda item: _is_nested(item[1]))
    for key, inner in items:
        _add(builder, inner, squeeze(str(key)), depth + 1, count)


def _add_list(builder: TextBuilder, values: list[Any], depth: int, count: _Count) -> None:
    for i, value in enumerate(values):
        line = _as_line(value, count)
        if line is not None:
            builder.add(line, "\n" if i else "\n\n")
            continue
        # Inside a list there are no headings: records are alike, and there may be thousands.
        for j, part in enumerate(_record_lines(value, count, depth)):
            builder.add(part, "\n" if j else "\n\n")


def _record_lines(value: Any, count: _Count, depth: int) -> Iterator[str]:
    """Yield the lines of a record with inner records, which are indented below their name."""
    if depth > _MAX_DEPTH:
        raise LimitExceededError("the JSON is nested too deeply to be read")
    items = value.items() if isinstance(value, dict) else (("", inner) for inner in value)
    for key, inner in items:
        name = squeeze(str(key))
        line = _as_line(inner, count)
        if line is None:
            if name:
                yield f"{name}:"
            for part in _record_lines(inner, count, depth + 1):
                yield f"  {part}" if name else part
        elif line:
            yield f"{name}: {line}" if name else f"- {line}"


def _as_line(value: Any, count: _Count) -> str | None:
    """Return a plain value, a list of them or a record of them as a line; None for what is more."""
    if _is_nested(value):
        return None
    if isinstance(value, dict):
        pairs = ((squeeze(str(key)), _plain(inner, count)) for key, inner in value.items())
        return "; ".join(f"{key}: {text}" if key else text for key, text in pairs if text)
    if isinstance(value, list):
        return ", ".join(filter(None, (_plain(inner, count) for inner in value)))
    return _plain(value, count)


def _plain(value: Any, count: _Count) -> str:
    if value is None or isinstance(value, dict | list):
        return ""  # an empty container
    count.add()
    if isinstance(value, bool):
        return "true" if value else "false"
    return squeeze(str(value))


def _is_nested(value: Any) -> bool:
    """Tell whether a container holds another that is not empty."""
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, list) and any(
        isinstance(inner, dict | list) and inner for inner in value
    )
