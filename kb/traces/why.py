"""Say where a document fell out on its way to being shown for a question.

The steps of a search are looked at in their order: is it there, was it read, does it have chunks,
is it let through by the filter, does it share a word with the question, how far down do the
channels rank it, what did fusion make of that, was it a duplicate, did it reach `top_k`, did the
prompt have room. The first step that stopped it is the verdict.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy.orm import Session

from kb.errors import DocumentNotFoundError, KBError
from kb.protocols import ChatModelAnswerer
from kb.records import MAX_TOP_K, Candidate, Document, Question
from kb.retrieval.filters import allowed_chunks
from kb.retrieval.retrieve import Retrieval, Retriever, check_question
from kb.storage.bases import find_base
from kb.storage.database import Database
from kb.storage.documents import find_document, list_chunks, list_documents
from kb.text.terms import content_words, index_terms, query_terms

Verdict = Literal[
    "not_found",
    "failed",
    "empty",
    "no_chunks",
    "filtered",
    "no_shared_term",
    "below_candidates",
    "duplicate",
    "below_rerank",
    "below_top_k",
    "prompt_budget",
    "shown",
]
_NEAR_NAMES = 5


@dataclass(frozen=True, slots=True)
class Why:
    """The verdict: a sentence `detail`, and `remedy`, what would bring it in, "" where nothing.

    Ranks are those of the document's best chunk: in each channel, and after fusion among
    passages. `missing` are words of the question that the document does not hold.
    """

    verdict: Verdict
    detail: str
    remedy: str = ""
    document: str = ""
    near: tuple[str, ...] = ()
    dense_rank: int | None = None
    lexical_rank: int | None = None
    rank: int | None = None
    shared: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "detail": self.detail,
            "remedy": self.remedy,
            "document": self.document,
            "near": list(self.near),
            "dense_rank": self.dense_rank,
            "lexical_rank": self.lexical_rank,
            "rank": self.rank,
            "shared": list(self.shared),
            "missing": list(self.missing),
        }


def why(
    database: Database, retriever: Retriever, answerer: Any, question: Question, document: str
) -> Why:
    """Say what became of a document of the question's first base.

    Raises:
        KBError: the question itself cannot be searched for.
    """
    check_question(question)
    with database.read() as session:
        base = find_base(session, question.kbs[0])
        try:
            found = find_document(session, base, document)
        except DocumentNotFoundError:
            near = _near_names(session, base.id, document)
            detail = f"no document {document!r} in knowledge base {base.name!r}"
            remedy = "ingest it" + (f", or name one of: {', '.join(near)}" if near else "")
            return Why("not_found", detail, remedy, near=near)
        chunks = list_chunks(session, found)
        allowed = allowed_chunks(session, [base], question.filter)
    if unread := _unread(found, len(chunks)):
        return unread
    ids = {chunk.id for chunk in chunks}
    if allowed is not None and not ids & {int(id_) for id_ in allowed[base.id]}:
        detail = "the filter leaves this document out"
        return Why("filtered", detail, "widen or drop the filter", document=found.name)
    held = set(index_terms(" ".join(f"{c.heading} {c.text}" for c in chunks)).split())
    words = content_words(question.text) or query_terms(question.text)
    shared = tuple(word for word in words if set(index_terms(word).split()) & held)
    missing = tuple(word for word in words if word not in shared)
    facts = Why("shown", "", document=found.name, shared=shared, missing=missing)
    return _searched(retriever, answerer, question, ids, facts)


def _unread(document: Document, n_chunks: int) -> Why | None:
    if document.status == "failed":
        return Why(
            "failed",
            f"it could not be read: {document.error}",
            "mend the file and ingest it again with --retry-failed",
            document=document.name,
        )
    if document.status == "empty":
        return Why(
            "empty",
            "it holds no text that could be read",
            "a scan needs OCR (setting max_ocr_pages)",
            document=document.name,
        )
    if not n_chunks:
        return Why("no_chunks", "its text is not split", "kb verify --repair", document.name)
    return None


def _searched(
    retriever: Retriever, answerer: Any, question: Question, ids: set[int], facts: Why
) -> Why:
    usual = retriever.search(question)
    if place := _shown_at(usual, ids):
        return _in_prompt(answerer, question, usual, ids, place, facts)
    deep = retriever.search(replace(question, top_k=MAX_TOP_K))
    near = [each for each in usual.candidates if each.chunk_id in ids]
    far = [each for each in deep.candidates if each.chunk_id in ids]
    best = min(far or near, key=lambda each: -each.score, default=None)
    if best is None:
        return _not_proposed(facts)
    rank = _shown_at(deep, ids)
    facts = replace(
        facts,
        dense_rank=min((e.dense_rank for e in far if e.dense_rank), default=None),
        lexical_rank=min((e.lexical_rank for e in far if e.lexical_rank), default=None),
        rank=rank,
    )
    remedy = _remedy(retriever, question, ids, rank)
    where = f"dense rank {facts.dense_rank or '-'}, lexical rank {facts.lexical_rank or '-'}"
    # Past MAX_TOP_K passages nothing is compared any more, so no rank does not mean a duplicate.
    if all(e.dropped == "duplicate" for e in (near or far)) or (
        rank is None and any(e.dropped == "duplicate" for e in far)
    ):
        twin = _twin(near or far, usual)
        detail = f"a better ranked passage{twin} says the same, so it is not repeated"
        return replace(facts, verdict="duplicate", detail=detail, remedy="")
    if not near:
        detail = f"no channel ranks it among its first candidates ({where})"
        return replace(facts, verdict="below_candidates", detail=detail, remedy=remedy)
    if any(e.rerank is not None for e in near):
        detail = f"the reranker puts it below the first {question.top_k} ({where})"
        return replace(facts, verdict="below_rerank", detail=detail, remedy=remedy)
    spot = f"at rank {rank}" if rank else f"below the first {MAX_TOP_K:,}"
    detail = f"it comes out {spot} of all, below top_k={question.top_k} ({where})"
    return replace(facts, verdict="below_top_k", detail=detail, remedy=remedy)


def _in_prompt(
    answerer: Any, question: Question, found: Retrieval, ids: set[int], rank: int, facts: Why
) -> Why:
    facts = replace(facts, rank=rank)
    own = [each for each in found.candidates if each.chunk_id in ids and not each.dropped]
    facts = replace(
        facts,
        dense_rank=min((e.dense_rank for e in own if e.dense_rank), default=None),
        lexical_rank=min((e.lexical_rank for e in own if e.lexical_rank), default=None),
    )
    if isinstance(answerer, ChatModelAnswerer):
        kept = {p.hit.chunk.id for p in answerer.fitting(question, found.passages)}
        if not kept & ids:
            detail = f"it is found at rank {rank}, but the prompt has no room for it"
            # Passages fill the prompt by rank, so a smaller top_k makes no room for this one.
            remedy = "limit the question to it with a filter, or a larger KB_CONTEXT_TOKENS"
            return replace(facts, verdict="prompt_budget", detail=detail, remedy=remedy)
    return replace(facts, verdict="shown", detail=f"it is shown at rank {rank}")


def _not_proposed(facts: Why) -> Why:
    if not facts.shared and not facts.missing:
        detail = "the question has no word that could be looked up"
        return replace(facts, verdict="no_shared_term", detail=detail, remedy="ask in words")
    if not facts.shared:
        detail = f"it shares no word with the question ({', '.join(facts.missing)})"
        remedy = "ask in the document's words"
        return replace(facts, verdict="no_shared_term", detail=detail, remedy=remedy)
    detail = f"it is not among the best {MAX_TOP_K:,} of what the channels propose"
    if facts.missing:
        detail += f"; it lacks {', '.join(facts.missing)}"
    remedy = "limit the question to it with a filter, or ask in its words"
    return replace(facts, verdict="below_candidates", detail=detail, remedy=remedy)


def _remedy(retriever: Retriever, question: Question, ids: set[int], rank: int | None) -> str:
    """Return the smallest change that does bring the document in; each was tried."""
    tries = [replace(question, channel=c) for c in ("lexical", "dense") if c != question.channel]
    if rank is not None:
        tries.insert(0, replace(question, top_k=min(MAX_TOP_K, max(rank, question.top_k + 1))))
    for changed in tries:
        try:
            is_shown = _shown_at(retriever.search(changed), ids) is not None
        except KBError:  # a channel that cannot be used is no remedy
            continue
        if is_shown:
            if changed.top_k != question.top_k:
                return f"top_k={changed.top_k}"
            return f"channel={changed.channel}"
    return "limit the question to it with a filter"


def _shown_at(found: Retrieval, ids: set[int]) -> int | None:
    return next((hit.rank for hit in found.hits if hit.chunk.id in ids), None)


def _twin(own: Sequence[Candidate], found: Retrieval) -> str:
    better = [hit.document for hit in found.hits if any(hit.score >= e.score for e in own)]
    return f" ({better[0]})" if len(better) == 1 else ""


def _near_names(session: Session, kb_id: str, document: str) -> tuple[str, ...]:
    names = [found.name for found in list_documents(session, kb_id, limit=5000)[0]]
    last = document.rsplit("/", 1)[-1].casefold()
    held = [name for name in names if last and last in name.casefold()]
    short = {name.rsplit("/", 1)[-1].casefold(): name for name in names}
    close = [short[n] for n in difflib.get_close_matches(last, short, n=_NEAR_NAMES, cutoff=0.5)]
    return tuple(dict.fromkeys([*held, *close]))[:_NEAR_NAMES]
