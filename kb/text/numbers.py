"""Numbers as people write them, brought to one form so that they can be compared.

``1,900``, ``1900.0`` and 一千九百 are one number. What stands around it is read elsewhere:
`kb.text.quantities` for the terms of full text, `kb.answers.claims` for what an answer claims.
"""

import re

_DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "兩": 2}
_UNITS = {"十": 10, "百": 100, "千": 1000}
_GROUPS = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
# Every character that a Chinese numeral is written with.
NUMERALS = "零〇一二三四五六七八九十百千万萬亿億两兩"

# Two or more numerals: one alone ("一般", "万一") is too often part of a word.
CHINESE_NUMBER = re.compile(rf"[{NUMERALS}]{{2,}}")

# Longer ones are no numbers, and Python refuses to write those of thousands of digits.
_MAX_NUMERALS = 40


def canonical(number: str) -> str:
    """Return an Arabic number without separators, leading zeros and trailing decimal zeros."""
    whole, _, decimals = number.replace(",", "").partition(".")
    decimals = decimals.rstrip("0")
    return (whole.lstrip("0") or "0") + ("." + decimals if decimals else "")


def chinese_to_int(numeral: str) -> int | None:
    """Read a Chinese numeral: by value (一千零八十) or digit by digit (二〇一九); else None."""
    if len(numeral) > _MAX_NUMERALS:
        return None
    if all(c in _DIGITS for c in numeral):
        return int("".join(str(_DIGITS[c]) for c in numeral)) if numeral else None
    total = group = digit = 0
    last_group = 0
    for c in numeral:
        if c in _DIGITS:
            digit = _DIGITS[c]
        elif c in _UNITS:
            group += (digit or 1) * _UNITS[c]
            digit = 0
        elif c in _GROUPS:
            below = group + digit
            if below and _GROUPS[c] < last_group:
                total += below * _GROUPS[c]  # 三亿|五千万: the 万 counts what stands before it
            else:
                total = (total + below) * _GROUPS[c]  # 三千万|亿
            last_group = _GROUPS[c]
            group = digit = 0
        else:
            return None
    return total + group + digit
