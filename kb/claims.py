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

from kb.numbers import chinese_to_int
from kb.terms import normalise

# Longest text read: a chunk is far shorter, a document pasted as one sentence is not.
MAX_CHARS = 20_000

_HAN_DIGITS = "零〇一二三四五六七八九十百千万萬亿億两兩"
_SCALES = {"百": 100, "千": 1000, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8,
           "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9,
           "trillion": 10**12, "dozen": 12}  # fmt: skip

# Family and factor of each unit; units of one family convert. Counters are all one family.
_UNITS: dict[str, tuple[str, Fraction]] = {}
for _family, _factor, _names in (
    ("time", Fraction(1), "秒 秒钟 秒鐘 second seconds sec"),
    ("time", Fraction(60), "分钟 分鐘 minute minutes min mins"),
    ("time", Fraction(3600), "小时 小時 钟头 鐘頭 hour hours hr hrs"),
    ("time", Fraction(86400), "天 日 工作日 自然日 昼夜 day days"),
    ("time", Fraction(604800), "周 週 星期 礼拜 禮拜 week weeks"),
    ("months", Fraction(1), "月 个月 個月 month months"),
    ("months", Fraction(3), "季度 quarter quarters"),
    ("months", Fraction(12), "年 周年 週年 year years yr yrs"),
    ("months", Fraction(12), "岁 歲 周岁"),
    ("yuan", Fraction(1), "元 块 塊 圆 圓 人民币 yuan rmb cny"),
    ("yuan", Fraction(1, 10), "角"),
    ("dollar", Fraction(1), "美元 美金 dollar dollars usd"),
    ("euro", Fraction(1), "欧元 歐元 euro euros eur"),
    ("pound", Fraction(1), "英镑 英鎊 gbp"),
    ("yen", Fraction(1), "日元 日圆 日圓 yen jpy"),
    ("share", Fraction(1, 100), "% 个百分点 個百分點 percent per\xa0cent"),
    ("mass", Fraction(1), "克 g gram grams"),
    ("mass", Fraction(1000), "公斤 千克 kg kilogram kilograms kilo kilos"),
    ("mass", Fraction(500), "斤 市斤"),
    ("mass", Fraction(10**6), "吨 噸 tonne tonnes"),
    ("length", Fraction(1), "毫米 mm millimetre millimetres millimeter millimeters"),
    ("length", Fraction(10), "厘米 公分 cm centimetre centimetres centimeter centimeters"),
    ("length", Fraction(1000), "米 公尺 m metre metres meter meters"),
    ("length", Fraction(10**6), "公里 千米 km kilometre kilometres kilometer kilometers"),
    ("area", Fraction(1), "平方米 平方公尺 m2"),
    ("area", Fraction(10**4), "公顷 公頃 hectare hectares"),
    ("area", Fraction(10**6), "平方公里 平方千米 km2"),
    ("volume", Fraction(1), "毫升 ml millilitre millilitres milliliter milliliters"),
    ("volume", Fraction(1000), "升 公升 l litre litres liter liters"),
    ("degree", Fraction(1), "度 °c ℃ 摄氏度 攝氏度 degree degrees"),
    ("century", Fraction(1), "世纪 世紀 century centuries"),
    ("count", Fraction(1), "个 個 人 名 位 本 册 冊 件 条 條 项 項 台 臺 辆 輛 架 艘 所 家 间 "
     "間 章 篇 首 票 届 屆 期 站 支 只 隻 匹 头 頭 颗 顆 棵 级 級 层 層 座 种 種 部 集 张 張 "
     "次 回 场 場 枚 套 "
     "people persons employees students members books copies items pieces times"),
):  # fmt: skip
    for _name in _names.split():
        _UNITS[_name.replace("\xa0", " ")] = (_family, _factor)

_LATIN_UNITS = sorted((u for u in _UNITS if u.isascii()), key=len, reverse=True)
_HAN_UNITS = sorted((u for u in _UNITS if not u.isascii()), key=len, reverse=True)
_UNIT = (
    r"(?:\s?(?:多|余|餘|来|個|个)?(?P<han>" + "|".join(_HAN_UNITS) + r")"
    r"|(?:\s|-)?(?P<latin>" + "|".join(map(re.escape, _LATIN_UNITS)) + r")(?![a-z0-9]))"
)  # fmt: skip
_SIGN = {"$": "dollar", "us$": "dollar", "€": "euro", "£": "pound", "¥": "yuan", "rmb": "yuan"}

_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["_", "_", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORDS = {word: i for i, word in enumerate(_ONES)} | {
    word: 10 * i for i, word in enumerate(_TENS) if word != "_"
}
_WORD = "|".join(sorted(_WORDS, key=len, reverse=True))
_ENGLISH_NUMBER = re.compile(
    rf"\b(?:an?\s(?=hundred|thousand|million|billion|dozen))?"
    rf"(?:(?:{_WORD}|hundred|thousand|million|billion|dozen)\b(?:[\s-](?:and\s)?(?=(?:{_WORD}|hundred|"
    rf"thousand|million|billion)\b))?)+"
)
_ORDINALS = {
    word: i
    for i, word in enumerate(
        [
            "first",
            "second",
            "third",
            "fourth",
            "fifth",
            "sixth",
            "seventh",
            "eighth",
            "ninth",
            "tenth",
            "eleventh",
            "twelfth",
            "thirteenth",
            "fourteenth",
            "fifteenth",
            "sixteenth",
            "seventeenth",
            "eighteenth",
            "nineteenth",
            "twentieth",
        ],
        start=1,
    )
}
_MONTHS = {
    name: i
    for i, names in enumerate(
        [
            "january jan",
            "february feb",
            "march mar",
            "april apr",
            "may",
            "june jun",
            "july jul",
            "august aug",
            "september sep sept",
            "october oct",
            "november nov",
            "december dec",
        ],
        start=1,
    )
    for name in names.split()
}
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
# First year of an era, less one.
_ERAS = {"民国": 1911, "民國": 1911, "明治": 1867, "大正": 1911, "昭和": 1925, "平成": 1988,
         "令和": 2018, "公元前": 0, "西元前": 0, "前": 0}  # fmt: skip
_N = rf"(?:\d{{1,4}}|[{_HAN_DIGITS}元]{{1,5}})"
_DAY = rf"(?:\d{{1,2}}|[{_HAN_DIGITS}廿卅]{{1,3}})"
_DATE = re.compile(
    rf"(?P<era>民国|民國|明治|大正|昭和|平成|令和|公元前|西元前)?(?P<y>{_N})\s?年(?!代|[度级級])"
    rf"(?:\s?(?P<m>{_DAY})\s?月(?:份|\s?(?P<d>{_DAY})\s?[日号號])?)?"
    rf"|(?P<m2>{_DAY})\s?月(?:\s?(?P<d2>{_DAY})\s?[日号號]|份|(?![\u4e00-\u9fff]{{0,1}}[后後内內间間]))"
    rf"|(?<![\d.])(?P<y3>\d{{4}})[-/.](?P<m3>\d{{1,2}})[-/.](?P<d3>\d{{1,2}})(?![\d.])"
    rf"|\b(?P<m4>{_MONTH})\b\.?\s(?P<d4>\d{{1,2}})(?:st|nd|rd|th)?(?!\d)(?:,?\s(?:of\s)?(?P<y4>\d{{4}})\b)?"
    rf"|\b(?P<d5>\d{{1,2}})(?:st|nd|rd|th)?\s(?:of\s)?(?P<m5>{_MONTH})\b\.?(?:,?\s(?P<y5>\d{{4}})\b)?"
    rf"|\b(?P<m6>{_MONTH})\b\.?,?\s(?:of\s)?(?P<y6>\d{{4}})\b"
    rf"|\b(?:in|since|by|from|until|during|of|before|after|year)\s(?P<y7>1\d{{3}}|20\d\d)\b"
    r"(?![.,:]\d|\s?[%°]|s\b|\s[a-z]{2,6}s\b)"
)
_DECADE = re.compile(rf"(\d{{2}}|\d{{4}}|[{_HAN_DIGITS}]{{2,4}})\s?年代|\b(\d{{4}}|\d0)s\b")
_CLOCK = re.compile(
    r"(?P<half>上午|下午|晚上|凌晨|早上|中午)?\s?(?P<h>\d{1,2})[:：](?P<min>\d{2})(?!\d)(?:\s?(?P<ap>am|pm|a\.m|p\.m))?"
    r"|(?P<half2>上午|下午|晚上|凌晨|早上|中午)?(?P<h2>\d{1,2}|[一二三四五六七八九十两]{1,3})[点點时時]"
    r"(?!间|間|候|[一二三四五六七八九零\d]{1,3}(?!\d|分))(?:(?P<m30>半)|(?P<min2>\d{1,2})分)?"
    r"|\b(?P<h3>\d{1,2})\s?(?P<ap3>am|pm|a\.m|p\.m)\b"
)
_FRACTION = re.compile(
    rf"(?P<den>[{_HAN_DIGITS}\d]{{1,6}})分之(?P<num>[{_HAN_DIGITS}\d点點.]{{1,9}})"
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
    r"trillion|dozen)\b|(?:k|m|bn)\b(?=\s?$|\s?[,;.]))?(?:" + _UNIT + r")?"
)
_HAN_NUMBER = re.compile(rf"[{_HAN_DIGITS}]+(?:点[零〇一二三四五六七八九]+)?")
_HAN_UNIT = re.compile(r"\s?(?:多|余|餘|来|几)?(?P<han>" + "|".join(_HAN_UNITS) + ")")
# 一 before these is a quantity; 一个, 一种, 一天 are mostly not.
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
    """A value in the base unit of its family; `plain` is the number as written, unscaled."""

    family: str
    value: Fraction
    plain: Fraction


@dataclass(frozen=True, slots=True)
class Day:
    """A date, or the parts of one that are given."""

    year: int | None
    month: int | None
    day: int | None


@dataclass(slots=True)
class Claims:
    """Everything of one text that can be checked."""

    quantities: set[Quantity] = field(default_factory=set)
    days: set[Day] = field(default_factory=set)
    decades: set[int] = field(default_factory=set)
    clocks: set[int] = field(default_factory=set)
    codes: set[str] = field(default_factory=set)
    text: str = ""

    def covers(self, claimed: "Claims") -> bool:
        """Tell whether this source states everything that `claimed` claims."""
        return (
            all(self._has_quantity(q) for q in claimed.quantities)
            and all(self._has_day(d) for d in claimed.days)
            and all(any(d % 100 == own % 100 for own in self.decades) for d in claimed.decades)
            and all(any((c - own) % 720 == 0 for own in self.clocks) for c in claimed.clocks)
            and all(code in self.text for code in claimed.codes)
        )

    def _has_quantity(self, claimed: Quantity) -> bool:
        if claimed in self.quantities:
            return True
        for own in self.quantities:
            if own.family == claimed.family and own.value == claimed.value:
                return True
            families = {own.family, claimed.family}
            if "" in families and "share" not in families and claimed.plain == own.plain:
                return True
            if families == {"", "share"} and own.value == claimed.value:
                return True
        if claimed.family or claimed.plain.denominator != 1:
            return False
        return any(int(claimed.plain) in (d.year, d.month, d.day) for d in self.days)

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


def claims_in(text: str, *, generous: bool = False) -> Claims:
    """Read what `text` claims; `generous` reads a source, with every reading it allows."""
    folded = normalise(text[:MAX_CHARS])
    found = Claims(text=_squeezed(folded))
    rest = _take_days(folded, found, generous)
    rest = _take_other(rest, found, generous)
    _take_numbers(rest, found, generous)
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
        if era:
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

    def clock(match: re.Match[str]) -> str:
        parts = match.groupdict()
        hour = _first_int(parts, "h", "h2", "h3")
        minute = 30 if parts["m30"] else _first_int(parts, "min", "min2") or 0
        if hour is None or hour > 24 or minute > 59:
            return match.group()
        found.clocks.add(60 * hour + minute)
        return " " * len(match.group())

    def fraction(match: re.Match[str]) -> str:
        parts = match.groupdict()
        if parts["den"]:
            low, high = _value(parts["den"]), _value(parts["num"])
        elif parts["n"]:
            low, high = Fraction(_DENOMINATORS[parts["d"]]), Fraction(_WORDS[parts["n"]])
        else:
            low, high = Fraction(int(parts["b"])), Fraction(int(parts["a"]))
        if not low or high is None:
            return match.group()
        found.quantities.add(Quantity("share", high / low, high / low))
        if generous and parts["a"]:
            return match.group()
        return " " * len(match.group())

    def code(match: re.Match[str]) -> str:
        if re.fullmatch(r"\d+(?:st|nd|rd|th)", match.group()):
            return match.group()
        found.codes.add(_squeezed(match.group()))
        return " " * len(match.group())

    text = _DECADE.sub(decade, text)
    text = _FRACTION.sub(fraction, text)
    text = _CLOCK.sub(clock, text)
    return text if generous else _CODE.sub(code, text)


def _take_numbers(text: str, found: Claims, generous: bool) -> None:
    for match in _NUMBER.finditer(text):
        plain = Fraction(match.group("digits").replace(",", ""))
        value = plain
        for scale in _scales(match.group("scale")):
            value *= scale
        unit = match.group("han") or match.group("latin") or ""
        sign = match.group("sign")
        family, factor = _UNITS.get(unit, ("", Fraction(1)))
        if text[match.start("digits") : match.end()].endswith("%"):
            family, factor = "share", Fraction(1, 100)
        if sign and family in {"", "count"}:
            family, factor = _SIGN[sign], Fraction(1)
        found.quantities.add(Quantity(family, value * factor, value))
    text = _NUMBER.sub(lambda match: " " * len(match.group()), text)
    for match in _HAN_NUMBER.finditer(text):
        _take_han(text, match, found, generous)
    for match in _ENGLISH_NUMBER.finditer(text):
        spelt = _english(match.group())
        if spelt is None or (spelt == 1 and not generous):
            continue
        unit = re.compile(_UNIT).match(text, match.end())
        name = (unit.group("latin") or unit.group("han")) if unit else ""
        family, factor = _UNITS.get(name, ("", Fraction(1)))
        found.quantities.add(Quantity(family, spelt * factor, Fraction(spelt)))
    for match in re.finditer(
        r"半(年|天|小时|小時|个月|個月|个小时)|half an? (hour|day|year)", text
    ):
        unit_name = (match.group(1) or match.group(2)).replace("个小时", "小时")
        family, factor = _UNITS[unit_name]
        found.quantities.add(Quantity(family, factor / 2, Fraction(1, 2)))


def _take_han(text: str, match: re.Match[str], found: Claims, generous: bool) -> None:
    """Read a Chinese numeral: one character alone counts only before a unit."""
    numeral = match.group()
    value = _value(numeral)
    if not value:  # no numeral, a lone 万, or a zero
        return
    unit = _HAN_UNIT.match(text, match.end())
    name = unit.group("han") if unit else ""
    family, factor = _UNITS.get(name, ("", Fraction(1)))
    sure = len(numeral) > 1 or (name and (numeral != "一" or name in _SURE_AFTER_ONE))
    if numeral in {"千万", "千萬", "万一", "百万", "十分", "万千"} and not name:
        sure = False
    if sure or generous:
        found.quantities.add(Quantity(family, value * factor, value))


def _read_again(text: str, found: Claims) -> None:
    """Add to a source what its words allow beside what they say first."""
    for word in re.findall(r"\b[a-z]+\b", text):
        if word in _ORDINALS:
            value = Fraction(_ORDINALS[word])
            found.quantities.add(Quantity("", value, value))
    for digits in re.findall(r"\d+(?:\.\d+)?", text.replace(",", "")):
        value = Fraction(digits)
        if "%" in text or "百分" in text or "percent" in text:
            found.quantities.add(Quantity("share", value / 100, value / 100))
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
        if word in _SCALES:
            yield _SCALES[word]
        elif word in {"k", "m", "bn"}:
            yield {"k": 1000, "m": 10**6, "bn": 10**9}[word]
        else:
            yield from (_SCALES[c] for c in word)


def _english(words: str) -> int | None:
    total = current = 0
    seen = False
    for word in re.findall(r"[a-z]+", words):
        if word in _WORDS:
            current += _WORDS[word]
            seen = True
        elif word in {"hundred", "dozen"}:
            current = (current or 1) * _SCALES[word]
            seen = True
        elif word in _SCALES:
            total += (current or 1) * _SCALES[word]
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
            return _MONTHS[text]
    return _first_int(parts, "m", "m2", "m3")


def _squeezed(text: str) -> str:
    """Return `text` without white space, hyphens and underscores, as codes are compared."""
    return re.sub(r"[\s\-_]+", "", text)
