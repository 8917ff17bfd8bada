"""Chinese follow-up questions: what in them points back, and what stands there instead.

Rules of the language, no list of subjects: pronouns and demonstratives without anything before
them that they could mean (``它有多长？``), an ellipsis (``那杭州呢？``, ``为什么？``), and
questions that name nothing to ask about (``要提前多久申请？``). Simplified and traditional alike.

Not covered: which of two people a pronoun means, and a topic that is several turns old.
"""

import re

from kb.text.terms import common_share, content_words

# Words of a question that ask: what stands before the first of them is what it is about.
_ASKS = (
    r"为什么|為什麼|为何|為何|为啥|什么|什麼|甚么|怎么|怎麼|怎样|怎樣|如何|哪|谁|誰|多少|几(?!何|乎)|幾(?!何|乎)"
    r"|多(?=久|长|長|大|高|远|遠|深|重|宽|寬|快)|何时|何時|何地|何处|何處|何人|何种|何種|是否|能否|可否"
)
_PREDICATES = (
    rf"{_ASKS}|是|有(?![限关機机效色名])|在(?![线線职職岗崗])|能(?![源力量耗])|可以|会(?![议員员计議計])"
    r"|會(?![議員計])|应该|應該|应当|需要|需(?!求)|要(?!求|点|點|素|闻)|必须|必須|由(?!于|於)|被|位于|位於|属于|屬於|包括|包含"
    r"|每|享有|享受|叫|最|一共|总共|總共|分别|分別|主要|具体|一般|通常|于(?=[\d一二三四五六七八九〇])"
)
_PREDICATE = re.compile(_PREDICATES)
_ASKING = re.compile(_ASKS)
_POLITE = re.compile(
    r"^(?:请问一下|请问|請問|请教一下|你知道|告诉我|我想知道|想问一下|麻烦问一下)[，,：: ]*"
)
_LEAD = re.compile(
    r"^(?:那么|那麼|那(?![个個些种種里裡儿兒边邊座家位次条條项項台款本部样樣是时時天年])|然后呢?|然後|还有|還有|"
    r"另外|但是|可是|不过|不過|所以|而且|好的|嗯)[，, ]*"
)
_TAIL = re.compile(r"[？?。．!！\s~～]+$")

_BARE = re.compile(
    r"(?:是|又是|这是|那是)?(?:为什么|為什麼|为何|為何|为啥|怎么办|怎麼辦|怎么做|怎么弄|怎么回事|怎么样|怎麼樣|如何|"
    r"什么时候|什麼時候|何时|何時|在?哪里|在?哪裡|在?哪儿|在哪|谁|誰|多久|多少|多少钱|多少錢|几天|几个|几次|"
    r"多长时间|多長時間|多长|多高|多大|多远|有?哪些|什么|什麼|什么意思|什么原因|有什么|依据是什么|真的|"
    r"还有|還有|还有什么|还有哪些|还有别的|有没有例外|举个例子|举例|例如|比如|具体|详细说说|具体说说|展开说说|说详细点|继续|然后)"
    r"(?:会|要|能|可以)?(?:这样|那样|如此|這樣)?(?:呢|啊|呀|吗|嗎|的)?"
)
_WHAT_ABOUT = re.compile(
    r"(?P<lead>(?:那么|那麼|那|还有|還有|至于|至於|换成|換成|如果是|要是|对于|對於|关于|關於|而)?)"
    r"[，, ]*(?P<new>.{1,24}?)(?:的话|的話)?"
    r"(?:呢|又如何|怎么样|怎麼樣|又怎么样|又是多少|又是什么|也一样吗|也是吗)"
)
_CLASSIFIER = (
    "个個些种種座家位次条條项項台款本部样樣件份张張篇届屆场場支名颗顆"
    "辆輛艘间間所栋棟类類点點步段期批套枚"
)
_PRONOUN = re.compile(
    rf"(?P<person>(?<![其吉])[他她](?:们|們)?)(?!人|乡|鄉|杀|殺|国|國)"
    r"|(?P<thing>(?:它|牠)(?:们|們)?)"
    rf"|(?P<noun>(?:这|這|那)(?:[一二两三几幾])?[{_CLASSIFIER}](?=[\u4e00-\u9fff]))"
    rf"|(?P<alone>(?:这|這|那)(?:[{_CLASSIFIER}]|(?=[是会會能要有])))"
    r"|(?P<place>那里|那裡|那儿|那兒|那边|那邊|当地|當地|此地)"
    r"|(?P<formal>(?<![土尤极極莫与與])其(?![他它她中实實余餘次间間后後时時]))"
    r"|(?P<given>(?<!应)(?<!應)该(?![如怎不去做用吃买买选選怎是有])|該(?![如怎不去做用吃買選是有])"
    r"|(?<![因如从從由彼])此(?![外前后後时時次刻间間生致])|上述|前述|以上)"
)
_ORDINAL = re.compile(
    r"(?:第[一二三四五六七八九十\d]+|前一|后一|後一|另一|另外一|最后一|上一|下一)[种種个個类類项項条條点點步]"
    r"(?=的|是|要|需|有[什哪多几幾没沒]|在|怎|如何|什|多|几|幾|呢|可|能|会|會|$)|[前后後]者|剩下的|其余的|其餘的"
)
_ORDER = re.compile(
    r"(?:价格|價格|费用|費用|原因|面积|面積|人口|时间|時間|地点|地點|作者|标准|標準|流程|步骤|步驟|条件|條件|期限|有效期"
    r"|优点|優點|缺点|缺點|区别|區別|规格|規格|尺寸|重量|长度|長度|高度|寿命|壽命|负责人|負責人|电话|電話|地址|上限|下限"
    r"|依据|依據|目的|作用|影响|影響|后果|後果|意义|意義|结果|結果|例外|材料|手续|手續|密码|密碼|频率|頻率|型号|型號)(?=是|有|呢|为|為|多|在|怎|如)"
)
_QUOTED = re.compile(r"《[^》]*》|“[^”]*”|「[^」]*」|『[^』]*』|\"[^\"]*\"")
_YEAR = re.compile(
    r"\d{4}年?|[〇零一二三四五六七八九]{4}年|(?:去|今|明|前)年|上(?:个月|半年|季度)|\d+月份?|\d+号?"
)
_ASKS_WHO = re.compile(r"谁|誰|哪位|哪个人|何人|名字|姓名")

# Above this share of general texts a word is no subject of its own (`kb.text.terms.common_share`).
_EVERYDAY = 0.004
# Longer questions say what they are about.
_MAX_BARE_CHARS = 16


def subject(question: str) -> str:
    """Return what a question is about: the words before its first predicate, or what follows."""
    body = _body(question)
    quoted = _QUOTED.search(body)
    first = _PREDICATE.search(body)
    before = body[: first.start()] if first else body
    if content_words(before):
        focus = _focus(body[first.start() :]) if first and _is_everyday(before) else ""
        return before.strip().rstrip("，, 的了又也以还就都") + focus
    if quoted:
        return quoted.group()
    rest = re.sub(rf"^(?:{_PREDICATES}|么|麼|样|樣|个|個|些|位|不|了)+", "", body)
    rest = re.sub(r"^.{1,4}?[了过過](?=.{2})", "", rest)  # a verb and its object
    second = _ASKING.search(rest)
    return _strip_particles(rest[: second.start()] if second and second.start() else rest)


def asks_who(question: str) -> bool:
    return _ASKS_WHO.search(question) is not None


def asks_which(question: str) -> bool:
    """Tell whether what the question asks for is what the next one may be about."""
    return re.match(r"(?:哪|谁|誰|什么|什麼|何)", _body(question)) is not None


def is_follow_up(question: str) -> bool:
    """Tell whether the question points back to something that it does not say."""
    return _form(_body(question)) is not None


def filled(question: str, before: str, *, answer: str) -> str | None:
    """Return the question with what it points back to, None where it points to nothing.

    Args:
        question: the user's words.
        before: the question before it, self-contained.
        answer: the short answer to that one, "" where it is not known.
    """
    body = _body(question)
    form = _form(body)
    about = subject(before)
    if form is None or not (about or answer):
        return None
    if form == "bare":
        return f"{_TAIL.sub('', before)}，{_LEAD.sub('', body)}？"
    if form == "ellipsis":
        match = _WHAT_ABOUT.fullmatch(body)
        assert match is not None
        return _exchanged(match.group("new"), before)
    if form == "pronoun":
        return _replaced(body, about, before, answer) + "？"
    if answer and asks_which(before) and not asks_who(before):
        about = answer
    if form in ("order", "ordinal"):
        return f"{about}的{body}？"
    comma = "，" if re.match("如果|要是|假如|假設|若|万一|但", body) else ""
    return f"{about}{comma}{body}？"


def _form(body: str) -> str | None:
    """Name the way in which a question points back: the first that applies."""
    if not body:
        return None
    short = _without_leads(body)
    if not _strip_particles(short) or _BARE.fullmatch(short):
        return "bare"
    match = _WHAT_ABOUT.fullmatch(body)
    # "X怎么样？" alone is a question of its own; "那X怎么样？" and "X呢？" are not.
    is_led = match is not None and (match.group("lead") or body.endswith("呢"))
    if match and is_led and not _PREDICATE.search(_LEAD.sub("", match.group("new"))):
        return "ellipsis"
    if _pronoun(body):
        return "pronoun"
    if _ORDINAL.match(short):
        return "ordinal"
    if len(short) <= _MAX_BARE_CHARS:
        if _ORDER.match(short):
            return "order"
        words = content_words(short)
        first = _PREDICATE.search(short)
        opens = (
            first is not None
            and not content_words(short[: first.start()])
            and not re.match("最|什么[是叫]|什麼[是叫]|何[谓為]", short[first.start() :])
            and not re.search("[A-Za-z0-9]", short)
        )
        conditional = re.match("如果|要是|假如|若|万一", short) is not None
        if (opens or conditional) and len(words) <= 2 and all(map(_is_everyday_word, words)):
            return "no subject"
    return None


def _pronoun(body: str) -> re.Match[str] | None:
    """Return the first pronoun that nothing before it in the question can explain."""
    masked = _QUOTED.sub(lambda match: "\0" * len(match.group()), body)
    lead = _LEAD.match(masked)
    match = _PRONOUN.search(masked, lead.end() if lead else 0)
    if match is None:
        return None
    before = masked[: match.start()]
    words = content_words(before)
    if match.lastgroup in ("person", "thing") and len(words) == 1 and _is_verb_like(words[0]):
        words = []  # 设计它的人, 使用它: the verb before its object names nothing
    return None if "\0" in before or words else match


def _replaced(body: str, about: str, before: str, answer: str) -> str:
    match = _pronoun(body)
    assert match is not None
    kind = match.lastgroup
    rest = body[match.end() :]
    if answer and (
        asks_who(before) if kind == "person" else asks_which(before) and not asks_who(before)
    ):
        meant = answer
    elif (rest.startswith("的") or kind == "formal") and "的" in about:
        meant = about.split("的")[0]  # the owner: 上海 of 上海的人口
    else:
        meant = about
    start = _LEAD.sub("", body[: match.start()])
    if kind == "place" and not re.search("[在到去往从從]$", start) and not rest.startswith("的"):
        return f"{start}{meant}{rest}"
    if kind == "noun":  # 这座桥: its own noun stays, beside the name
        return f"{start}{meant}，{match.group()}{rest}"
    if kind == "given":
        return f"{start}{meant}，{match.group()}{rest}"
    if kind == "formal" and not rest.startswith("的"):
        return f"{start}{meant}的{rest}"
    return f"{start}{meant}{rest}"


def _exchanged(new: str, before: str) -> str | None:
    """Put `new` into the question before in place of what it stands beside."""
    new = _without_leads(new)
    if not new:
        return None
    question = _TAIL.sub("", before)
    about = subject(before)
    if match := _pronoun(new):  # 它的面积呢: another property of the same thing
        owner = about.split("的")[0]
        asked = f"{owner}{new[match.end() :]}"
        return f"{question.replace(about, asked, 1) if about else asked}？"
    if _YEAR.fullmatch(new) and (old := _YEAR.search(question)):
        return f"{question[: old.start()]}{new}{question[old.end() :]}？"
    old_word = _beside(new, question)
    if old_word:
        return f"{question.replace(old_word, new, 1)}？"
    first = about.split("的")[0]
    # One name, or the owner of what is asked, is what `new` stands for; a longer subject stays.
    if first and first in question and ("的" in about or len(content_words(first)) == 1):
        return f"{question.replace(first, new, 1)}？"
    return f"{new}，{question}？"


def _beside(new: str, question: str) -> str:
    """Return what ends like `new` in the question, as 年假 and 病假 do, or is Latin like it."""
    for shared in range(len(new) - 1, 1, -1):
        at = question.find(new[-shared:])
        start = at - (len(new) - shared)
        if at > 0 and start >= 0 and question[start : at + shared] != new:
            return question[start : at + shared]
    for word in content_words(question):
        if word in question and word != new and word[-1] == new[-1] and len(word) > 1:
            return word
    latin = re.fullmatch(r"[A-Za-z][\w\-. ]*", new)
    if latin and (old := re.search(r"[A-Za-z][\w\-.]*", question)):
        return old.group()
    return ""


def _focus(rest: str) -> str:
    """Return the noun that a quantity or kind is asked of: 年假 in 有几天年假."""
    match = re.search(
        r"(?:几|幾|多少)(?:[天个個次年月元名位条條小时时]|小时|个月)?(?P<noun>[\u4e00-\u9fff]{2,8})$"
        r"|(?:什么|什麼|哪些|哪种|哪種)(?P<kind>[\u4e00-\u9fff]{2,8})$",
        rest,
    )
    return (match.group("noun") or match.group("kind")) if match else ""


def _without_leads(body: str) -> str:
    while (rest := _LEAD.sub("", body)) != body:
        body = rest
    return body


def _body(question: str) -> str:
    return _TAIL.sub("", _POLITE.sub("", question.strip()))


def _strip_particles(text: str) -> str:
    return re.sub(r"(?:的|了|吗|嗎|呢|啊|过|過)+$", "", text).strip("，, ")


def _is_everyday(text: str) -> bool:
    return all(map(_is_everyday_word, content_words(text)))


def _is_everyday_word(word: str) -> bool:
    return common_share(word) >= _EVERYDAY


def _is_verb_like(word: str) -> bool:
    return len(word) <= 2 and common_share(word) >= 0.01
