"""Make a stored answer again, and show what differs.

Without changes the same passages, in their stored versions, go to the same answerer: the
extractive one writes the same text, ChatGLM too (same prompt, same seed; same machine), a server
elsewhere as far as it honours a seed. A refusal is decided anew. With changes, or where a text
that was shown is no longer kept, the whole question is run again on today's documents.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from kb.chain import AskChain
from kb.errors import InvalidInputError, KBError
from kb.protocols import ChatModelAnswerer
from kb.records import Drafted, Passage, Question
from kb.traces.trace import Trace, question_of

# What can be changed, and how its text is read; no text takes a filter away.
_READERS: Mapping[str, Any] = {
    "top_k": int,
    "channel": str,
    "kb": lambda text: tuple(text.split(",")),
    "seed": int,
    "question": str,
    "document": lambda text: tuple(filter(None, text.split(","))),
    "folder": str,
    "type": lambda text: tuple(filter(None, text.split(","))),
    "since": lambda text: text or None,
    "until": lambda text: text or None,
}
_FILTERS = {"document": "documents", "folder": "folder", "type": "types"}


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of it. `removed` and `added` are passages as ``document:start-end``."""

    trace_id: str
    is_same: bool
    is_exact: bool  # from the stored passages, not by a new search
    before: str
    after: str
    removed: tuple[str, ...]
    added: tuple[str, ...]
    reasons: tuple[str, ...]

    @property
    def difference(self) -> list[str]:
        """The lines of both texts that differ, with - and + before them."""
        lines = difflib.ndiff(self.before.splitlines(), self.after.splitlines())
        return [line for line in lines if line[:1] in "-+"]

    def to_dict(self) -> dict[str, Any]:
        return {
            "trace_id": self.trace_id,
            "same": self.is_same,
            "exact": self.is_exact,
            "before": self.before,
            "after": self.after,
            "difference": self.difference,
            "passages_removed": list(self.removed),
            "passages_added": list(self.added),
            "reasons": list(self.reasons),
        }


def replay(chain: AskChain, trace: Trace, changes: Mapping[str, str] | None = None) -> Replay:
    """Make the answer again, with `changes` such as ``{"top_k": "8"}``.

    Raises:
        InvalidInputError: a change that cannot be made, or an answer that cannot be made again.
        KBError: it cannot be searched for, or the chat model failed.
    """
    if trace.is_redacted:
        raise InvalidInputError("trace", "the answer was removed with a document that it was from")
    if trace.request is None:
        raise InvalidInputError("trace", "what this answer was made from has not been kept")
    if trace.model != chain.answerer.model and not trace.refused and not changes:
        raise InvalidInputError(
            "trace", f"it was written by {trace.model!r}; {chain.answerer.model!r} is in use now"
        )
    reasons = [*_reasons(trace), *_sampling_reasons(trace, chain)]
    question = question_of(trace)
    if not changes and not trace.refused and _is_whole(trace, chain):
        text = _again(chain, trace, question)
        is_exact, passages = True, trace.passages
    else:
        asked = _changed(question, changes or {})
        worded = asked.text if asked.text != question.text else trace.rewritten or asked.text
        answer = chain.rerun(asked, worded)
        text, passages, is_exact = answer.text, answer.passages, False
    old, new = _spans_of(trace), [_span(p) for p in passages]
    return Replay(
        trace_id=trace.id,
        is_same=text == trace.answer,
        is_exact=is_exact,
        before=trace.answer,
        after=text,
        removed=tuple(span for span in old if span not in new),
        added=tuple(span for span in new if span not in old),
        reasons=tuple(reasons),
    )


def parse_changes(pairs: Sequence[str]) -> dict[str, str]:
    """Read ``name=value`` pairs.

    Raises:
        InvalidInputError: no such name, or no value.
    """
    changes = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or name not in _READERS:
            known = ", ".join(_READERS)
            raise InvalidInputError("with", f"{pair!r} is no change; write NAME=VALUE of: {known}")
        changes[name] = value
    return changes


def _is_whole(trace: Trace, chain: AskChain) -> bool:
    is_chat = isinstance(chain.answerer, ChatModelAnswerer)
    return len(trace.passages) == len(trace.spans) and (trace.prompt is not None or not is_chat)


def _again(chain: AskChain, trace: Trace, question: Question) -> str:
    """Write the answer again from the stored passages."""
    answerer = chain.answerer
    bases = chain.retriever.known_bases((trace.request or {}).get("kbs", ()))
    if isinstance(answerer, ChatModelAnswerer):
        assert trace.prompt is not None
        return chain.cited(answerer.resend(trace.prompt), trace.passages, bases)[0]
    worded = replace(question, text=trace.rewritten or question.text)
    for event in answerer.answer(worded, trace.passages):
        if isinstance(event, Drafted):
            return chain.cited(event.draft, trace.passages, bases)[0]
    raise KBError("the answerer ended without an answer")


def _changed(question: Question, changes: Mapping[str, str]) -> Question:
    values: dict[str, Any] = {}
    for name, text in changes.items():
        try:
            values[name] = _READERS[name](text)
        except ValueError as exc:
            raise InvalidInputError("with", f"{name}={text!r} is no number") from exc
    if values.get("channel", "hybrid") not in ("hybrid", "dense", "lexical"):
        raise InvalidInputError("with", "channel is hybrid, dense or lexical")
    wanted = replace(
        question.filter,
        **{
            _FILTERS.get(name, name): values[name]
            for name in (*_FILTERS, "since", "until")
            if name in values
        },
    )
    return replace(
        question,
        text=values.get("question", question.text),
        top_k=values.get("top_k", question.top_k),
        channel=values.get("channel", question.channel),
        kbs=values.get("kb", question.kbs),
        seed=values.get("seed", question.seed),
        filter=wanted,
    )


def _reasons(trace: Trace) -> list[str]:
    """Say what has changed since that may make another answer."""
    reasons = []
    for span in trace.spans:
        if not span.is_kept:
            reasons.append(
                f"{span.document or 'a document'} has changed, and its text of then is not kept"
            )
        elif not span.is_current:
            reasons.append(f"{span.document} has changed since")
    software = (trace.request or {}).get("software", {})
    if software.get("kb") != version("local-kb"):
        reasons.append(f"it was answered by version {software.get('kb')} of this program")
    if trace.prompt is None and trace.model != "extractive" and not trace.refused:
        reasons.append("the prompt cannot be put together as it was sent")
    if trace.prompt is not None and trace.prompt.seed is None:
        reasons.append("the model takes no seed, so it may write otherwise each time")
    return list(dict.fromkeys(reasons))


def _sampling_reasons(trace: Trace, chain: AskChain) -> list[str]:
    """Say which settings of the sampling are others now; only the seed is sent again."""
    if trace.prompt is None or not isinstance(chain.answerer, ChatModelAnswerer):
        return []
    old, new = trace.prompt.sampling, chain.answerer.sampling
    return [
        f"{name} was {old.get(name, 'the default')}, it is {new.get(name, 'the default')} now"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _spans_of(trace: Trace) -> list[str]:
    shown = (trace.request or {}).get("shown", {})
    return [
        f"{shown.get(str(s.number), {}).get('document', s.document)}:{s.start}-{s.end}"
        for s in trace.spans
    ]


def _span(passage: Passage) -> str:
    chunk = passage.hit.chunk
    return f"{passage.hit.document}:{chunk.start}-{chunk.end}"
