"""How similar sentences are, by the embedder of a knowledge base.

For what shares no words though it says the same: a paraphrase, or another language. Cosines of
two embedders do not compare, not even by size: what one gives to strangers, another gives to
twins. So a cosine is judged by its margin over those of everything else at hand.
"""

import logging
from collections.abc import Sequence

import numpy as np

from kb.embedder import Embedder
from kb.errors import EmbedderError
from kb.protocols import Vectors
from kb.retrieval.fusion import knows_scripts

logger = logging.getLogger(__name__)


class SentenceSimilarity:
    """Compares sentences in vectors of one embedder; keeps these, so make one for each answer."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: dict[str, Vectors] = {}

    def cosines(self, sentence: str, others: Sequence[str]) -> list[float | None]:
        """Return the cosine of `sentence` with each of `others`, in [-1, 1].

        None for one in a script that the embedder does not know; for all of them if it does not
        know that of `sentence`, or cannot be used.
        """
        scripts = self._embedder.spec.scripts
        if not knows_scripts(sentence, scripts):
            return [None] * len(others)
        known = {text for text in others if knows_scripts(text, scripts)}
        missing = [text for text in {sentence, *known} if text not in self._vectors]
        try:
            if missing:
                rows = self._embedder.embed_array(missing)
                self._vectors.update(zip(missing, rows, strict=True))
        except EmbedderError as exc:
            logger.warning("sentences are compared by their words alone: %s", exc)
            return [None] * len(others)
        vector = self._vectors[sentence]
        found = {text: float(np.dot(self._vectors[text], vector)) for text in known}
        return [found.get(text) for text in others]


def relative_margin(best: float, cosines: Sequence[float]) -> float:
    """Return how far `best` stands above the median of `cosines`, of which there must be some.

    1 is as far as a cosine can stand; below the median it is negative.
    """
    median = float(np.median(cosines))
    return (best - median) / max(1 - median, 1e-6)
