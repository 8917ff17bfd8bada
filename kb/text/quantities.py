"""Numbers with their unit, and dates, in one form: ``二〇二三年`` and ``2023年`` are ``2023年``.

Both ways of writing give the same terms, so that each finds the other: ``三月五日``, ``3月5号`` and
``2023-03-05`` share ``3月`` and ``5日``; ``百分之五``, ``5%`` and ``５ ％`` are ``5％``. The sign
of per cent is the full-width one, since full text takes no ASCII signs.

Not done: English months and number words, fractions, other calendars.
"""

import re
from collections.abc import Iterator

from kb.text.numbers import NUMERALS, canonical, chinese_to_int

# Bounded: no longer one is read as a number by anybody, and Python refuses to.
_CHINESE = rf"[{NUMERALS}]{{1,20}}"
_NUMBER = (
    rf"(?:[0-9]{{1,20}}(?:,[0-9]{{3}}){{0,6}}(?:\.[0-9]{{1,20}})?|(?<![{NUMERALS}]){_CHINESE})"
)
# One character that makes a numeral before it a number, even one numeral alone.
_UNITS = "年月日号时点分秒届章条款项级楼层代岁次名位个人元倍世天周"
_QUANTITY = re.compile(
    rf"百分之(?P<percent>[0-9]{{1,20}}(?:\.[0-9]{{1,20}})?|{_CHINESE}(?:点{_CHINESE})?)"
    rf"|(?<![0-9.])(?P<number>{_NUMBER})\s?(?P<unit>[%{_UNITS}])"
    r"|(?<![0-9])(?P<year>[12][0-9]{3})(?P<sep>[-/.])(?P<month>[01]?[0-9])(?P=sep)"
    r"(?P<day>[0-3]?[0-9])(?![0-9])"
)
_SAME_UNIT = {"%": "％", "号": "日"}


def quantities(folded: str) -> Iterator[str]:
    """Yield the quantities of a text that is in NFKC and simplified already."""
    for match in _QUANTITY.finditer(folded):
        if match["percent"]:
            whole, _, decimals = match["percent"].partition("点")
            value = _value(whole)
            digits = _value(decimals) if decimals else ""
            yield f"{canonical(f'{value}.{digits}' if digits else value)}％"
        elif match["number"]:
            yield _value(match["number"]) + _SAME_UNIT.get(match["unit"], match["unit"])
        else:
            yield f"{match['year']}年"
            yield f"{int(match['month'])}月"
            yield f"{int(match['day'])}日"


def _value(number: str) -> str:
    if number[0].isdigit() and number[0].isascii():
        return canonical(number)
    value = chinese_to_int(number)
    return number if value is None else str(value)
