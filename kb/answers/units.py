"""Units and number words of Chinese and English, as `kb.answers.claims` reads them.

All in the form of `kb.text.terms.normalise`: lower case and simplified. Units of one family convert
into each other; currencies and imperial measures do not, since no fixed rate is in them.
"""

import re
from fractions import Fraction

SCALES = {"百": 100, "千": 1000, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8,
           "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9,
           "trillion": 10**12, "dozen": 12}  # fmt: skip

# Family and factor of each unit; units of one family convert. Counters are all one family.
UNITS: dict[str, tuple[str, Fraction]] = {}
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
    ("count", Fraction(1), "个 人 名 位 口 本 册 部 篇 卷 集 辆 台 架 艘 座 栋 幢 间 所 家 "
     "层 楼 次 回 场 届 期 轮 站 只 头 匹 条 尾 件 项 款 种 类 样 枚 张 份 套 号 级 班 支 章 首 票 "
     "颗 棵 组 队 步 省 市 县 国 区 people persons employees students members books copies items "
     "pieces times"),
):  # fmt: skip
    for _name in _names.split():
        UNITS[_name.replace("\xa0", " ")] = (_family, _factor)

_LATIN_UNITS = sorted((u for u in UNITS if u.isascii()), key=len, reverse=True)
HAN_UNITS = sorted((u for u in UNITS if not u.isascii()), key=len, reverse=True)
UNIT = (
    r"(?:\s?(?:多|余|来)?[个大]?(?:多|余)?(?P<han>" + "|".join(HAN_UNITS) + r")"
    r"|(?:\s|-)?(?P<latin>" + "|".join(map(re.escape, _LATIN_UNITS)) + r")(?![a-z0-9]))"
)  # fmt: skip
# Counters that one thing can take; 个 goes with all of them.
_COUNTERS = tuple(
    frozenset(group.split())
    for group in (
        "人 名 位 口 people persons employees students members",
        "本 册 部 篇 卷 集 章 首 期 books copies",
        "辆 台 架 艘 部 支",
        "座 栋 幢 间 所 家 层 楼 号",
        "次 回 场 届 期 轮 班 times",
        "只 头 匹 条 尾 支",
        "件 项 条 款 种 类 样 枚 张 份 套 items pieces",
        "号 级 班 组 队 步 楼",
        "省 市 县 国 区 个",
    )
)


def counters_agree(one: str, other: str) -> bool:
    """Tell whether two counters can count the same things: 15名 and 15人, not 15本 and 15人."""
    if one == other or not {"", "个"}.isdisjoint((one, other)):
        return True
    return any(one in group and other in group for group in _COUNTERS)


CURRENCY_SIGNS = {
    "$": "dollar",
    "us$": "dollar",
    "€": "euro",
    "£": "pound",
    "¥": "yuan",
    "rmb": "yuan",
}

_ONES = str.split(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_TENS = str.split("_ _ twenty thirty forty fifty sixty seventy eighty ninety")
WORDS = {word: i for i, word in enumerate(_ONES)} | {
    word: 10 * i for i, word in enumerate(_TENS) if word != "_"
}
WORD = "|".join(sorted(WORDS, key=len, reverse=True))
ENGLISH_NUMBER = re.compile(
    rf"\b(?:an?\s(?=hundred|thousand|million|billion|dozen))?"
    rf"(?:(?:{WORD}|hundred|thousand|million|billion|dozen)\b(?:[\s-](?:and\s)?(?=(?:{WORD}|hundred|"
    rf"thousand|million|billion)\b))?)+"
)
ORDINALS = {
    word: i
    for i, word in enumerate(
        str.split(
            "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth "
            "thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
        ),
        start=1,
    )
}
MONTHS = {
    name: i
    for i, names in enumerate(
        str.split(
            "january jan|february feb|march mar|april apr|may|june jun|july jul|august aug|"
            "september sep sept|october oct|november nov|december dec",
            "|",
        ),
        start=1,
    )
    for name in names.split()
}
MONTH = "|".join(sorted(MONTHS, key=len, reverse=True))
