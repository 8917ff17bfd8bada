"""Words that turn a statement into another one: negations, and everyday opposites in English.

For questions that are about the subject of a passage but ask for what it does not say.
"""

import functools
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from kb.text.terms import stem

_NEGATION = re.compile(
    r"\b(?:not|no|never|none|nor|neither|without|cannot|nobody|nothing|unable|refus\w*|fail\w*"
    r"|lack\w*|except|besides|other than|least|rather)\b|n['’]t\b|[不没沒无無非未]|除了",
    re.IGNORECASE,
)
_OPPOSITES = """
    increase|decrease rise|fall more|less|fewer most|least high|low highest|lowest higher|lower
    large|small largest|smallest larger|smaller begin|end first|last early|late earliest|latest
    before|after north|south east|west northern|southern eastern|western win|lose winner|loser
    start|stop open|close accept|reject agree|disagree allow|forbid|prohibit legal|illegal
    possible|impossible able|unable public|private male|female men|women old|young|new
    oldest|youngest|newest rich|poor strong|weak fast|slow long|short longest|shortest hot|cold
    positive|negative support|oppose include|exclude maximum|minimum major|minor
    majority|minority always|never import|export buy|sell attack|defend success|failure
    succeed|fail good|bad best|worst better|worse easy|difficult|hard common|rare left|right
    upper|lower ancient|modern internal|external former|latter gain|lose add|remove enter|leave
    arrive|depart above|below top|bottom inside|outside direct|indirect complete|incomplete
    known|unknown formal|informal natural|artificial active|passive present|absent love|hate
    true|false war|peace summer|winter day|night husband|wife father|mother son|daughter
    king|queen brother|sister create|destroy expand|contract|shrink strengthen|weaken
    praise|criticize cause|prevent encourage|discourage united|divided ally|enemy demand|supply
    profit|loss domestic|foreign urban|rural
"""


def is_negated(text: str) -> bool:
    """Tell whether `text` denies or excludes something."""
    return _NEGATION.search(text) is not None


def says_opposite(words: AbstractSet[str], terms: AbstractSet[str]) -> bool:
    """Tell whether `terms` hold the opposite of one of `words` in its place.

    Both are stems. A question that names both sides ("the largest and the smallest") asks for
    neither's opposite.
    """
    opposites = _opposites()
    return any(
        word not in terms and opposites[word] & terms and not opposites[word] & words
        for word in words & opposites.keys()
    )


@functools.cache
def _opposites() -> Mapping[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for group in _OPPOSITES.split():
        stems = frozenset(map(stem, group.split("|")))
        for word in stems:
            found[word] = found.get(word, frozenset()) | (stems - {word})
    return found
