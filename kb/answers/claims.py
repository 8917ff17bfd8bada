"""What a sentence claims that can be checked word by word: quantities, dates, times, codes.

Each is brought to one form, so that the many ways of writing the same thing compare:
``2023年3月5日``, ``2023-03-05``, ``March 5, 2023``, 二〇二三年三月五日 and 民国112年3月5日 are
one date;
``1.2万``, ``12,000`` and ``twelve thousand`` one number; 15天, ``15 days`` and 十五日 one duration;
百分之二十五, ``25%`` and 四分之一 one share. A number with a unit does not prove the same number
with another one: 15天 is not 15元.

The sentence is read strictly (only what is surely a claim), the source generously (every reading),
so that a faithful paraphrase is not marked. Not done: sums and differences, Roman numerals, units
that convert by a rate (currencies, miles), "a few", "dozens".
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from kb.answers.units import (
    CURRENCY_SIGNS,
    ENGLISH_NUMBER,
    HAN_UNITS,
    MONTH,
    MONTHS,
    ORDINALS,
    SCALES,
    UNIT,
    UNITS,
    WORDS,
    counters_agree,
)
from kb.text.numbers import NUMERALS, chinese_to_int
from kb.text.terms import is_han, normalise, segment

# Longest text read: a chunk is far shorter, a document pasted as one sentence is not.
MAX_CHARS = 20_000
# Longer runs of digits are no numbers.
MAX_DIGITS = 40

# First year of an era, less one.
_ERAS = {"民国": 1911, "民國": 1911, "明治": 1867, "大正": 1911, "昭和": 1925, "平成": 1988,
         "令和": 2018, "公元前": 0, "西元前": 0}  # fmt: skip
_N = rf"(?:\d{{1,4}}|[{NUMERALS}元]{{1,5}})"
_DAY = rf"(?:\d{{1,2}}|[{NUMERALS}廿卅]{{1,3}})"
_DATE = re.compile(
    rf"(?P<era>民国|民國|明治|大正|昭和|平成|令和|公元前|西元前)?(?P<y>{_N})\s?年(?!代|[度级級])"
    rf"(?:\s?(?P<m>{_DAY})\s?月(?:份|\s?(?P<d>{_DAY})\s?[日号號])?)?"
    rf"|(?P<m2>{_DAY})\s?月(?:\s?(?P<d2>{_DAY})\s?[日号號]|份|(?![\u4e00-\u9fff]{{0,1}}[后後内內间間]))"
    rf"|(?<![\d.])(?P<y3>\d{{4}})[-/.](?P<m3>\d{{1,2}})[-/.](?P<d3>\d{{1,2}})(?!\d|\.\d)"
    rf"|\b(?P<m4>{MONTH})\b\.?\s(?P<d4>\d{{1,2}})(?:st|nd|rd|th)?(?!\d)(?:,?\s(?:of\s)?(?P<y4>\d{{4}})\b)?"
    rf"|\b(?P<d5>\d{{1,2}})(?:st|nd|rd|th)?\s(?:of\s)?(?P<m5>{MONTH})\b\.?(?:,?\s(?P<y5>\d{{4}})\b)?"
    rf"|\b(?P<m6>{MONTH})\b\.?,?\s(?:of\s)?(?P<y6>\d{{4}})\b"
    rf"|\b(?:in|since|by|from|until|during|of|before|after|year)\s(?P<y7>1\d{{3}}|20\d\d)\b"
    r"(?![.,:]\d|\s?[%°]|s\b|\s[a-z]{2,6}s\b|\s?b\.?c)"
    r"|(?<![\d.,])(?P<bc>\d{1,4})\s?(?:bce?\b|b\.c\b)"
)
_DECADE = re.compile(
    rf"(?:(?:\d{{1,2}}|[{NUMERALS}]{{1,3}}|上|本)世[纪紀])?(\d{{2}}|\d{{4}}|[{NUMERALS}]{{2,4}})\s?年代|\b(\d{{4}}|\d0)s\b"
)
_MORNING = frozenset(["上午", "凌晨", "清晨", "早上", "am", "a.m"])
_HALF = "上午|下午|傍晚|晚上|凌晨|清晨|早上|中午"
_CLOCK = re.compile(
    rf"(?P<half>{_HALF})?\s?(?P<h>\d{{1,2}})[:：](?P<min>\d{{2}})(?!\d)(?:\s?(?P<ap>am|pm|a\.m|p\.m))?"
    rf"|(?P<half2>{_HALF})?(?P<h2>\d{{1,2}}|[一二三四五六七八九十两]{{1,3}})[点點时時]"
    r"(?!间|間|候|[一二三四五六七八九零\d]{1,3}(?!\d|分))(?:(?P<m30>半)|(?P<min2>\d{1,2})分)?"
    r"|\b(?P<h3>\d{1,2})\s?(?P<ap3>am|pm|a\.m|p\.m)\b"
)
_FRACTION = re.compile(
    rf"(?P<den>[{NUMERALS}\d]{{1,6}})分之(?P<num>[{NUMERALS}\d点點.]{{1,9}})"
    r"|\b(?P<n>one|two|three|four|five)[\s-](?P<d>half|halves|third|quarter|fourth|fifth|sixth|eighth|tenth)s?\b"
    r"|(?<![\d/])(?P<a>\d{1,2})/(?P<b>\d{1,2})(?![\d/])"
)
_DENOMINATORS = {"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5,
                 "sixth": 6, "eighth": 8, "tenth": 10}  # fmt: skip
_CODE = re.compile(
    r"(?<![a-z0-9])(?:[a-z]{1,8}[-_]?\d[a-z0-9_]*(?:[-_.][a-z0-9]+)*|\d+(?:\.\d+){2,}"
    r"|\d+[-_][a-z][a-z0-9-]*\d[a-z0-9]*)(?![a-z0-9])"
)
_NUMBER = re.compile(
    r"(?P<sign>us\$|rmb|[$€£¥])?\s?(?<![\d.])(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
    r"(?P<scale>\s?(?:百|千)?[万萬亿億]+|\s?[百千](?![\u4e00-\u9fff]?瓦|米|克)|\s(?:hundred|thousand|million|billion|"
    r"trillion|dozen)\b|(?:k|m|bn)\b(?=\s?$|\s?[,;.]))?(?:" + UNIT + r")?"
)
_HAN_NUMBER = re.compile(rf"[{NUMERALS}]+(?:点[零〇一二三四五六七八九]+)?")
_HAN_UNIT = re.compile(r"\s?(?:多|余|餘|来|几)?(?P<han>" + "|".join(HAN_UNITS) + ")")
# No unit, and a noun that no list holds: either may be anything that can be counted.
_UNKNOWN = frozenset(["", "?"])
_NOUN = re.compile(
    r"\s(?!(?:of|in|and|or|to|at|on|by|the|for|from|with|is|was|as|but|than|per)\b)[a-z]{2,}|[\u4e00-\u9fff]"
)
_UNIT = re.compile(UNIT)
_ORDINAL_WORD = re.compile(r"\b[a-z]+th\b|\b(?:first|second|third)\b")
_HALF_A_UNIT = re.compile(r"半(年|天|小时|小時|个月|個月|个小时)|half an? (hour|day|year)")
_TH = re.compile(r"(?:st|nd|rd|th)\b")
_TO = re.compile(r"\s?(?:至|到|[-–—~]|to)\s?")
_SQUEEZED_OUT = re.compile(r"[\s\-_]+")
# A hyphen before a number is no minus after a word (BX-500) or after another number (5-10, 5℃-10℃).
_NO_MINUS = re.compile(r"(?:[a-z]|\d[^\d\s,，。;；、:：(（至到~]{0,2}\s?)$")
# The first number of 2至17公分 and "2 to 17 cm" has the unit of the second.
_RANGE = re.compile(r"\s?(?:至|到|[-–—~～]|to|or|and)\s?[-\u2212]?\d[\d,.]*" + UNIT)
# 一 before these is a quantity; 一个, 一种, 一天 are mostly not.
_TELLING = frozenset("二三四五六七八九")
_SURE_AFTER_ONE = frozenset(
    [
        "个月",
        "個月",
        "小时",
        "小時",
        "公里",
        "公斤",
        "元",
        "吨",
        "噸",
        "分钟",
        "分鐘",
        "千克",
        "千米",
    ]
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value in the base unit of its family; `plain` is in the unit as written.

    Family "" has no unit, "?" a noun that no list holds; `counter` is the word a "count" has.
    """

    family: str
    value: Fraction
    plain: Fraction
    counter: str = ""


@dataclass(frozen=True, slots=True)
class Day:
    """A date, or the parts of one that are given."""

    year: int | None
    month: int | None
    day: int | None


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of day; `minute` counts from midnight, or from noon where `half_is_open`.

    `is_24h` marks a time that was written with 24 hours, such as 16:00.
    """

    minute: int
    half_is_open: bool
    is_24h: bool


@dataclass(slots=True)
class Claims:
    """Everything of one text that can be checked."""

    quantities: set[Quantity] = field(default_factory=set)
    days: set[Day] = field(default_factory=set)
    decades: set[int] = field(default_factory=set)
    clocks: set[Clock] = field(default_factory=set)
    codes: set[str] = field(default_factory=set)
    numerals: set[str] = field(default_factory=set)
    text: str = ""

    def covers(self, claimed: "Claims") -> bool:
        """Tell whether this source states everything that `claimed` claims."""
        return (
            all(self._has_quantity(q) for q in claimed.quantities)
            and all(self._has_day(d) for d in claimed.days)
            and all(any(_same_decade(d, own) for own in self.decades) for d in claimed.decades)
            and all(any(_same_clock(c, own) for own in self.clocks) for c in claimed.clocks)
            and all(self._has_code(code) for code in claimed.codes)
            and all(self._has_numeral(numeral) for numeral in claimed.numerals)
        )

    def _has_code(self, code: str) -> bool:
        """Tell whether `code` is a whole word of the text: BX500 is no part of BX-5000."""
        if code in self.codes:
            return True
        if re.match(r"v?\d+\.", code):
            code = code.removeprefix("v")  # version 6.5 is v6.5
        squeezed = _squeezed(self.text)
        if code not in squeezed:
            return False
        offsets = [i for i, c in enumerate(self.text) if not _SQUEEZED_OUT.match(c)]
        at = squeezed.find(code)
        while at >= 0:
            before = self.text[max(0, offsets[at] - 3) : offsets[at]]
            end = offsets[at + len(code) - 1] + 1
            after = self.text[end : end + 2]
            if code[0].isdigit():
                before = re.sub(r"(?<![a-z0-9])v$", "", before)
            if not re.search(r"[a-z0-9]$|\d[.-]$", before) and not re.match(
                r"[a-z0-9]|[.\-_]\d", after
            ):
                return True
            at = squeezed.find(code, at + 1)
        return False

    def _has_quantity(self, claimed: Quantity) -> bool:
        if claimed in self.quantities or any(_agree(claimed, own) for own in self.quantities):
            return True
        if claimed.family or claimed.plain.denominator != 1:
            return False
        return any(int(claimed.plain) in (d.year, d.month, d.day) for d in self.days)

    def _has_numeral(self, numeral: str) -> bool:
        value = _int(numeral)
        return numeral in _squeezed(self.text) or any(own.plain == value for own in self.quantities)

    def _has_day(self, claimed: Day) -> bool:
        years = {own.year for own in self.days} | {
            int(q.plain) for q in self.quantities if not q.family and q.plain.denominator == 1
        }
        if claimed.month is None and claimed.day is None:
            return claimed.year in years
        for own in self.days:
            if own.month != claimed.month:
                continue
            if claimed.day is not None and own.day != claimed.day:
                continue
            if claimed.year is None or own.year == claimed.year:
                return True
            if own.year is None and claimed.year in years:
                return True
        return False


def _agree(claimed: Quantity, own: Quantity) -> bool:
    families = {claimed.family, own.family}
    counters = {claimed.counter, own.counter}
    if len(families) == 1 and "count" in families:
        return claimed.value == own.value and counters_agree(claimed.counter, own.counter)
    if len(families) == 1:
        return claimed.value == own.value
    if "share" in families:
        return not families.isdisjoint(_UNKNOWN) and claimed.value == own.value
    if "ordinal" in families:
        # 3楼 is the third floor, 3个 is nothing's third.
        is_place = bool(families & {"count", "century", ""}) and "个" not in counters
        return is_place and claimed.plain == own.plain
    if families == {"?", "count"} and is_han(claimed.counter or "?"):
        return claimed.plain == own.plain and counters_agree(claimed.counter, own.counter)
    return not families.isdisjoint(_UNKNOWN) and claimed.plain == own.plain


def _same_clock(one: Clock, other: Clock) -> bool:
    if one.half_is_open == other.half_is_open:
        return one.minute == other.minute
    # 4:00 may be 下午4点, but where one writes 16:00, 4:00 is in the morning.
    return not (one.is_24h or other.is_24h) and (one.minute - other.minute) % 720 == 0


def _same_decade(one: int, other: int) -> bool:
    return one == other or (one % 100 == other % 100 and min(one, other) < 100)


def claims_in(text: str, *, generous: bool = False) -> Claims:
    """Read what `text` claims; `generous` reads a source, with every reading it allows."""
    folded = normalise(text[:MAX_CHARS])
    found = Claims(text=folded)
    rest = _take_days(folded, found, generous)
    rest = _take_other(rest, found, generous)
    _take_numbers(rest, folded, found, generous)
    if generous:
        _read_again(folded, found)
    return found


def _take_days(text: str, found: Claims, generous: bool) -> str:
    last_month: int | None = None

    def replace(match: re.Match[str]) -> str:
        nonlocal last_month
        parts = match.groupdict()
        year = _first_int(parts, "y", "y3", "y4", "y5", "y6", "y7")
        month = _month(parts)
        day = _first_int(parts, "d", "d2", "d3", "d4", "d5")
        era = parts.get("era")
        if parts.get("y") and year is None:
            return match.group()
        if parts.get("bc"):
            year = -int(parts["bc"] or 0)
        elif era:
            year = -(year or 0) if era.endswith("前") else _ERAS[era] + (year or 0)
        elif parts.get("y") and month is None and year is not None and year < 100:
            return match.group()  # 三年: how long, mostly
        if (month is not None and not 1 <= month <= 12) or (day is not None and not 1 <= day <= 31):
            return match.group()
        if year is None and day is None and not generous and parts.get("m2") is None:
            return match.group()
        found.days.add(Day(year, month, day))
        last_month = month or last_month
        return " " * len(match.group())

    rest = _DATE.sub(replace, text)
    if generous:
        for match in re.finditer(rf"(?P<d>{_DAY})\s?[日号號]", rest):
            day = _int(match.group("d"))
            if day and last_month and day <= 31:
                found.days.add(Day(None, last_month, day))
    return rest


def _take_other(text: str, found: Claims, generous: bool) -> str:
    def decade(match: re.Match[str]) -> str:
        value = _int(match.group(1) or match.group(2))
        if value is not None:
            found.decades.add(value)
        return " " * len(match.group())

    last_half, last_end = "", 0

    def clock(match: re.Match[str]) -> str:
        nonlocal last_half, last_end
        parts = match.groupdict()
        hour = _first_int(parts, "h", "h2", "h3")
        minute = 30 if parts["m30"] else _first_int(parts, "min", "min2") or 0
        if hour is None or hour > 24 or minute > 59:
            return match.group()
        half = next((parts[name] for name in ("half", "half2", "ap", "ap3") if parts[name]), "")
        if not half and _TO.fullmatch(match.string, last_end, match.start()):
            half = last_half  # 下午2点至4点
        last_half, last_end = half or "", match.end()
        found.clocks.add(_clock(hour, minute, half or ""))
        return " " * len(match.group())

    def fraction(match: re.Match[str]) -> str:
        parts = match.groupdict()
        if parts["den"]:
            low, high = _value(parts["den"]), _value(parts["num"])
        elif parts["n"]:
            low, high = Fraction(_DENOMINATORS[parts["d"]]), Fraction(WORDS[parts["n"]])
        else:
            low, high = Fraction(int(parts["b"])), Fraction(int(parts["a"]))
        if not low or high is None:
            return match.group()
        found.quantities.add(Quantity("share", high / low, high / low))
        return " " * len(match.group())

    def slashed(match: re.Match[str]) -> str:
        return match.group() if match.group("a") else " " * len(match.group())

    def code(match: re.Match[str]) -> str:
        if re.fullmatch(r"\d+(?:st|nd|rd|th)", match.group()):
            return match.group()
        found.codes.add(_squeezed(match.group()))
        return " " * len(match.group())

    text = _DECADE.sub(decade, text)
    rest = _CODE.sub(code, _CLOCK.sub(clock, _FRACTION.sub(fraction, text)))
    if not generous:
        return rest
    last_half, last_end = "", 0
    return _CLOCK.sub(clock, _FRACTION.sub(slashed, text))


def _clock(hour: int, minute: int, half: str) -> Clock:
    if hour > 12 or hour == 0:
        return Clock((60 * hour + minute) % 1440, False, True)
    if not half or (half == "晚上" and hour < 5):
        return Clock(60 * (hour % 12) + minute, True, False)
    is_late = half not in _MORNING
    if (half == "晚上" and hour == 12) or (half == "中午" and hour in {10, 11}):
        is_late = False  # midnight; shortly before noon
    return Clock(60 * (hour % 12 + 12 * is_late) + minute, False, False)


def _take_numbers(text: str, folded: str, found: Claims, generous: bool) -> None:
    _take_arabic(text, folded, found, generous)
    text = _NUMBER.sub(lambda match: " " * len(match.group()), text)
    for match in _HAN_NUMBER.finditer(text):
        _take_han(text, match, found, generous)
    _take_english(text, found, generous)
    _take_halves(text, found)


def _take_arabic(text: str, folded: str, found: Claims, generous: bool) -> None:
    for match in _NUMBER.finditer(text):
        if len(match.group("digits")) > MAX_DIGITS:
            continue
        plain = Fraction(match.group("digits").replace(",", ""))
        if _is_negative(folded, match.start("digits")):
            plain = -plain
        value = plain
        for scale in _scales(match.group("scale")):
            value *= scale
        unit = match.group("han") or match.group("latin") or ""
        if not unit and (ranged := _RANGE.match(text, match.end())):
            unit = ranged.group("han") or ranged.group("latin") or ""
        sign = match.group("sign")
        noun = _NOUN.match(text, match.end())
        nothing = "?" if noun else ""
        if noun and not unit and is_han(noun.group()):
            unit = noun.group()  # 4系: a counter that no list holds
        family, factor = UNITS.get(unit, (nothing, Fraction(1)))
        if generous and nothing:
            found.quantities |= _further_on(text, match.end(), value)
        if text[match.start("digits") : match.end()].endswith("%"):
            family, factor = "share", Fraction(1, 100)
        if sign and family in {"", "?", "count"}:
            family, factor = CURRENCY_SIGNS[sign], Fraction(1)
        if text[: match.start("digits")].endswith("第") or _TH.match(text, match.end()):
            family, factor = "ordinal", Fraction(1)
        found.quantities.add(Quantity(family, value * factor, value, _counter(family, unit)))


def _take_english(text: str, found: Claims, generous: bool) -> None:
    """Read "twenty-five days" and "fifth"."""
    for match in ENGLISH_NUMBER.finditer(text):
        spelt = _english(match.group())
        if spelt is None or (spelt == 1 and not generous):
            continue
        unit = _UNIT.match(text, match.end())
        name = (unit.group("latin") or unit.group("han")) if unit else ""
        family, factor = UNITS.get(name, ("", Fraction(1)))
        counter = _counter(family, name)
        found.quantities.add(Quantity(family, spelt * factor, Fraction(spelt), counter))
    for word in _ORDINAL_WORD.findall(text):
        # "first" and "second" are more often no numbers.
        if word in ORDINALS and (generous or word not in {"first", "second"}):
            value = Fraction(ORDINALS[word])
            found.quantities.add(Quantity("ordinal", value, value))


def _take_halves(text: str, found: Claims) -> None:
    """Read 半年, 半个小时 and "half an hour"."""
    for match in _HALF_A_UNIT.finditer(text):
        name = (match.group(1) or match.group(2)).replace("个小时", "小时")
        family, factor = UNITS[name]
        found.quantities.add(Quantity(family, factor / 2, Fraction(1, 2)))


def _is_negative(text: str, at: int) -> bool:
    """Tell whether the number at `at` has a minus, which is no hyphen of a range, date or name."""
    before = text[max(0, at - 12) : at]
    if re.search(r"(?:零下|负|\bminus)\s?$", before):
        return True
    return before[-1:] in {"-", "\u2212"} and not _NO_MINUS.search(before[:-1])


def _further_on(text: str, end: int, value: Fraction) -> set[Quantity]:
    """Return the readings of a number whose unit stands behind an adjective: "3 working days"."""
    words = re.compile(r"(?:[\s-][a-z]+){1,3}").match(text, end)
    found: set[Quantity] = set()
    for word in re.findall("[a-z]+", words.group()) if words else ():
        if word in UNITS and len(word) > 2:
            family, factor = UNITS[word]
            found.add(Quantity(family, value * factor, value))
    return found


def _take_han(text: str, match: re.Match[str], found: Claims, generous: bool) -> None:
    """Read a Chinese numeral: one character alone counts only before a unit."""
    numeral = match.group()
    value = _value(numeral)
    if not value:  # no numeral, a lone 万, or a zero
        return
    if text[max(0, match.start() - 2) : match.start()].endswith(("零下", "负")):
        value = -value
    unit = _HAN_UNIT.match(text, match.end())
    name = unit.group("han") if unit else ""
    family, factor = UNITS.get(name, ("", Fraction(1)))
    sure = len(numeral) > 1 or (name and (numeral != "一" or name in _SURE_AFTER_ONE))
    if numeral in {"千万", "千萬", "万一", "百万", "十分", "万千"} and not name:
        sure = False
    ordinal = text[match.start() - 1 : match.start()] == "第"
    if not sure and not generous and numeral in _TELLING and _is_word(text, match.start()):
        found.numerals.add(numeral)
    if ordinal:
        family, factor = "ordinal", Fraction(1)
    if sure or ordinal or (generous and (name or len(numeral) > 1)):
        counter = _counter(family, name)
        found.quantities.add(Quantity(family, value * factor, value, counter))


def _counter(family: str, unit: str) -> str:
    return unit if family in {"count", "?"} else ""


def _is_word(text: str, at: int) -> bool:
    """Tell whether one numeral is a word by itself, not a part of 四川 or 三心二意."""
    start = at
    while start > max(0, at - 4) and is_han(text[start - 1]):
        start -= 1
    run = text[start : at + 5]
    position = start
    for word in segment("".join(c for c in run if is_han(c))):
        if position == at:
            return len(word) == 1
        position += len(word)
    return False


def _read_again(text: str, found: Claims) -> None:
    """Add to a source what its words allow beside what they say first."""
    if re.search(r"[(（]\s?%|百分比|占比|\bpercentage", text):
        # A table whose header has the sign has it not at its numbers.
        for own in [own for own in found.quantities if not own.family]:
            found.quantities.add(Quantity("share", own.plain / 100, own.plain / 100))
    if re.search(r"一半|半数|半數|\bhalf\b", text):
        found.quantities.add(Quantity("share", Fraction(1, 2), Fraction(1, 2)))
    if re.search(r"\b(?:double|twice)\b|翻倍|翻番|加倍", text):
        found.quantities.add(Quantity("count", Fraction(2), Fraction(2)))
    for year in re.findall(r"(?<!\d)(1\d{3}|20\d\d)(?!\d)", text):
        if not any(d.year == int(year) for d in found.days) and not re.search(
            rf"{year}\s?(?:[万亿元%]|美元)", text
        ):
            found.days.add(Day(int(year), None, None))


def _scales(scale: str | None) -> Iterator[int]:
    if scale:
        word = scale.strip()
        if word in SCALES:
            yield SCALES[word]
        elif word in {"k", "m", "bn"}:
            yield {"k": 1000, "m": 10**6, "bn": 10**9}[word]
        else:
            yield from (SCALES[c] for c in word)


def _english(words: str) -> int | None:
    total = current = 0
    seen = False
    for word in re.findall(r"[a-z]+", words):
        if word in WORDS:
            current += WORDS[word]
            seen = True
        elif word in {"hundred", "dozen"}:
            current = (current or 1) * SCALES[word]
            seen = True
        elif word in SCALES:
            total += (current or 1) * SCALES[word]
            current = 0
            seen = True
    return total + current if seen else None


def _value(numeral: str) -> Fraction | None:
    """Read digits or a Chinese numeral, with 点 as the decimal point."""
    whole, _, decimals = numeral.replace("點", "点").replace(".", "点").partition("点")
    value = _int(whole)
    if value is None:
        return None
    if not decimals:
        return Fraction(value)
    tail = "".join(str(_int(c)) if _int(c) is not None else "" for c in decimals)
    return Fraction(f"{value}.{tail}") if tail else Fraction(value)


def _int(numeral: str) -> int | None:
    if numeral.isascii() and numeral.isdigit():
        return int(numeral)
    if numeral == "元":
        return 1  # the first year of an era
    folded = numeral.replace("廿", "二十").replace("卅", "三十")
    return chinese_to_int(folded)


def _first_int(parts: dict[str, str | None], *names: str) -> int | None:
    return next((_int(text) for name in names if (text := parts.get(name))), None)


def _month(parts: dict[str, str | None]) -> int | None:
    for name in ("m4", "m5", "m6"):
        text = parts.get(name)
        if text:
            return MONTHS[text]
    return _first_int(parts, "m", "m2", "m3")


def _squeezed(text: str) -> str:
    """Return `text` without white space, hyphens and underscores, as codes are compared."""
    return _SQUEEZED_OUT.sub("", text)
