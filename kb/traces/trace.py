"""What is kept of an answer: enough to show how it was made, and to make it again.

Passages are kept as references to spans of document versions, never as text: in the prompt, too,
each block that shows a passage is a reference, and the whole is checked by its hash when it is put
together again. What else may hold a document's text (the history, the rewritten question) goes
when that document goes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kb.errors import StorageError
from kb.prompt import render_passage
from kb.records import Candidate, Filter, Passage, Prompt, Question, Turn


@dataclass(frozen=True, slots=True)
class Details:
    """What the chain knows of an answer beside the answer itself.

    `looked_up` is the question as it was searched for, `history` as the caller gave it.
    `software` names versions: of this program, of the answerer, and of each base's parts.
    """

    question: Question
    looked_up: Question
    candidates: tuple[Candidate, ...] = ()
    prompt: Prompt | None = None
    threshold: float = 0.0
    software: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredSpan:
    """A span of a document version that was shown or cited; `document` is "" once it is gone."""

    number: int
    document_id: str
    document: str
    kb: str
    version_id: int
    start: int
    end: int
    is_current: bool
    is_kept: bool

    def to_dict(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "document_id": self.document_id,
            "document": self.document,
            "kb": self.kb,
            "version_id": self.version_id,
            "start": self.start,
            "end": self.end,
            "superseded": not self.is_current,
            "kept": self.is_kept,
        }


@dataclass(frozen=True, slots=True)
class Trace:
    """A stored answer. `request` is None where it was redacted or stored before there was one.

    `passages` are in the order of the answer's markers; `prompt` is whole, None where no chat
    model was asked or a text that it showed is no longer kept.
    """

    id: str
    question: str
    rewritten: str | None
    answer: str
    refused: bool
    support: float
    model: str
    timings: Mapping[str, Any]
    is_redacted: bool
    created_at: str
    answer_span: str | None
    request: Mapping[str, Any] | None
    candidates: tuple[Mapping[str, Any], ...]
    passages: tuple[Passage, ...]
    spans: tuple[StoredSpan, ...]
    citations: tuple[StoredSpan, ...]
    history: tuple[Turn, ...]
    prompt: Prompt | None

    def to_dict(self) -> dict[str, Any]:
        prompt = self.prompt
        return {
            "trace_id": self.id,
            "question": self.question,
            "rewritten": self.rewritten,
            "answer": self.answer,
            "refused": self.refused,
            "support": round(self.support, 4),
            "model": self.model,
            "timings": dict(self.timings),
            "redacted": self.is_redacted,
            "created_at": self.created_at,
            "request": dict(self.request) if self.request is not None else None,
            "candidates": [dict(each) for each in self.candidates],
            "passages": [span.to_dict() for span in self.spans],
            "citations": [span.to_dict() for span in self.citations],
            "prompt": prompt
            and {
                "messages": [{"role": role, "text": text} for role, text in prompt.messages],
                "passages": list(prompt.passages),
                "sampling": dict(prompt.sampling),
                "seed": prompt.seed,
            },
        }


def request_of(details: Details) -> dict[str, Any]:
    """Return the parameters of a question as they are stored, without history."""
    question = details.looked_up
    wanted = question.filter
    return {
        "kbs": list(question.kbs),
        "top_k": question.top_k,
        "channel": question.channel,
        "filter": {
            "documents": list(wanted.documents),
            "folder": wanted.folder,
            "types": list(wanted.types),
            "since": wanted.since,
            "until": wanted.until,
        },
        "threshold": details.threshold,
        "seed": details.prompt.seed if details.prompt else None,
        "sampling": dict(details.prompt.sampling) if details.prompt else {},
        "software": dict(details.software),
    }


def question_of(trace: Trace) -> Question:
    """Return the question that a stored answer was asked, in the user's words.

    Raises:
        StorageError: what is stored of it has another form.
    """
    try:
        return _question(trace, trace.request or {})
    except (KeyError, TypeError, AttributeError) as exc:
        raise StorageError(
            f"the record of answer {trace.id} is damaged; it cannot be made again"
        ) from exc


def _question(trace: Trace, request: Mapping[str, Any]) -> Question:
    wanted = request["filter"]
    return Question(
        text=trace.question,
        kbs=tuple(request["kbs"]),
        top_k=request["top_k"],
        channel=request["channel"],
        history=trace.history,
        filter=Filter(
            documents=tuple(wanted["documents"]),
            folder=wanted["folder"],
            types=tuple(wanted["types"]),
            since=wanted["since"],
            until=wanted["until"],
        ),
        seed=request["seed"],
    )


def folded(prompt: Prompt, passages: Sequence[Passage]) -> dict[str, Any]:
    """Return a prompt for storage: every block that shows a passage becomes its number."""
    blocks = {p.number: render_passage(p) for p in passages if p.number in prompt.passages}
    messages = []
    for role, text in prompt.messages:
        parts: list[str | int] = [text]
        for number, block in blocks.items():
            before, found, after = str(parts[-1]).partition(block)
            if found:
                parts[-1:] = [before, number, after]
        messages.append([role, parts])
    return {
        "messages": messages,
        "passages": list(prompt.passages),
        "sampling": dict(prompt.sampling),
        "seed": prompt.seed,
        "sha256": _digest(prompt.messages),
    }


def unfolded(stored: Mapping[str, Any], passages: Sequence[Passage]) -> Prompt | None:
    """Put a stored prompt together; None where it would not be what was sent, to the letter."""
    blocks = {passage.number: render_passage(passage) for passage in passages}
    messages = []
    for role, parts in stored["messages"]:
        pieces = [blocks.get(part) if isinstance(part, int) else part for part in parts]
        if None in pieces:
            return None
        messages.append((role, "".join(str(piece) for piece in pieces)))
    if _digest(messages) != stored["sha256"]:
        return None
    return Prompt(
        messages=tuple(messages),
        passages=tuple(stored["passages"]),
        sampling=stored["sampling"],
        seed=stored["seed"],
    )


def _digest(messages: Sequence[tuple[str, str]]) -> str:
    text = json.dumps([list(message) for message in messages], ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
