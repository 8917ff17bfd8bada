"""The embedder's seam: LangChain's `Embeddings` plus the record that a knowledge base pins.

The default implementation, with torch, is `ingest.embedder`; `from_langchain` puts any
LangChain embedder into our pipeline.
"""

import hashlib
import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
from langchain_core.embeddings import Embeddings

from kb.errors import EmbedderError
from kb.protocols import Vectors
from kb.records import EmbedderSpec

logger = logging.getLogger(__name__)


class Embedder(Embeddings):
    """Turns text into unit vectors. `spec` can be read without loading any weights."""

    spec: EmbedderSpec

    @abstractmethod
    def embed_array(self, texts: Sequence[str]) -> Vectors:
        """Return (N, E) float32 rows of length 1, in the order of `texts`.

        Raises:
            EmbedderError: the weights cannot be loaded or are not the pinned ones.
        """

    def matching(self, spec: EmbedderSpec) -> "Embedder | None":
        """Return the embedder whose vectors compare with those that `spec` describes.

        That is this one or another form of it; None if it has none such.
        """
        return self if spec.identity == self.spec.identity else None

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[float(x) for x in row] for row in self.embed_array(texts)]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


class LangChainEmbedder(Embedder):
    """Any LangChain embedder in our pipeline; the caller states what it is."""

    def __init__(self, embeddings: Embeddings, spec: EmbedderSpec) -> None:
        self._embeddings = embeddings
        self.spec = spec

    def embed_array(self, texts: Sequence[str]) -> Vectors:
        return self._rows(lambda: self._embeddings.embed_documents(list(texts)), len(texts))

    def embed_query(self, text: str) -> list[float]:
        row = self._rows(lambda: [self._embeddings.embed_query(text)], 1)
        return [float(x) for x in row[0]]

    def _rows(self, embed: Callable[[], list[list[float]]], n_rows: int) -> Vectors:
        if not n_rows:
            return np.zeros((0, self.spec.dimension), np.float32)
        try:
            rows = np.asarray(embed(), dtype=np.float32)
        except Exception as exc:  # another library's, with errors of its own
            # Its message may quote what was embedded.
            logger.warning("the embedder %s failed", self.spec.name, exc_info=True)
            raise EmbedderError(
                f"the embedder {self.spec.name!r} failed ({type(exc).__name__}); is its server "
                "running and its address right?"
            ) from exc
        if rows.shape != (n_rows, self.spec.dimension):
            raise EmbedderError(
                f"{self.spec.name} gave vectors of the shape {rows.shape}, not "
                f"{(n_rows, self.spec.dimension)}"
            )
        return unit_rows(rows)


def unit_rows(rows: Vectors) -> Vectors:
    """Scale (N, E) rows to length 1; a zero row stays zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms == 0, 1, norms)).astype(np.float32)


def embedded_text(heading: str, text: str) -> str:
    """Return the exact string that is embedded for a chunk: heading path, then text."""
    body = text.strip()
    return f"{heading}\n{body}" if heading else body


def text_hash(embedded: str) -> bytes:
    """Return the key under which a string's vector is stored: SHA-256 of its UTF-8 bytes."""
    return hashlib.sha256(embedded.encode("utf-8")).digest()
