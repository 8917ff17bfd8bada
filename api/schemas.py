"""What clients send. What they get back is the records' own `to_dict` (see DESIGN: contracts).

Unknown fields are refused in our own bodies, so that a misspelt option is never ignored in
silence. The bodies that other programs define (OpenAI's and ChatGLM's) carry options that mean
nothing here, such as `temperature` for quoted sentences; those are accepted and ignored.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from kb.records import (
    MAX_QUESTION_CHARS,
    MAX_TOP_K,
    Channel,
    Document,
    Filter,
    KnowledgeBase,
    Source,
    Turn,
)
from kb.storage.bases import BaseCounts
from kb.storage.feedback import MAX_COMMENT_CHARS, Rating

MAX_TURN_CHARS = 100_000
MAX_TURNS = 100
MAX_BASES = 100


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


QuestionText = Annotated[str, Field(max_length=MAX_QUESTION_CHARS), AfterValidator(_not_blank)]
TurnText = Annotated[str, Field(max_length=MAX_TURN_CHARS)]
TopK = Annotated[int, Field(ge=1, le=MAX_TOP_K)]


class _Body(BaseModel):
    # Strict: "5" is no number and true is no 1.
    model_config = ConfigDict(extra="forbid", strict=True)


class _ForeignBody(BaseModel):
    model_config = ConfigDict(extra="ignore")


class CreateBaseBody(_Body):
    name: str


class ChangeBaseBody(_Body):
    name: str | None = None
    # Not strict: JSON writes 1.0 as 1.
    support_threshold: Annotated[float | None, Field(ge=0, le=1, strict=False)] = None


class TurnBody(_Body):
    question: TurnText
    answer: TurnText
    trace_id: Annotated[str, Field(max_length=64)] = ""

    def to_turn(self) -> Turn:
        return Turn(question=self.question, answer=self.answer, trace_id=self.trace_id)


Name = Annotated[str, Field(max_length=4096)]


class FilterBody(_Body):
    """Which documents a question is about; see `kb.records.Filter`."""

    documents: Annotated[list[Name], Field(max_length=100)] = []
    folder: Name = ""
    types: Annotated[list[Annotated[str, Field(max_length=32)]], Field(max_length=50)] = []
    since: Annotated[str, Field(max_length=32)] | None = None
    until: Annotated[str, Field(max_length=32)] | None = None

    def to_filter(self) -> Filter:
        return Filter(
            documents=tuple(self.documents),
            folder=self.folder,
            types=tuple(self.types),
            since=self.since,
            until=self.until,
        )


class SearchBody(_Body):
    question: QuestionText
    top_k: TopK | None = None
    channel: Channel = "hybrid"
    kbs: Annotated[list[str], Field(max_length=MAX_BASES)] = []
    filter: FilterBody = FilterBody()


class WhyBody(SearchBody):
    document: Name


class AskBody(SearchBody):
    history: Annotated[list[TurnBody], Field(max_length=MAX_TURNS)] = []
    stream: bool = False


class FeedbackBody(_Body):
    rating: Rating
    comment: Annotated[str, Field(max_length=MAX_COMMENT_CHARS)] = ""


class TextPart(_ForeignBody):
    """One part of a message's content; only text can be answered."""

    type: Literal["text"]
    text: TurnText


class ChatMessage(_ForeignBody):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: TurnText | list[TextPart] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(_ForeignBody):
    include_usage: bool = False


class ChatBody(_ForeignBody):
    """The part of OpenAI's chat completions request that means something here."""

    model: Annotated[str, Field(max_length=200)]
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=2 * MAX_TURNS + 2)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=1)] = 1
    # for the plain model; an answer from documents has its own settings
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=32768)] | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] = []


class GLMBody(_ForeignBody):
    """The body of ChatGLM's own `api.py`: pairs (ChatGLM 1 and 2) or messages (ChatGLM 3)."""

    prompt: QuestionText
    history: Annotated[
        list[Annotated[list[TurnText], Field(min_length=2, max_length=2)]] | list[ChatMessage],
        Field(max_length=2 * MAX_TURNS),
    ] = []
    kb: str = "default"


def base_json(base: KnowledgeBase, counts: BaseCounts) -> dict[str, Any]:
    return {
        "id": base.id,
        "name": base.name,
        "documents": counts.documents,
        "chunks": counts.chunks,
        "failed": counts.failed,
        "embedder": base.embedder.name,
        "support_threshold": base.support_threshold,
        "created_at": base.created_at,
    }


def document_json(document: Document, source: Source) -> dict[str, Any]:
    return {
        "id": document.id,
        "path": document.path,
        "name": document.name,
        "status": document.status,
        "error": document.error,
        "stale": document.is_stale,
        "size_bytes": document.size_bytes,
        "chunks": document.n_chunks,
        "encoding": document.encoding,
        "encoding_guessed": document.encoding_guessed,
        "updated_at": document.updated_at,
        "flags": [flag.to_dict() for flag in document.flags],
        "source": {"kind": source.kind, "label": source.label},
    }
