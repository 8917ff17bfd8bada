"""What kind of thing a question asks for, and what of that kind a sentence holds.

A question's words tell the type of its answer ("how many", 多少, 哪一年, 在哪里), the noun that
names it ("which river", 哪个国家) and what stands beside the asking word, since that often stands
beside the answer too. Rules and small lists of general knowledge; `kb.answers.spans` weighs what
they say against everything else.
"""

import re
from dataclasses import dataclass
from typing import Literal

from kb.text import stopwords
from kb.text.terms import has_han, normalise, segment

AnswerType = Literal[
    "number", "percent", "money", "date", "year", "time", "code", "person", "place", "title",
    "reason", "manner", "definition",
]  # fmt: skip

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
    r"|\b(?:early |mid-?|late )?(?:the )?(?:1\d|20)\d0s\b"
    r"|\b\d{1,2}(?:st|nd|rd|th) centur(?:y|ies)\b"
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

_TITLE = re.compile(r"《[^《》\n]{1,60}》|[“「『\"][^“”「」『』\"\n]{1,60}[”」』\"]")

# First match wins. English needs word boundaries; Chinese has none.
_TYPES: tuple[tuple[re.Pattern[str], AnswerType], ...] = (
    (
        re.compile(
            r"what (?:is |was |were )?(?:the )?percent|which percent|百分之几|百分之多少|"
            r"百分比|比例(?:是|为)多少"
        ),
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
    (
        re.compile(
            r"\bwho(?:m|se)?\b|谁|誰|何人|哪(?:一)?位|什么人|什麼人|"
            r"(?:作者|导演|導演|创始人|創始人|发明者|發明者|设计者|設計者)(?:是|为|為)|"
            r"\b(?:what|which) (?:\w+ ){0,2}(?:person|man|woman|actor|actress|singer|king|queen|"
            r"president|author|scientist|leader|player|emperor|artist|writer|composer)\b"
        ),
        "person",
    ),
    (
        re.compile(
            r"\bwhere\b|哪里|哪裡|哪裏|哪儿|哪兒|何处|何處|何地|什么地方|什麼地方|什么地区|"
            r"哪(?:一)?[个個]?(?:国家|國家|城市|省|市|县|縣|州|区|區|地区|地區|地方|岛|島|村|镇|鎮)|"
            r"\b(?:what|which) (?:\w+ ){0,1}(?:city|country|state|town|county|place|island|region|"
            r"continent|province|district|location)\b"
        ),
        "place",
    ),
    (
        re.compile(
            r"\bwhy\b|\bwhat (?:is|was|were) the (?:reason|cause)|为什么|為什麼|为什麼|为何|"
            r"為何|为啥|"
            r"什么原因|什麼原因|原因(?:是|为|為)|因何"
        ),
        "reason",
    ),
    (
        re.compile(
            r"(?:书|書|著作|小说|小說|专辑|專輯|电影|電影|影片|歌曲|单曲|單曲|作品|节目|節目|杂志|雜誌|剧|劇)"
            r"(?:名|叫|是|为|為)?(?:什么|什麼|哪)|"
            r"(?:什么|什麼|哪[一]?[部本首张張份]|哪个|哪個)(?:书|書|著作|小说|小說|专辑|專輯|电影|電影|影片|歌|"
            r"单曲|單曲|作品|节目|節目|杂志|雜誌|[^，。？]{0,4}剧|[^，。？]{0,4}劇)"
        ),
        "title",
    ),
    (re.compile(r"^how\b|怎么|怎麼|怎样|怎樣|如何|怎"), "manner"),
    (
        re.compile(r"什么是|什麼是|何谓|何謂|是指什么|指的是什么|定义|定義|什么意思|什麼意思"),
        "definition",
    ),
)

_ASKING = re.compile(
    r"为什么|為什麼|为何|為何|什么时候|什麼時候|什么|什麼|什麽|甚么|甚麼|谁|誰|哪里|哪裡|哪裏|哪儿|哪兒|"
    r"哪(?:一|些)?[个個位种種条條座部本首家所年天日项項场場]?|何[时時地处處人种種年]?|多少|"
    r"[几幾](?=[\u4e00-\u9fff])|怎么样?|怎麼樣?|怎样|怎樣|如何|"
    r"多(?=[长長高大远遠深重宽寬久快])"
    r"|\b(?:what|which|who|whom|whose|when|where|why|how(?: (?:many|much|old|long|far|often))?)\b"
)
_ENGLISH_WORD = re.compile(r"[^\W_]+(?:['’\-.][^\W_]+)*")
# Nouns that ask, and how names of that kind end; else a name ends as the noun does.
_ENDINGS = {
    noun: tuple(endings.split())
    for line in """
国家: 国
國家: 國
城市: 市
省份: 省
大学: 大学 学院
大學: 大學 學院
学校: 学校 大学 学院 中学 小学
學校: 學校 大學 學院 中學 小學
公司: 公司 集团 集團 企业
语言: 语 文
語言: 語 文
民族: 族 人
河流: 河 江 川
河: 河 江
山脉: 山 山脉
山: 山 峰
岛屿: 岛
島嶼: 島
颜色 顏色: 色
方言: 话 語 语
宗教: 教
节日: 节
節日: 節
朝代: 朝 代
政党: 党
政黨: 黨
职位: 长 員 员 官
疾病: 病 症
组织: 会 组织 联盟
組織: 會 組織 聯盟
机构: 局 院 所 会 部
奖项 奖: 奖
獎項: 獎
赛事 比赛: 赛 杯
车站: 站
铁路: 线 铁路
战争: 战争 之战 战役
戰爭: 戰爭 之戰 戰役
方向: 东 南 西 北 部 面
方式: 式 法
方法: 法
行政区: 省 市 县 区
地区: 区 省 市 洲 地
地區: 區 省 市 洲 地
""".strip().splitlines()
    for nouns, endings in [line.split(": ")]
    for noun in nouns.split()
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a question asks for, all of it normalised.

    `kind` is None where no rule is sure. `focus` is the noun asked about ("river", 国家), "" if
    none; `endings` how names of that kind end. `before` and `after` are the question's words on
    either side of the word that asks.
    """

    text: str
    kind: AnswerType | None
    focus: str
    endings: tuple[str, ...]
    before: str
    after: str


def answer_type(question: str) -> AnswerType | None:
    """Return what kind of thing `question` asks for; None where no rule is sure."""
    folded = normalise(question).strip()
    return next((kind for pattern, kind in _TYPES if pattern.search(folded)), None)


def read_question(question: str) -> Asked:
    """Return what `question` asks for."""
    folded = normalise(question).strip()
    kind = answer_type(folded)
    match = _ASKING.search(folded)
    if match is None:
        return Asked(folded, kind, "", (), folded.rstrip("？?。. "), "")
    before, after = folded[: match.start()], folded[match.end() :].rstrip("？?。. ")
    if has_han(folded):
        focus = _chinese_focus(before, after)
        endings = _ENDINGS.get(focus, (focus[-1:],) if focus else ())
    else:
        focus = _english_focus(after) if match.group() in {"what", "which", "whose"} else ""
        endings = (focus,) if focus else ()
    return Asked(folded, kind, focus, endings, before.rstrip(" ，,"), after.lstrip())


def _chinese_focus(before: str, after: str) -> str:
    """什么节目的主持人 gives 节目, 哪个国家 国家; 祖籍是什么 the noun before, 祖籍."""
    run = re.match("[\u4e00-\u9fff]{1,6}", after)
    if run:
        word = segment(run.group())[0]
        if word not in stopwords.CHINESE:
            return word
    run = re.search("([\u4e00-\u9fff]{1,6})(?:是|为|為|叫|叫做|有|包括|属于)$", before)
    return segment(run.group(1))[-1] if run else ""


def _english_focus(after: str) -> str:
    """Return the last of the words between the asking word and the verb: "nfl team" gives team."""
    focus = ""
    for word in _ENGLISH_WORD.findall(after)[:5]:
        if word in stopwords.ENGLISH or (focus and word.endswith(("ed", "s"))):
            break
        focus = word
    return focus


def typed_spans(sentence: str, kind: AnswerType) -> list[tuple[int, int]]:
    """Return the spans of `sentence`, simplified, that are of this kind by their form."""
    chinese = has_han(sentence)
    patterns: dict[str, re.Pattern[str]] = {
        "number": _NUMBER_ZH if chinese else _NUMBER_EN,
        "percent": _PERCENT,
        "money": _MONEY,
        "date": _DATE,
        "year": _YEAR_ZH if chinese else _YEAR_EN,
        "time": _TIME,
        "code": _CODE,
        "title": _TITLE,
    }
    pattern = patterns.get(kind)
    if kind == "person" and not chinese:
        pattern = _PERSON_EN
    if pattern is None:
        return []
    return [
        (match.start(), match.start() + len(match.group().rstrip(" ,")))
        for match in pattern.finditer(sentence)
    ]


def stated_spans(sentence: str) -> list[tuple[int, int, str]]:
    """Return the dates, times and quantities of `sentence`, in order, none inside another.

    Each with "date" or "num"; of two that overlap the one that begins first wins, then the longer.
    """
    spans = [(a, b, "date") for a, b in typed_spans(sentence, "date")]
    for kind in ("money", "percent", "number", "time"):
        spans += [(a, b, "num") for a, b in typed_spans(sentence, kind)]
    found: list[tuple[int, int, str]] = []
    for span in sorted(spans, key=lambda span: (span[0], -span[1])):
        if not found or span[0] >= found[-1][1]:
            found.append(span)
    return found
