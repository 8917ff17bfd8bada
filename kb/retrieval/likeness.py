"""How alike sentences are, by the embedder of a knowledge base.

For what shares no words though it says the same: a paraphrase, or another language. Cosines of
two embedders do not compare, not even by size: what one gives to strangers, another gives to
twins. So a cosine is judged by how far it stands out from those of everything else at hand.
"""

import logging
from collections.abc import Sequence

import numpy as np

from kb.embedder import Embedder
from kb.errors import EmbedderError
from kb.protocols import Vectors
from kb.retrieval.fusion import knows_scripts

logger = logging.getLogger(__name__)


class Likeness:
    """Compares sentences in vectors of one embedder; keeps these, so make one for each answer."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: dict[str, Vectors] = {}

    def cosines(self, sentence: str, others: Sequence[str]) -> list[float] | None:
        """Return the cosine of `sentence` with each of `others`, in [-1, 1].

        0 for one in a script that the embedder does not know. None if it does not know that of
        `sentence`, or cannot be used.
        """
        scripts = self._embedder.spec.scripts
        if not knows_scripts(sentence, scripts):
            return None
        known = [text for text in dict.fromkeys(others) if knows_scripts(text, scripts)]
        missing = [text for text in (sentence, *known) if text not in self._vectors]
        try:
            if missing:
                rows = self._embedder.embed_array(missing)
                self._vectors.update(zip(missing, rows, strict=True))
        except EmbedderError as exc:
            logger.warning("sentences are compared by their words alone: %s", exc)
            return None
        vector = self._vectors[sentence]
        found = {text: float(np.dot(self._vectors[text], vector)) for text in known}
        return [found.get(text, 0.0) for text in others]


def standing_out(best: float, all_cosines: Sequence[float]) -> float:
    """Return how far `best` stands out from the median, 1 being as far as a cosine can."""
    median = float(np.median(all_cosines))
    return (best - median) / max(1 - median, 1e-6)
