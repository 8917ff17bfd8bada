"""The three seams that may have more than one implementation.

Everything else exists once. Index, full text and `Answerer` have contract tests that every
implementation passes; `ChatModelAnswerer` is what a chat model can do beyond
answering. (The embedder's seam is LangChain's `Embeddings`; see `kb/embedder.py`.)
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from langchain_core.messages import BaseMessage

from kb.records import AnswerEvent, Draft, Passage, Prompt, Question

Vectors = npt.NDArray[np.float32]
ChunkIds = npt.NDArray[np.int64]


class VectorIndex(Protocol):
    """Nearest neighbours by inner product over chunk ids. Not thread-safe; its owner locks."""

    def __len__(self) -> int: ...

    def add(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Add chunks; `vectors` is (N, E) float32, unit rows; an id present is replaced."""

    def remove(self, ids: Sequence[int]) -> None:
        """Forget chunks; unknown ids are ignored."""

    def search(
        self, vector: Vectors, top_k: int, allowed: ChunkIds | None = None
    ) -> list[tuple[int, float]]:
        """Return ``(chunk_id, cosine)`` best first; at most `top_k`; `vector` is (E,).

        Only chunks of `allowed` are found, where that is given.
        """


class Lexical(Protocol):
    """Full-text search inside one knowledge base, in the database's own transaction."""

    def add(self, rows: Sequence[tuple[int, str, str]]) -> None:
        """Index ``(chunk_id, heading, text)`` rows."""

    def remove(self, chunk_ids: Sequence[int]) -> None:
        """Forget chunks; unknown ids are ignored."""

    def search(
        self, query: str, top_k: int, *, allowed: ChunkIds | None = None
    ) -> list[tuple[int, float]]:
        """Return ``(chunk_id, score)`` best first, score >= 0, higher is better.

        Only chunks of `allowed` are found, where that is given.
        """


class Answerer(Protocol):
    """Turns passages into an answer."""

    @property
    def model(self) -> str:
        """The name shown to the user."""

    def answer(self, question: Question, passages: Sequence[Passage]) -> Iterator[AnswerEvent]:
        """Yield Token events, then one Drafted. Never called on a refusal.

        Raises:
            AnswererError: the model failed or cannot be reached.
        """


@runtime_checkable
class ChatModelAnswerer(Answerer, Protocol):
    """An answerer with a chat model behind it: reads history, can word other things too."""

    @property
    def sampling(self) -> Mapping[str, Any]:
        """The settings that decide the next token, beside the seed."""

    def complete(self, messages: Sequence[BaseMessage], max_tokens: int) -> str:
        """Return the completion of a conversation, greedy.

        Raises:
            AnswererError: the model failed or cannot be reached.
        """

    def fitting(self, question: Question, passages: Sequence[Passage]) -> list[Passage]:
        """Return the passages that the prompt has room for."""

    def resend(self, prompt: Prompt) -> Draft:
        """Send a prompt again as it was sent, with its seed.

        Raises:
            AnswererError: the model failed or cannot be reached.
        """
