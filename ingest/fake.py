"""A small embedder without weights, for tests and for trying things offline.

It hashes words and character pairs into a unit vector, so that texts with words in common are
near each other. It passes the same contract suite as the real one and knows every script.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kb.embedder import Embedder, unit_rows
from kb.protocols import Vectors
from kb.records import EmbedderSpec

_DIMENSION = 64


class FakeEmbedder(Embedder):
    """Deterministic and fast. `n_texts` counts the texts embedded so far.

    With another `dimension` it is another embedder; each finds all of them as `matching`.
    """

    spec = EmbedderSpec(
        name="fake", identity="fake/1", dimension=_DIMENSION, scripts=frozenset({"Latn", "Hani"})
    )

    def __init__(self, dimension: int = _DIMENSION) -> None:
        self.n_texts = 0
        if dimension != _DIMENSION:
            self.spec = replace(self.spec, identity=f"fake/1/{dimension}", dimension=dimension)

    def matching(self, spec: EmbedderSpec) -> Embedder | None:
        if spec.identity == self.spec.identity:
            return self
        other = FakeEmbedder(spec.dimension)
        return other if other.spec.identity == spec.identity else None

    def embed_array(self, texts: Sequence[str]) -> Vectors:
        self.n_texts += len(texts)
        dimension = self.spec.dimension
        rows = np.zeros((len(texts), dimension), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for token in re.findall(r"[a-z0-9]+|[^\W\d_a-zA-Z]{1,2}", text.lower()):
                digest = hashlib.blake2b(token.encode(), digest_size=4).digest()
                bucket = int.from_bytes(digest, "little")
                row[bucket % dimension] += 1.0 if bucket & 1024 else -1.0
            if not row.any():
                row[0] = 1.0
        return unit_rows(rows)
