"""Numbers of spreadsheet cells as their owner sees them: dates, percentages, leading zeros.

Only what changes the meaning of a number is done: 45240 as a date is "2023-11-10", 0.031 as a
percentage "3.1%". Thousands separators, currency signs and rounding are not applied, since a
question may quote the exact value.
"""

import re
from datetime import datetime, timedelta

# What stands in a file only as a number; those for dates in Chinese editions included.
BUILTIN_FORMATS = {
    9: "0%",
    10: "0.00%",
    **dict.fromkeys((14, 15, 16, 30), "yyyy-m-d"),
    **dict.fromkeys((17, 27, 36, 50, 52, 57), 'yyyy"年"m"月"'),
    **dict.fromkeys((18, 20, 32, 34, 55), "h:mm"),
    **dict.fromkeys((19, 21, 33, 35, 56), "h:mm:ss"),
    22: "yyyy-m-d h:mm",
    **dict.fromkeys((28, 29, 31, 51, 53, 54, 58), 'yyyy"年"m"月"d"日"'),
    45: "mm:ss",
    46: "[h]:mm:ss",
    47: "mm:ss",
}
_LITERALS = re.compile(r'"[^"]*"|\\.|_.|\*.')
_BRACKETS = re.compile(r"\[(?!h+\]|m+\]|s+\])[^\]]*\]", re.IGNORECASE)
_PERCENT = re.compile(r"(?:\.([0#?]+))?\s*%")
_ZEROS = re.compile(r"0{2,30}")
_MAX_SERIAL = 2_958_466  # the day after 9999-12-31
_EPOCH = datetime(1899, 12, 30)
_DAYS_TO_1904 = 1462


def number_text(value: float, number_format: str, *, is_1904: bool = False) -> str:
    """Return a number as text, by its cell's format as Office writes it ("0.0%", "yyyy-m-d").

    `is_1904` is the workbook's flag for dates that count from 1904.
    """
    if number_format in ("", "General"):
        return plain_number(value)
    bare = _BRACKETS.sub("", _LITERALS.sub("", number_format)).split(";")[0]
    codes = bare.casefold()
    if "general" not in codes and re.search("[ymdhs]", codes):
        date = _date_text(value + _DAYS_TO_1904 * is_1904, codes, has_han="年" in number_format)
        return plain_number(value) if date is None else date
    if match := _PERCENT.search(bare):
        return f"{value * 100:.{len(match[1] or '')}f}%"
    if _ZEROS.fullmatch(bare) and 0 <= value < 1e15 and value == int(value):
        return plain_number(value).zfill(len(bare))
    return plain_number(value)


def plain_number(value: float) -> str:
    """Return a number with the 15 digits that spreadsheets calculate with, no ".0" at the end."""
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else f"{value:.15g}"


def _date_text(serial: float, codes: str, *, has_han: bool) -> str | None:
    if not 0 <= serial < _MAX_SERIAL:
        return None
    has_date, has_time = bool(re.search("[yd]", codes)), bool(re.search("[hs]", codes))
    seconds = round(serial * 86400)
    if not has_date and has_time:
        days = seconds // 86400 if "[" in codes else 0  # "[h]" counts beyond a day
        clock = _clock(seconds % 86400, has_seconds="s" in codes)
        return f"{int(clock[:2]) + 24 * days:02d}{clock[2:]}"
    # Serial 60 is the day that 1900 did not have; dates before it are one later.
    moment = _EPOCH + timedelta(seconds=seconds + 86400 * (serial < 60))
    parts = [f"{moment.year}年", f"{moment.month}月"] if has_han else [f"{moment:%Y-%m}"]
    if "d" in codes or "y" not in codes:
        parts.append(f"{moment.day}日" if has_han else f"-{moment:%d}")
    text = "".join(parts)
    is_timed = has_time and (seconds % 86400 or "h" in codes)
    return f"{text} {_clock(seconds % 86400, has_seconds='s' in codes)}" if is_timed else text


def _clock(seconds: int, *, has_seconds: bool) -> str:
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}"
    return f"{clock}:{seconds % 60:02d}" if has_seconds else clock
