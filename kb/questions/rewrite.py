"""Make a follow-up question self-contained, so that it can be looked up: "它有多长？" after a
question about a bridge becomes a question that names the bridge.

Whether a question points back is decided by rules (`kb.questions.followups_zh`,
`kb.questions.followups_en`), which leave a question alone unless they see how it does. A chat
model, where there is one, then words the question; what it says must keep the question's words and
bring in none that the conversation does not hold, else the rules' own wording is taken.
"""

import logging
import re
from collections.abc import Callable, Sequence

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from kb.errors import KBError
from kb.prompt import neutralise
from kb.questions import followups_en, followups_zh
from kb.records import MAX_QUESTION_CHARS, Turn
from kb.text.terms import content_words, has_han, index_terms, is_single

logger = logging.getLogger(__name__)

# Takes messages and the most tokens of a completion; returns the completion.
Complete = Callable[[Sequence[BaseMessage], int], str]

# Turns that are looked at: what is meant stands in the last few.
MAX_TURNS = 4
MAX_REWRITE_TOKENS = 96
# A longer question says what it is about.
MAX_FOLLOW_UP_CHARS = 300
# Longest short answer that can be what a pronoun means.
MAX_ANSWER_CHARS = 40
_MAX_SHOWN_CHARS = 400
_MARKER = re.compile(r"\s*\[\d{1,3}\]")

REWRITE_ZH = (
    "把用户的最后一个问题改写成不看前文也能懂的完整问题：补上代词所指和省略的内容，其余用词照旧。"
    "不要回答，不要加入前文没有的信息。只输出改写后的问题。"
)
REWRITE_EN = (
    "Rewrite the user's last question so that it can be understood without the conversation: put "
    "in what pronouns mean and what was left out, and keep the other words. Do not answer, and "
    "add nothing that the conversation does not say. Reply with the question alone."
)


def self_contained(
    question: str, history: Sequence[Turn], *, complete: Complete | None = None
) -> str:
    """Return the question in words that need no history; as it is where it needs none already.

    Args:
        question: the user's words.
        history: earlier turns, oldest first.
        complete: a chat model; without one, or when it fails or drifts, rules word the question.
    """
    turns = history[-MAX_TURNS:]
    by_rules = _by_rules(question, turns)
    if by_rules is None:
        return question
    if complete is not None and (by_model := _by_model(question, turns, complete)):
        return by_model
    return by_rules[:MAX_QUESTION_CHARS]


def is_faithful(rewritten: str, question: str, turns: Sequence[Turn]) -> bool:
    """Tell whether a model's wording keeps the question's subject and invents nothing."""
    if not rewritten or "\n" in rewritten or len(rewritten) > 3 * len(question) + 200:
        return False
    said = _terms(rewritten)
    asked = _terms(question)
    known = asked.union(*(_terms(f"{turn.question}\n{turn.answer}") for turn in turns))
    invented = [word for word in content_words(rewritten) if not _terms(word) <= known]
    kept = [word for word in content_words(question) if _terms(word) <= said]
    return not invented and 2 * len(kept) >= len(content_words(question))


def _by_rules(question: str, turns: Sequence[Turn]) -> str | None:
    """Return the rules' wording; None where the question needs none or nothing is meant."""
    rules = followups_zh if has_han(question) else followups_en
    if not turns or len(question) > MAX_FOLLOW_UP_CHARS or not rules.is_follow_up(question):
        return None
    *earlier, last = turns
    # What came before may itself point further back.
    before = _by_rules(last.question, earlier) or last.question
    if not content_words(before):
        return _by_rules(question, earlier)
    filled: str | None = rules.filled(question, before, answer=_short_answer(before, last))
    return filled


def _by_model(question: str, turns: Sequence[Turn], complete: Complete) -> str:
    """Return the model's wording, "" where it has none that can be used."""
    zh = has_han(question)
    names = ("用户", "助手") if zh else ("User", "Assistant")
    lines = [
        f"{name}: {_shortened(text)}"
        for turn in turns
        for name, text in zip(names, (turn.question, turn.answer), strict=True)
    ]
    ask = f"{names[0]}: {neutralise(question)}\n\n" + ("改写：" if zh else "Rewritten question:")
    messages = [
        SystemMessage(REWRITE_ZH if zh else REWRITE_EN),
        HumanMessage("\n".join([*lines, ask])),
    ]
    try:
        reply = complete(messages, MAX_REWRITE_TOKENS)
    except KBError as exc:  # the answer itself will say what is wrong, if it is still wrong then
        logger.warning("a follow-up is worded by rules: %s", type(exc).__name__)
        return ""
    rewritten = reply.strip().strip('"“”「」').strip()
    if is_faithful(rewritten, question, turns):
        return rewritten
    logger.info("a follow-up is worded by rules: the model's wording strays")
    return ""


def _short_answer(question: str, turn: Turn) -> str:
    """Return the name or thing that an answer gives, "" where none is plain."""
    if turn.short:
        return turn.short[:MAX_ANSWER_CHARS]
    text = _MARKER.sub("", turn.answer).strip()
    if len(text) <= MAX_ANSWER_CHARS and not re.search(r"[。.!？?！,，]\s*\S", text):
        short = text.rstrip("。.!！ ")
        if len(content_words(short)) <= 3 and not _is_sentence(short):
            return short
    new = [name for name in followups_en.names(text) if name not in question]
    return new[0] if new and followups_en.asks_who(question) else ""


def _is_sentence(text: str) -> bool:
    return re.search(r"[是有在]|\b(?:is|are|was|were|has|have|did|does)\b", text) is not None


def _shortened(text: str) -> str:
    clean = neutralise(_MARKER.sub("", text)).strip()
    return clean if len(clean) <= _MAX_SHOWN_CHARS else clean[:_MAX_SHOWN_CHARS] + "…"


def _terms(text: str) -> frozenset[str]:
    terms = index_terms(text).split()
    return frozenset(t for t in terms if not is_single(t)) or frozenset(terms)
