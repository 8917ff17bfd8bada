"""English follow-up questions: what in them points back, and what stands there instead.

Rules of the language, no list of subjects: pronouns without anything before them that they could
mean ("How long is it?"), an ellipsis ("And in 2022?", "How about Munich?", "Why?"), and short
questions that name nothing ("Are there any exceptions?").

Not covered: which of two people a pronoun means, and a topic that is several turns old.
"""

import re

from kb.text.stopwords import ENGLISH, EVERYDAY_ENGLISH

_WORD = re.compile(r"[A-Za-z0-9][\w'’.\-]*")
_TAIL = re.compile(r"[?.!\s]+$")
_POLITE = re.compile(
    r"^(?:please |(?:can|could) you tell me |tell me |do you know |i(?:'d| would) like to know )+",
    re.I,
)
_LEAD = re.compile(r"^(?:(?:and|but|so|ok|okay|or|then|also|well|now)\b,? *)+", re.I)
_BARE = re.compile(
    r"(?:why not|why|how so|how come|how|when|where|who|whom|which(?: ones?)?|what|since when"
    r"|by whom|for whom|with whom|how (?:much|many|long|often|far|high|old|soon|big|large)"
    r"|what (?:else|then|for|time|year|day)|where exactly|when exactly|who else|really|for example"
    r"|such as|any(?:thing)? (?:others?|else|exceptions?)"
    r"|are there (?:any )?(?:others?|more|exceptions?)"
    r"|(?:please )?(?:go on|continue|elaborate|explain(?: further| more)?|tell me more)"
    r"|why is (?:that|this|it)(?: so)?|why(?: did| does| was) (?:that|this|it)(?: happen)?)",
    re.I,
)
_WHAT_ABOUT = re.compile(
    r"(?:(?:and|but|so|ok|or|then|also),? *)*(?:(?:what|how) about|and what of|what of) (?P<new>.+)"
    r"|(?:and|or|but),? +(?P<short>[^,]+)",
    re.I,
)
_PREPOSITIONS = "in|for|at|on|from|by|with|during|after|before|under|to|since|without|within|of"
_PREPOSITION = re.compile(rf"(?P<word>{_PREPOSITIONS}) +(?P<rest>.+)", re.I)
_PRONOUN = re.compile(
    r"\b(?P<owner>its|their|theirs|his|hers|her(?= [a-z]+))\b"
    r"|\b(?P<person>he|she|him|her)\b"
    r"|\b(?P<thing>it|they|them)\b"
    r"|(?:^|(?<=\b(?:is|of|in|on|at|to|by|do|as) )|(?<=\b(?:are|was|did|for|has) )"
    r"|(?<=\b(?:were|does|with|from|have) ))"
    r"(?P<noun>(?:this|that|these|those) [a-z][\w\-]+)"
    r"|\b(?P<alone>this|that|these|those)"
    r"(?=\W*$|\W+(?:is|was|are|were|mean|happen|work|take|cost|apply|start|end)\b)"
    r"|\b(?P<place>there)(?=\W*$)"
    r"|\b(?P<ones>(?:the )?(?:second|first|third|other|last|former|latter) ones?|one)\b(?=\W*$)",
    re.I,
)
# "How long does it take to...", "Is it true that...": it means what follows.
_PLEONASTIC = re.compile(
    r"\bit\b(?= +(?:\w+ +){0,3}?(?:to|that|if|when|whether|for \w+ to)\b| +(?:rain|snow)\w*"
    r"| +called\b| +(?:is|was|be|been) +(?:true|said|known|possible|necessary|called|likely))",
    re.I,
)
_NOT_A_NOUN = """
year years month week day time century morning evening afternoon summer winter type kind sort way
is was are were be been does do did can could will would should may might must has have had the a
an of in on at by to from with and or not it he she they we you i means mean happened happen
happens all
"""
_AUXILIARIES = """
is are was were be been am do does did has have had can could will would shall should may might
must isn't aren't wasn't doesn't don't didn't can't
"""
_VERBS = """
need needs require requires take takes took cost costs last lasts weigh weighs open opens close
closes start starts begin begins end ends work works run runs use uses get gets mean means apply
applies change changes contain contains include includes come comes go goes expire expires stay
live lives die died have receive receives become became write wrote build built make made lie lies
stand stands happen happens belong belongs opened say says cover covers serve
"""
_QUESTIONS = "who whom whose what which when where why how"
_NO_NOUNS = frozenset(_NOT_A_NOUN.split())
_AUXILIARY = frozenset(_AUXILIARIES.split())
_VERB = frozenset(_VERBS.split())
_QUESTION_WORDS = frozenset(_QUESTIONS.split())
_FUNCTION = ENGLISH | _AUXILIARY | _QUESTION_WORDS
_DETERMINERS = frozenset(["the", "a", "an", "our", "my", "your", "each", "every", "any", "all",
                          "some", "no", "this", "that"])  # fmt: skip
_NAME = re.compile(
    r"[A-Z][\w'’\-]*(?:(?: (?:of|the|de|von|van|and|&))* (?:[A-Z][\w'’\-]*|\d[\w\-.]*))*"
)
_YEAR = re.compile(r"\b(?:1[0-9]|20)\d\d\b")
_MAX_BARE_WORDS = 7


def subject(question: str) -> str:
    """Return what a question is about: its first name, else its first noun phrase."""
    body = _body(question)
    found = names(body)
    phrase = _phrase(body)
    if found:
        # "the director of Jaws" is more than "Jaws"
        return phrase if found[0] in phrase else found[0]
    return phrase


def names(text: str) -> list[str]:
    """Return the names in a sentence, by their capitals."""
    return [match.group() for match in _NAME.finditer(text) if not _opens(match, text)]


def asks_who(question: str) -> bool:
    return re.match(r"who(?:m|se)?\b", _body(question), re.I) is not None


def asks_which(question: str) -> bool:
    """Tell whether what the question asks for is what the next one may be about."""
    match = re.match(r"(?:who|whom|which|what)\b", _body(question), re.I)
    return match is not None and not re.match(
        r"what (?:is|are|was|were) the\b", _body(question), re.I
    )


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
        asked = _LEAD.sub("", body)
        return f"{_TAIL.sub('', before)}, {asked[0].lower()}{asked[1:]}?"
    if form == "ellipsis":
        match = _WHAT_ABOUT.fullmatch(body)
        assert match is not None
        return _exchanged(match.group("new") or match.group("short"), before)
    match = _pronoun(body)
    kind = match.lastgroup if match else ""
    if answer and (
        asks_who(before) if kind == "person" else asks_which(before) and not asks_who(before)
    ):
        meant = answer
    else:
        meant = about
    if match is None:
        return f"{body} ({meant})?"
    text = _LEAD.sub("", body[: match.start()])
    rest = body[match.end() :]
    if kind == "owner":
        meant += "'" if meant.endswith("s") else "'s"
    elif kind in ("noun", "ones"):
        meant = f"{match.group()} ({meant})"
    elif kind == "place":
        meant = f"in {meant}"
    return f"{text}{meant}{rest}?"


def _form(body: str) -> str | None:
    """Name the way in which a question points back: the first that applies."""
    short = _LEAD.sub("", body)
    if not short:
        return None
    if _BARE.fullmatch(short):
        return "bare"
    match = _WHAT_ABOUT.fullmatch(body)
    if match and _is_phrase(match.group("new") or match.group("short")):
        return "ellipsis"
    if _pronoun(body):
        return "pronoun"
    words = [word.lower() for word in _WORD.findall(short)]
    told = [word for word in words if word not in _FUNCTION]
    if (
        0 < len(words) <= _MAX_BARE_WORDS
        and len(told) <= 2
        and not any(word[0].isupper() for word in _WORD.findall(short)[1:])
        and all(word in _VERB or word in ("exceptions", "exception", "limits") for word in told)
        and words[0] in _FUNCTION
    ):
        return "no subject"
    return None


def _pronoun(body: str) -> re.Match[str] | None:
    """Return the first pronoun that nothing before it in the question can explain."""
    for match in _PRONOUN.finditer(body):
        if _PLEONASTIC.match(body, match.start()):
            return None
        if match.lastgroup == "noun" and match.group().split()[-1].lower() in _NO_NOUNS:
            continue
        return match if not _names_something(body[: match.start()]) else None
    return None


def _names_something(text: str) -> bool:
    """Tell whether a noun stands in the beginning of a question."""
    words = _WORD.findall(text)
    if any(word[0].isupper() for word in words[1:]) or any(c.isdigit() for c in text):
        return True
    told = [word.lower() for word in words if word.lower() not in _FUNCTION]
    if words and words[0][0].isupper() and words[0].lower() in told:
        told = told[1:] if len(told) == 1 and _looks_like_verb(words[0].lower()) else told
    if not told:
        return False
    opener = words[0].lower()
    # "Who designed it?": one word after who is the verb; "How high is it?": an adjective.
    return not (
        len(told) == 1 and opener in _QUESTION_WORDS and opener not in ("which", "what", "whose")
    )


def _looks_like_verb(word: str) -> bool:
    return word in _VERB


def _is_phrase(new: str) -> bool:
    """Tell whether what follows "and" or "what about" is no sentence of its own."""
    words = [word.lower() for word in _WORD.findall(new)]
    return 0 < len(words) <= 8 and not (set(words) & (_AUXILIARY | _QUESTION_WORDS))


def _exchanged(new: str, before: str) -> str:
    """Put `new` into the question before in place of what it stands beside."""
    question = _TAIL.sub("", before)
    new = _TAIL.sub("", new)
    if match := _pronoun(new):
        about = subject(before)
        owned = f"{about}'s" if match.lastgroup == "owner" else about
        return f"{question.rstrip()}, {new[: match.start()]}{owned}{new[match.end() :]}?"
    preposition = _PREPOSITION.fullmatch(new)
    target = preposition.group("rest") if preposition else new
    if (year := _YEAR.search(target)) and (old := _YEAR.search(question)):
        return f"{question[: old.start()]}{year.group()}{question[old.end() :]}?"
    if preposition:
        word = preposition.group("word")
        if old := re.search(rf"\b{word} +(?:the +)?(?:{_NAME.pattern}|\w+)$", question):
            return f"{question[: old.start()]}{new}?"
        if old := re.search(rf"\b{word} +{_NAME.pattern}", question):
            return f"{question[: old.start()]}{new}{question[old.end() :]}?"
        return f"{question} {new}?"
    if target[0].isupper():
        named = [m for m in _NAME.finditer(question) if not _opens(m, question)]
        if named:
            return f"{question[: named[0].start()]}{target}{question[named[0].end() :]}?"
    words = _WORD.findall(target)
    # "sick leave" stands beside "annual leave", "managers" beside "employees"
    old = re.search(rf"\b[\w\-]+ {re.escape(words[-1])}\b", question) if len(words) > 1 else None
    if old and old.group().split()[0].lower() not in _FUNCTION:
        return f"{question[: old.start()]}{target}{question[old.end() :]}?"
    return f"{question}, {target}?"


def _phrase(body: str) -> str:
    """Return the first noun phrase after a determiner, else the first run of telling words."""
    words = _WORD.findall(body)
    best: list[str] = []
    for start in range(len(words)):
        run: list[str] = []
        position = start
        if words[start].lower() in _DETERMINERS:
            position += 1
        elif best:
            continue
        while position < len(words):
            word = words[position]
            low = word.lower()
            if low == "of" and run:
                run.append(word)
                if position + 1 < len(words) and words[position + 1].lower() in _DETERMINERS:
                    run.append(words[position + 1])
                    position += 1
            elif low in _FUNCTION or low in _VERB:
                break
            else:
                run.append(word)
            position += 1
        if len(run) > 1 and (run[-1].endswith("ed") or run[-1] == "of"):
            run = run[:-1]
        if run and words[start].lower() in _DETERMINERS:
            return " ".join(["the", *run])
        if run and not best:
            best = run
    return " ".join(best)


def _opens(match: re.Match[str], body: str) -> bool:
    """Tell whether a capital only begins the sentence."""
    return match.start() == 0 and match.group().split()[0].lower() in (
        _FUNCTION | _VERB | EVERYDAY_ENGLISH | _DETERMINERS
    )


def _body(question: str) -> str:
    return _TAIL.sub("", _POLITE.sub("", question.strip()))
