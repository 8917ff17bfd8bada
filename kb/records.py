"""The frozen records that flow through the program, from a file to a cited answer.

Records hold data only. `to_dict` methods, where present, give the JSON contracts of the
command line and the HTTP API; fields may be added there, never renamed.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Channel = Literal["hybrid", "dense", "lexical"]
DocumentStatus = Literal["ready", "empty", "failed"]
# Text that no reader sees, and characters likewise: left out. Passages that speak to a model,
# marks of a role in its prompt, and parts that a program does not show at first: kept.
FlagKind = Literal[
    "invisible_text", "invisible_characters", "instruction", "role_marker", "hidden_part"
]


@dataclass(frozen=True, slots=True)
class EmbedderSpec:
    """What a knowledge base must know of its embedder without loading it.

    `identity` names weights, precision and settings; vectors of two identities never mix.
    `scripts` are ISO 15924 codes of the scripts the embedder was trained on.
    """

    name: str
    identity: str
    dimension: int
    scripts: frozenset[str]


@dataclass(frozen=True, slots=True)
class KnowledgeBase:
    """A named set of documents with one embedder and one index."""

    id: str
    name: str
    embedder_id: int
    embedder: EmbedderSpec
    splitter: str
    fulltext: str
    support_threshold: float
    created_at: str
    # Weights of the channels ``dense`` and ``lexical``, >= 0, as measured for this base; None for
    # those of `kb.retrieval.fusion`.
    channel_weights: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Where documents come from: one folder root, or `upload`.

    `root` is an absolute path for a folder and "" for uploads; `label` is the folder as the
    user gave it, used for display.
    """

    id: str
    kb_id: str
    kind: Literal["folder", "upload"]
    root: str
    label: str


@dataclass(frozen=True, slots=True)
class Flag:
    """What the owner of a document should look at; see `FlagKind`.

    `detail` is a sentence: what was found, how much of it, and whether it was left out.
    """

    kind: FlagKind
    detail: str

    def to_dict(self) -> dict[str, str]:
        return {"kind": self.kind, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Document:
    """One source file: identity, state and size, without its text."""

    id: str
    kb_id: str
    source_id: str
    path: str
    name: str
    status: DocumentStatus
    error: str | None
    is_stale: bool
    content_hash: str | None
    version_id: int | None
    size_bytes: int
    n_chunks: int
    encoding: str | None
    encoding_guessed: bool
    updated_at: str
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading in a document: `start` is the character offset where its line begins."""

    start: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class LoadedDocument:
    """One file as clean text plus what the citation needs.

    `text` uses "\\n" line ends. `headings` and `pages` are ordered by offset; `pages[i]` is
    the offset at which page ``i + 1`` begins, empty where the format has no pages.
    `encoding` is the name of the text encoding, None for formats that have none of their own.
    `content_hash` is the SHA-256 of the bytes that were parsed, in hex. `notes` say what of the
    file is not in the text, for its owner; they are reported, not stored. `flags` are stored
    with the document.
    """

    text: str
    headings: tuple[Heading, ...]
    pages: tuple[int, ...]
    encoding: str | None
    encoding_guessed: bool
    loader: str
    content_hash: str
    size_bytes: int
    notes: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a document: ``text[start:end]``, with the heading path in force there."""

    start: int
    end: int
    heading: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stored contiguous piece of a document; ``document_text[start:end] == text``.

    `page` is the 1-based page on which the chunk begins, None where the format has none.
    `version_id` names the document version that the offsets refer to.
    """

    id: int
    kb_id: str
    document_id: str
    version_id: int
    position: int
    start: int
    end: int
    page: int | None
    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class ChannelScores:
    """What each retriever said of a hit; None where it did not find the chunk.

    `dense` is a cosine in [-1, 1]; `lexical` is BM25, >= 0, higher is better; `rerank` is the
    cross-encoder's score in [0, 1].
    """

    dense: float | None
    lexical: float | None
    rerank: float | None

    def to_dict(self) -> dict[str, float | None]:
        return {"dense": self.dense, "lexical": self.lexical, "rerank": self.rerank}


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Another document that says the same as a hit, which is shown once."""

    kb: str
    document_id: str
    document: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that a retriever found. `score` in [0, 1], higher is better; `rank` from 1.

    `also_in` are documents whose chunks were left out because they say the same.
    """

    rank: int
    score: float
    kb: str
    document: str
    chunk: Chunk
    channels: ChannelScores
    also_in: tuple[Duplicate, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "rank": self.rank,
            "score": round(self.score, 6),
            "kb": self.kb,
            "document_id": self.chunk.document_id,
            "document": self.document,
            "page": self.chunk.page,
            "start": self.chunk.start,
            "end": self.chunk.end,
            "heading": self.chunk.heading,
            "text": self.chunk.text,
            "channels": self.channels.to_dict(),
            "also_in": [asdict(each) for each in self.also_in],
        }


# Why a candidate was not shown: others were better, a better one says the same, its chunk was
# removed since the index was read, or the prompt had no room for it. "" for those that were shown.
DropReason = Literal["", "below_top_k", "duplicate", "gone", "prompt_budget"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk that the channels proposed, and what became of it.

    `score` in [0, 1] is what ordered the candidates. `dense`, `lexical` and `rerank` are the
    scores of `ChannelScores`; the ranks, from 1, are the chunk's places in each channel's own
    list. None where that channel did not find it. Of a chunk that is gone the document is "".
    """

    chunk_id: int
    document_id: str
    document: str
    start: int
    end: int
    score: float
    dense: float | None
    lexical: float | None
    rerank: float | None
    dense_rank: int | None
    lexical_rank: int | None
    dropped: DropReason

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Passage:
    """A hit as shown to the model or reader; `number` from 1 is what a marker ``[n]`` names.

    `pages` are the page starts of the whole document, so that a span inside the chunk can be
    given its own page.
    """

    number: int
    hit: Hit
    pages: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {"number": self.number, **self.hit.to_dict()}


@dataclass(frozen=True, slots=True)
class Citation:
    """An answer sentence tied to a span of a document.

    ``document_text[start:end] == quote`` always. `supported` is False when a number, date or
    quoted name of the answer sentence does not occur in the passage.
    """

    marker: str
    kb: str
    document_id: str
    document: str
    version_id: int
    page: int | None
    start: int
    end: int
    quote: str
    supported: bool

    def to_dict(self) -> dict[str, Any]:
        return {
            "marker": self.marker,
            "kb": self.kb,
            "document_id": self.document_id,
            "document": self.document,
            "page": self.page,
            "start": self.start,
            "end": self.end,
            "quote": self.quote,
            "supported": self.supported,
            "version_id": self.version_id,
        }


@dataclass(frozen=True, slots=True)
class AnswerSpan:
    """The shortest verbatim answer, with the index of the citation that holds it."""

    text: str
    citation: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts and times of one completion; zeros for the extractive answerer."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier question and its answer.

    `trace_id` names the stored answer, where the caller knows it; `short` is its short answer.
    """

    question: str
    answer: str
    trace_id: str = ""
    short: str = ""


# A page pasted into a question has about 3,000 characters.
MAX_QUESTION_CHARS = 10_000
# Far more than an answer can use; a program may want to list what there is.
MAX_TOP_K = 1000


@dataclass(frozen=True, slots=True)
class Filter:
    """Which documents a question is about; a document must fit every field that is given.

    `documents` are ids, paths or displayed names, any of them fits. `folder` is a folder as it is
    displayed, or a path inside a source; everything below it fits. `types` are file extensions,
    with or without the dot, in any case. `since` and `until` are days (``2024-03-05``, both
    included, UTC) on which the document's present text came into the knowledge base: the only
    date that we know of every document, and not the date of the file.
    """

    documents: tuple[str, ...] = ()
    folder: str = ""
    types: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What a user asks. `kbs` are names or ids; `top_k` passages are put to the answerer.

    `seed` is that of a chat model's sampling; None draws one.
    """

    text: str
    kbs: tuple[str, ...]
    top_k: int
    channel: Channel = "hybrid"
    history: tuple[Turn, ...] = ()
    filter: Filter = Filter()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """What a reader should know of how an answer was found; `detail` is a sentence."""

    kind: Literal["no_dense"]
    kb: str
    detail: str

    def to_dict(self) -> dict[str, str]:
        return {"kind": self.kind, "kb": self.kb, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Answer:
    """The whole reply to a question; `to_dict` is the contract of ``kb ask --json``.

    `rewritten` is the question as it was looked up, None where those are the user's own words.
    """

    text: str
    refused: bool
    support: float
    answer_span: AnswerSpan | None
    citations: tuple[Citation, ...]
    passages: tuple[Passage, ...]
    model: str
    timings: Mapping[str, float | int | None] = field(default_factory=dict)
    trace_id: str = ""
    is_cut_off: bool = False
    rewritten: str | None = None
    notices: tuple[Notice, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        span = self.answer_span
        return {
            "answer": self.text,
            "refused": self.refused,
            "support": round(self.support, 4),
            "answer_span": {"text": span.text, "citation": span.citation} if span else None,
            "citations": [citation.to_dict() for citation in self.citations],
            "passages": [passage.to_dict() for passage in self.passages],
            "model": self.model,
            "timings": dict(self.timings),
            "trace_id": self.trace_id,
            "cut_off": self.is_cut_off,
            "rewritten": self.rewritten,
            "notices": [notice.to_dict() for notice in self.notices],
        }


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a chat model was sent: ``(role, text)`` messages, and how it was to choose tokens.

    `passages` are the numbers of those that fitted in. `seed` is None for a model that takes none.
    """

    messages: tuple[tuple[str, str], ...]
    passages: tuple[int, ...]
    sampling: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """What an answerer made of the passages, before the server proves the citations.

    `quotes` are ``(passage_index, start, end, answer_sentence)`` with document offsets, for an
    answerer that knows its own sources; empty means that the server aligns the sentences.
    `is_cut_off` says that the model had reached its longest completion.
    """

    text: str
    answer_span: str | None
    quotes: tuple[tuple[int, int, int, str], ...]
    usage: Usage
    is_cut_off: bool = False
    prompt: Prompt | None = None


# What `Answerer.answer` and the chain yield, in this order: one Retrieved, any number of Token
# and, of chat models, Cited, then one Finished. A failure after the first event arrives as Failed.


@dataclass(frozen=True, slots=True)
class Retrieved:
    passages: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class Token:
    text: str


@dataclass(frozen=True, slots=True)
class Cited:
    """An early citation of a chat model's sentence, which ends at `end` of the text streamed.

    The citations of Finished replace it.
    """

    citation: Citation
    end: int


@dataclass(frozen=True, slots=True)
class Drafted:
    """An answerer's last event: the draft that the chain turns into a Finished."""

    draft: Draft


@dataclass(frozen=True, slots=True)
class Finished:
    answer: Answer


@dataclass(frozen=True, slots=True)
class Failed:
    type: str
    message: str


AnswerEvent = Retrieved | Token | Cited | Drafted | Finished | Failed


@dataclass(frozen=True, slots=True)
class FailedFile:
    path: str
    error: str


@dataclass(frozen=True, slots=True)
class FileNote:
    """What a reader of a file that was stored should know: see `LoadedDocument.notes`."""

    path: str
    note: str


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What one sync did; `to_dict` is the contract of ``kb ingest --json``."""

    kb: str
    added: int
    changed: int
    moved: int
    unchanged: int
    removed: int
    empty: tuple[str, ...]
    failed: tuple[FailedFile, ...]
    chunks_embedded: int
    chunks_reused: int
    chunks_removed: int
    seconds: float
    # Paths by what happened to them, for people and for the page.
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[FileNote, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "kb": self.kb,
            "added": self.added,
            "changed": self.changed,
            "moved": self.moved,
            "unchanged": self.unchanged,
            "removed": self.removed,
            "empty": [{"path": path} for path in self.empty],
            "failed": [{"path": file.path, "error": file.error} for file in self.failed],
            "chunks_embedded": self.chunks_embedded,
            "chunks_reused": self.chunks_reused,
            "chunks_removed": self.chunks_removed,
            "seconds": round(self.seconds, 3),
            "changes": {kind: list(paths) for kind, paths in self.changes.items()},
            "notes": [{"path": file.path, "note": file.note} for file in self.notes],
        }
