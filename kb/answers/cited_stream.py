"""Citations of an answer while it is being written: each sentence's as soon as it is complete.

They are early and may be wrong: the model may yet name a passage, and sentences are judged one by
one, by their words alone. What `kb.answers.citations.cite` says of the whole answer, in Finished,
is the truth.
"""

import re
from collections.abc import Iterator, Sequence

from kb.answers.citations import MARKER, ReadPassages, answer_sentences, cite
from kb.records import AnswerEvent, Cited, Draft, Passage, Token, Usage

# Only after these can a sentence have become complete.
_MAY_END = re.compile(r"[。！？!?；….\n\s]")


def with_citations(
    events: Iterator[AnswerEvent], passages: Sequence[Passage]
) -> Iterator[AnswerEvent]:
    """Pass the events of an answerer on, with a Cited after the Token that completes a sentence.

    A sentence is complete when the next one has begun; the last one's citation comes with the
    whole answer.
    """
    read = ReadPassages(passages)
    text = ""
    done = 0  # where the first incomplete sentence begins
    for event in events:
        yield event
        if not isinstance(event, Token):
            continue
        text += event.text
        # One character more: the next sentence may begin with this token.
        if not _MAY_END.search(text[-len(event.text) - 2 :]):
            continue
        pending = text[done:]
        spans = answer_sentences(pending)
        for start, end in spans[:-1]:
            # A marker behind the full stop is the model's hint at this sentence's passage.
            marker = MARKER.match(pending, end)
            piece = pending[start : marker.end() if marker else end]
            draft = Draft(text=piece, answer_span=None, quotes=(), usage=Usage())
            for citation in cite(draft, passages, read=read)[1]:
                yield Cited(citation, done + end)
        if len(spans) > 1:
            done += spans[-1][0]
