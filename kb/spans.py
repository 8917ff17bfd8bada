"""Short answers by rule: the number, date or name that a question asks for, or nothing.

A question's words tell the type of its answer ("how many", 多少, 哪一年). The candidates of that
type in the sentence that answers are compared by their distance to the question's own words.
Questions of any other type get no short answer: a wrong one is worse than none.
"""

import re
from collections.abc import Sequence
from typing import Literal

from kb.terms import normalise

AnswerType = Literal["number", "percent", "money", "date", "year", "time", "code", "person"]

_NUMERAL = "零〇一二三四五六七八九十百千万亿两半"
# What a number may carry: one measure word or unit, Chinese or English.
_UNITS = (
    "个月|小时|分钟|工作日|平方公里|平方千米|平方米|立方米|公里|千米|厘米|毫米|公斤|千克|公顷|英里|英尺|海里|"
    "人次|美元|欧元|日元|港元|新台币|元|角|分|米|克|吨|升|毫升|亩|个|人|名|位|天|日|年|岁|次|倍|层|座|"
    "条|种|部|集|张|台|辆|架|艘|所|家|间|件|项|章|篇|首|票|届|期|站|支|只|匹|头|颗|棵|级|度|秒|周|月|代|"
    "回|场|本|册|冊|枚|位数|公尺|公分|餐|班|套|字|轮|局|胜|负|球|分贝|瓦|千瓦|兆|"
    "[KMGT]i?B|ms|[smhgVWL]|kg|mm|cm|km|kW|Hz|dB|M?Pa|°C|℃|ml|"
    "平方公尺|層|條|種|張|臺|輛|間|項|篇|屆|隻|顆|級|歲|個|天|週|萬|億"
)
# Not a part of a code ("LX1107"), of a time ("16:00"), or of an ordinal (第五条).
_ALONE = r"(?<![A-Za-z0-9.\-第:：])"
_NUMBER_ZH = re.compile(
    rf"百分之[{_NUMERAL}点]+"
    rf"|{_ALONE}(?:\d[\d,]*(?:\.\d+)?[万亿萬億千百]*|(?!一(?:{_UNITS}))[{_NUMERAL}]+)(?:多|余|餘|来)?"
    rf"\s?(?:{_UNITS})(?![A-Za-z])"
    rf"|{_ALONE}\d[\d,]*(?:\.\d+)?(?![:：\d]|[A-Za-z]\d)\s?[%％]?"
)
_NUMBER_EN = re.compile(
    r"(?:(?:US|AU|HK)?[$€£¥]\s?)?\d[\d,]*(?:\.\d+)?"
    r"(?:\s(?:million|billion|trillion|thousand|hundred|dozen))?"
    r"(?:\s?(?:%|°C|°F|kg|g|mm|cm|m|km|kW|dB)\b|\s(?:second|minute|hour|day|week|month|year|"
    r"metre|meter|kilometre|kilometer|mile|litre|liter|percent|degree)s?\b)?"
    r"|\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|"
    r"fifteen|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|"
    r"eighty|ninety|hundred|dozen)(?:[- ](?:one|two|three|four|five|six|seven|eight|nine))?"
    r"(?: (?:hundred|thousand|million|billion))*\b",
    re.IGNORECASE,
)
_PERCENT = re.compile(
    rf"\d[\d,]*(?:\.\d+)?\s?(?:%|％|percent\b|per cent\b)|百分之[{_NUMERAL}点\d.]+"
)
_MONEY = re.compile(
    r"(?:US|HK)?[$€£¥]\s?\d[\d,]*(?:\.\d+)?(?:\s(?:million|billion|trillion|thousand))?"
    r"|\d[\d,]*(?:\.\d+)?\s?(?:dollars|euros|pounds|yuan|USD|EUR|RMB)"
    r"|\d[\d,]*(?:\.\d+)?[万亿萬億千百]*(?:美元|欧元|日元|港元|新台币|元)"
)
_ERAS = "公元前|西元前|公元|西元|民国|民國|昭和|明治|大正|平成|康熙|乾隆|光绪|光緒"
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = re.compile(
    rf"(?:{_ERAS})?\d{{1,4}}\s?年(?:\s?\d{{1,2}}\s?月(?:\s?\d{{1,2}}\s?[日号號])?)?"
    r"|\d{1,2}\s?月\s?\d{1,2}\s?[日号號]|次年\s?\d{1,2}\s?月\s?\d{1,2}\s?[日号號]"
    rf"|[{_NUMERAL}]{{2,4}}年(?:[{_NUMERAL}]{{1,3}}月(?:[{_NUMERAL}]{{1,3}}日)?)?"
    r"|\d{4}-\d{1,2}-\d{1,2}|\d{1,2}世纪(?:\d{2}年代)?"
    rf"|\b\d{{1,2}}\s(?:{_MONTHS})(?:\s\d{{4}})?"
    rf"|\b(?:{_MONTHS})(?:\s\d{{1,2}}(?!\d)(?:st|nd|rd|th)?)?(?:,?\s\d{{4}})?"
    rf"|\b(?:1[0-9]|20)\d\d\b"
)
_YEAR_ZH = re.compile(rf"(?:公元前|西元前)?\d{{3,4}}\s?年|(?:{_ERAS})\d{{1,4}}\s?年")
_YEAR_EN = re.compile(r"\b(?:1[0-9]|20)\d\d\b")
_TIME = re.compile(
    r"\d{1,2}[:：]\d{2}(?:\s?(?:[-–~～至到]|to|and)\s?\d{1,2}[:：]\d{2})?"
    r"|(?:上午|下午|晚上|凌晨)?\d{1,2}[点點时時](?:\d{1,2}分|半)?|\d{1,2}\s?(?:am|pm)\b"
)
_CODE = re.compile(
    r"(?<![A-Za-z0-9])(?:[A-Za-z]{1,6}[-_]?[A-Za-z0-9\-_]*\d[A-Za-z0-9\-_]*|\d{3,}(?:-\d{2,})+|\d{4,})"
    r"(?![A-Za-z0-9])"
)
_PERSON_EN = re.compile(
    r"\b(?:[A-Z][\w'’.-]+|[A-Z]\.)(?:\s(?:(?:of|de|von|van|la|the|and|der|bin|al)\s)?"
    r"(?:[A-Z][\w'’-]+|[A-Z]\.))+|\b[A-Z][a-z]{2,}\b"
)

# First match wins. English needs word boundaries; Chinese has none.
_TYPES: tuple[tuple[re.Pattern[str], AnswerType], ...] = (
    (
        re.compile(r"what percent|which percent|百分之几|百分之多少|百分比|比例(?:是|为)多少"),
        "percent",
    ),
    (
        re.compile(r"\bhow much money|how much .*\b(?:cost|pay|spend|paid|worth)|多少钱|多少元"),
        "money",
    ),
    (
        re.compile(
            r"\b(?:what|which) year\b|哪(?:一)?年|何年|什么年份|"
            r"(?:西元|公元|民国|民國|于|於|在)[几幾]年"
        ),
        "year",
    ),
    (re.compile(r"\bwhat time\b|几点|幾點"), "time"),
    (
        re.compile(
            r"(?:编号|編號|工号|型号|型號|代码|代碼|号码|號碼|内线)(?:是|为|為|多少|什么|$)|"
            r"\b(?:what|which) (?:\w+ ){0,2}(?:code|part number|model|extension)\b"
        ),
        "code",
    ),
    (
        re.compile(
            r"^when\b|\bwhen (?:did|was|were|is|are|does|do|will)\b|what date|"
            r"什么时候|什麼時候|何时|何時|哪(?:一)?天|几月|幾月|哪(?:一)?日|什么日期|时间是"
        ),
        "date",
    ),
    (
        re.compile(
            r"\bhow (?:many|much|often|old|long|far)\b|"
            r"\bhow (?!do\b|does\b|did\b|can\b|is\b|are\b|to\b|should\b|was\b)[a-z]+ "
            r"(?:is|are|was|were|do|does|did|can|may|must|should|will|has|have)\b"
        ),
        "number",
    ),
    (
        re.compile(
            r"多少|几[个名位人次天年岁种座层条部集张台家所间件项章篇首票届期站支只本场公小]|"
            r"幾[個名位人次天年歲種座層條部集張臺家所間件項章篇首票屆期站支隻本場公小]|"
            r"多[长高大远深重宽久]|多[長遠寬]"
        ),
        "number",
    ),
    (re.compile(r"^who\b|\bwho (?:is|was|were|are|did)\b|\bby whom\b"), "person"),
)


def answer_type(question: str) -> AnswerType | None:
    """Return what kind of thing `question` asks for; None where no rule is sure."""
    folded = normalise(question).strip()
    return next((kind for pattern, kind in _TYPES if pattern.search(folded)), None)


def find_span(question: str, sentence: str, kind: AnswerType | None) -> str | None:
    """Return the part of `sentence` that answers, verbatim, or None.

    Of several candidates the one nearest to words of the question wins; candidates that the
    question itself names are out.
    """
    if kind is None:
        return None
    asked = normalise(question)
    candidates = [
        match for match in _candidates(sentence, kind) if not _is_asked(match.group(), asked, kind)
    ]
    if not candidates:
        return None
    anchors = _anchors(asked, sentence)
    return min(candidates, key=lambda match: _distance(match, anchors)).group().strip()


def _is_asked(candidate: str, asked: str, kind: AnswerType) -> bool:
    folded = normalise(candidate).strip()
    if kind == "person":
        return any(part in asked for part in re.findall(r"\w{3,}", folded))
    return folded in asked


def has_candidate(sentence: str, kind: AnswerType) -> bool:
    """Tell whether `sentence` holds anything of this kind."""
    return bool(_candidates(sentence, kind))


def _candidates(sentence: str, kind: AnswerType) -> list[re.Match[str]]:
    is_chinese = re.search("[\u4e00-\u9fff]", sentence) is not None
    patterns = {
        "number": _NUMBER_ZH if is_chinese else _NUMBER_EN,
        "percent": _PERCENT,
        "money": _MONEY,
        "date": _DATE,
        "year": _YEAR_ZH if is_chinese else _YEAR_EN,
        "time": _TIME,
        "code": _CODE,
        "person": _PERSON_EN,
    }
    if kind == "person" and is_chinese:
        return []  # no rule tells a Chinese name from other words
    found = [match for match in patterns[kind].finditer(sentence) if match.group().strip()]
    if kind == "person":  # a lone first word has its capital from the sentence
        found = [match for match in found if match.start() or " " in match.group()]
    if kind == "number" and not is_chinese:  # "in 1967" counts nothing
        found = [match for match in found if not _YEAR_EN.fullmatch(match.group())]
    return found


def _anchors(asked: str, sentence: str) -> list[tuple[int, int, float]]:
    """Return where pieces of the question stand in the sentence, with their weights."""
    folded = normalise(sentence)
    if len(folded) != len(sentence):  # offsets would not fit
        return []
    pieces: Sequence[str] = re.findall(r"[a-z]{4,}|\d+", asked)
    for run in re.findall("[\u4e00-\u9fff]{2,}", asked):
        pieces = [*pieces, *(run[i : i + 2] for i in range(len(run) - 1))]
    anchors: list[tuple[int, int, float]] = []
    for piece in dict.fromkeys(pieces):
        found = [match.span() for match in re.finditer(re.escape(piece), folded)]
        anchors += [(start, end, 1 / len(found)) for start, end in found]
    return anchors


def _distance(match: re.Match[str], anchors: Sequence[tuple[int, int, float]]) -> tuple[float, int]:
    """Sum of the inverse distances to the question's words, negated; then first come.

    A word that the sentence repeats tells less; one before the candidate more than one behind.
    """
    closeness = sum(
        (weight if end <= match.start() else weight / 2)
        / (3 + max(start - match.end(), match.start() - end, 0))
        for start, end, weight in anchors
    )
    return (-closeness, match.start())
