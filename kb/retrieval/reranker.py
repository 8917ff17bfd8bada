"""Cross-encoder reranking: a model reads question and chunk together and scores the pair.

Slower than both channels by far and better than either, so it reads only what they propose. Off
unless the setting `reranker` names a model's folder. Nothing is downloaded here, and no code that
comes with a model is run. The model is loaded at the first question.

Reference:
    Nogueira and Cho, "Passage Re-ranking with BERT", arXiv 1901.04085, 2019.
"""

import contextlib
import json
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kb.errors import ConfigError, RerankerError
from kb.models import checkpoint_folder

logger = logging.getLogger(__name__)

# Rerankers known by name, as the hub calls them. Others work from their folder.
KNOWN = {
    "bge-reranker-base": "BAAI/bge-reranker-base",
    "bge-reranker-large": "BAAI/bge-reranker-large",
    "bge-reranker-v2-m3": "BAAI/bge-reranker-v2-m3",
    "ms-marco-MiniLM-L6-v2": "cross-encoder/ms-marco-MiniLM-L6-v2",
}
# Question and chunk together; a chunk of ours has about 250 tokens. More is cut from the chunk.
MAX_TOKENS = 512
BATCH_SIZE = 8


class Reranker:
    """One cross-encoder, loaded at its first use. Safe to share between threads."""

    def __init__(self, name: str, home: Path) -> None:
        """Remember which; `name` is that of the setting. Nothing is opened yet."""
        self.name = name
        self._home = home
        self._lock = threading.Lock()  # a model serves one question at a time
        self._model: Any = None

    def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        """Return for each text how well it answers the question, in [0, 1].

        Raises:
            ConfigError: there is no such model.
            RerankerError: the model cannot be loaded or run.
        """
        if not texts:
            return []
        with self._lock:
            folder = find_reranker(self._home, self.name)
            try:
                self._model = self._model or _load(folder)
                scores = self._model.predict(
                    [(question, text) for text in texts],
                    batch_size=BATCH_SIZE,
                    show_progress_bar=False,
                )
            except Exception as exc:  # each library behind a checkpoint raises what it likes
                logger.warning("the reranker failed", exc_info=True)
                raise RerankerError(
                    f"the reranker in {str(folder)!r} cannot be used ({exc}); name another "
                    "with the setting reranker (KB_RERANKER), or none"
                ) from exc
        return [float(score) for score in scores]


def find_reranker(home: Path, name: str) -> Path:
    """Return the folder of the reranker that the setting names: its path, or its checkpoint.

    Raises:
        ConfigError: there is none; the message says how to get one.
    """
    hub_name = KNOWN.get(name, name)
    for folder in (checkpoint_folder(home, hub_name), Path(name)):
        with contextlib.suppress(OSError):  # too long for a path
            if (folder / "config.json").is_file():
                return folder
    known = ", ".join(KNOWN)
    raise ConfigError(
        f"the setting reranker (KB_RERANKER) names {name[:200]!r}, which is no folder with a "
        f"config.json; give the folder that has its published files, or put them in "
        f"{str(checkpoint_folder(home, hub_name))!r}. Known by name: {known}"
    )


def _load(folder: Path) -> Any:
    """Load a cross-encoder with one output, squashed to [0, 1]."""
    import torch
    from sentence_transformers import CrossEncoder

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    positions = config.get("max_position_embeddings") or MAX_TOKENS + 2
    model = CrossEncoder(
        str(folder),
        max_length=min(MAX_TOKENS, positions - 2),  # RoBERTa's kind counts from 2
        activation_fn=torch.nn.Sigmoid(),
        trust_remote_code=False,
        local_files_only=True,
    )
    labels = int(model.config.num_labels)
    if labels != 1:
        raise ValueError(f"it gives {labels} scores to a pair, where a reranker gives one")
    logger.info("loaded the reranker in %s", folder)
    return model
