"""Generation: prefill and decode as small functions, and the one thread that runs them.

`Engine.submit` checks a request before any work and queues it; the engine's thread serves one
request after the other and puts tokens into the request's queue; the caller iterates over the
request and may cancel it at any time. Serving several requests at once would change
`_serve` and nothing outside this file.

The thread is the only one that touches the model and the cache, so neither needs a lock.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import torch

from llm.errors import GenerationError, LlmError, NotEnoughMemoryError, PromptTooLongError
from llm.kv_cache import KVCache, KVForm, kv_bytes
from llm.memory import available_bytes
from llm.model import Cancelled, Model, never
from llm.sampler import SamplingParams, choose, is_looping, make_generator

logger = logging.getLogger(__name__)

# Prompt tokens per pass: bounds the memory of activations. Each pass expands all int4 weights once,
# which larger passes spread over more tokens.
PREFILL_TOKENS = 1024
_CACHE_STEP = 256  # caches are allocated in steps of this many tokens

FinishReason = Literal["stop", "length", "cancelled", "loop"]


@dataclass(frozen=True, slots=True)
class NewToken:
    token_id: int


@dataclass(frozen=True, slots=True)
class Finished:
    """How a request ended, and what it took.

    `prefill_s` is the time to the first token's logits without waiting in the queue, `decode_s`
    the time of all later steps; in seconds.
    """

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    prefill_s: float
    decode_s: float


class Request:
    """One prompt on its way; iterate for NewToken events and one Finished."""

    def __init__(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        stop_ids: frozenset[int],
        is_cancelled: Callable[[], bool] = never,
    ) -> None:
        self.prompt_ids = tuple(prompt_ids)
        self.params = params
        self.stop_ids = stop_ids
        self._events: queue.SimpleQueue[NewToken | Finished | BaseException] = queue.SimpleQueue()
        self._is_cancelled = threading.Event()
        self._asked = is_cancelled
        self._is_over = False

    def cancel(self) -> None:
        """Ask the engine to stop: it does before the next token or the prompt's next layer.

        May be called twice, and from any thread.
        """
        self._is_cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        return self._is_cancelled.is_set() or self._asked()

    def put(self, event: NewToken | Finished | BaseException) -> None:
        self._events.put(event)

    def __iter__(self) -> Iterator[NewToken | Finished]:
        """Yield events as they come.

        Leaving the loop early cancels the request.

        Raises:
            LlmError: generation failed.
        """
        try:
            while not self._is_over:
                event = self._events.get()
                self._is_over = not isinstance(event, NewToken)
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            self.cancel()


class Engine:
    """Owns a model, its cache and the thread that uses them. Close it, or use `with`."""

    def __init__(
        self,
        model: Model,
        *,
        context_window: int | None = None,
        n_token_ids: int | None = None,
        kv_form: KVForm = "model",
        threads: int = 0,
    ) -> None:
        """Keep the model; the thread starts with the first request.

        Args:
            model: loaded.
            context_window: tokens of prompt and completion together; default is the model's.
            n_token_ids: ids below this may be generated; default all. Embedding tables are
                padded beyond the tokenizer's vocabulary.
            kv_form: how keys and values are kept.
            threads: for computing, at most the cores there are; 0 leaves torch's number.
        """
        self.model = model
        self.context_window = context_window or model.config.context_window
        self._n_token_ids = n_token_ids or model.config.vocab_size
        self._kv_form: KVForm = kv_form
        self._threads = threads
        self._cache: KVCache | None = None
        self._queue: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards starting and closing the thread, and `_live`
        self._live: set[Request] = set()  # queued or running
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what runs and what waits, then stop the thread. May be called twice."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
            for request in self._live:
                request.cancel()
            if thread is not None:
                self._queue.put(None)
        if thread is not None:
            thread.join()

    def kv_bytes(self, n_tokens: int) -> int:
        """Return the bytes that a request of `n_tokens` in all needs for keys and values."""
        value_bytes = torch.tensor([], dtype=self.model.dtype).element_size()
        rounded = -(-n_tokens // _CACHE_STEP) * _CACHE_STEP
        return kv_bytes(self.model.config, rounded, form=self._kv_form, value_bytes=value_bytes)

    def submit(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        stop_ids: frozenset[int] = frozenset(),
        is_cancelled: Callable[[], bool] = never,
    ) -> Request:
        """Check a request and queue it.

        Args:
            prompt_ids: at least one.
            params: how to choose tokens.
            stop_ids: tokens that end the completion.
            is_cancelled: asked before each token and each layer of the prompt, in the engine's
                thread; True ends the request as `Request.cancel` does. For a caller that waits
                for the first token and cannot call anything meanwhile.

        Raises:
            PromptTooLongError: the prompt fills the context window.
            NotEnoughMemoryError: its keys and values would not fit.
            GenerationError: an empty prompt or ids the model has not; or the engine is closed.
        """
        self._admit(prompt_ids, params)
        request = Request(prompt_ids, params, stop_ids, is_cancelled)
        with self._lock:
            if self._is_closed:
                raise GenerationError("the model has been closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="llm-engine", daemon=True)
                self._thread.start()
            self._live.add(request)
            self._queue.put(request)
        return request

    def _admit(self, prompt_ids: Sequence[int], params: SamplingParams) -> None:
        if not prompt_ids:
            raise GenerationError("the prompt is empty")
        if not 0 <= min(prompt_ids) <= max(prompt_ids) < self.model.config.vocab_size:
            raise GenerationError(
                f"the prompt has token ids outside 0 to {self.model.config.vocab_size - 1}"
            )
        if len(prompt_ids) >= self.context_window:
            raise PromptTooLongError(
                f"the prompt has {len(prompt_ids):,} tokens, the context window "
                f"{self.context_window:,}; shorten the prompt or raise the window"
            )
        needed = self.kv_bytes(self._room(len(prompt_ids), params))
        held = self._cache.size_bytes if self._cache is not None else 0
        if needed > held and needed - held > available_bytes(self.model.device):
            raise NotEnoughMemoryError(
                f"keys and values of this request need {needed / 2**30:.2f} GB, and "
                f"{available_bytes(self.model.device) / 2**30:.2f} GB are free; ask for fewer "
                "tokens, or keep them as int8"
            )

    def _room(self, prompt_tokens: int, params: SamplingParams) -> int:
        """Return the tokens a request may hold at its end."""
        return min(prompt_tokens + params.max_new_tokens, self.context_window)

    def _run(self) -> None:
        if self._threads:
            torch.set_num_threads(min(self._threads, os.cpu_count() or 1))
        while (request := self._queue.get()) is not None:
            try:
                self._serve(request)
            except LlmError as exc:
                request.put(exc)
            except Exception as exc:  # the engine's thread must outlive any request
                logger.exception("a request failed")
                failure = GenerationError(f"generation failed: {type(exc).__name__}: {exc}")
                failure.__cause__ = exc
                request.put(failure)
            finally:
                with self._lock:
                    self._live.discard(request)

    def _serve(self, request: Request) -> None:
        """Run one request to its end."""
        params = request.params
        completion: list[int] = []
        reason: FinishReason = "cancelled"
        started = time.perf_counter()
        prefill_s = 0.0
        is_ready = False
        if not request.is_cancelled:
            room = self._room(len(request.prompt_ids), params)
            cache = self._cache_for(room)
            generator = make_generator(params)
            with suppress(Cancelled):
                logits = prefill(
                    self.model,
                    request.prompt_ids,
                    cache,
                    is_cancelled=lambda: request.is_cancelled,
                )
                is_ready = True
            prefill_s = time.perf_counter() - started
        while is_ready and not request.is_cancelled:
            token = choose(
                logits[: self._n_token_ids], params, completion=completion, generator=generator
            )
            if token in request.stop_ids:
                reason = "stop"
                break
            completion.append(token)
            request.put(NewToken(token))
            if len(completion) >= params.max_new_tokens or cache.length >= room:
                reason = "length"
                break
            if is_looping(completion):
                reason = "loop"
                break
            logits = decode(self.model, token, cache)
        request.put(
            Finished(
                reason=reason,
                prompt_tokens=len(request.prompt_ids),
                completion_tokens=len(completion),
                prefill_s=prefill_s,
                decode_s=time.perf_counter() - started - prefill_s,
            )
        )

    def _cache_for(self, n_tokens: int) -> KVCache:
        """Return an empty cache with room, the last one if it is large enough."""
        if self._cache is None or self._cache.max_tokens < n_tokens:
            self._cache = None  # free it before the next is allocated
            self._cache = KVCache(
                self.model.config,
                -(-n_tokens // _CACHE_STEP) * _CACHE_STEP,
                dtype=self.model.dtype,
                device=self.model.device,
                form=self._kv_form,
            )
        self._cache.reset()
        return self._cache


def prefill(
    model: Model,
    prompt_ids: Sequence[int],
    cache: KVCache,
    *,
    chunk_tokens: int = PREFILL_TOKENS,
    is_cancelled: Callable[[], bool] = never,
) -> torch.Tensor:
    """Run a prompt into the cache, in chunks where the model allows it.

    Args:
        model: any.
        prompt_ids: at least one.
        cache: with room for all of them.
        chunk_tokens: tokens per pass.
        is_cancelled: asked before each layer.

    Returns:
        Logits (V,) fp32 on the CPU for the token after the prompt.

    Raises:
        Cancelled: `is_cancelled` said so; the cache must be reset.
    """
    step = len(prompt_ids) if model.config.is_prefix_bidirectional else chunk_tokens
    hidden = None
    for first in range(0, len(prompt_ids), step):
        ids = torch.tensor(prompt_ids[first : first + step], device=model.device)
        hidden = model.forward(ids, cache, is_cancelled=is_cancelled)
    assert hidden is not None  # a prompt has at least one token
    return model.logits(hidden[-1:])[0].cpu()


def decode(model: Model, token_id: int, cache: KVCache) -> torch.Tensor:
    """Run one token after those in the cache; return logits (V,) fp32 on the CPU."""
    hidden = model.forward(torch.tensor([token_id], device=model.device), cache)
    return model.logits(hidden)[0].cpu()
