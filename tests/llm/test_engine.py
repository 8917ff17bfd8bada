"""Requests: checked first, served in turn, cancelled between tokens, failing alone."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from llm.config import Generation
from llm.engine import Engine, Finished, NewToken, Request, prefill
from llm.errors import GenerationError, NotEnoughMemoryError, PromptTooLongError
from llm.kv_cache import KVCache, kv_bytes
from llm.linear import Linear
from llm.model import Cancelled, Model, MultiQueryModel
from llm.sampler import SamplingParams
from tests.llm import reference_v1
from tests.llm.models import build, random_parameters, small_config

GREEDY = SamplingParams(max_new_tokens=12, temperature=0)
PROMPT = [5, 9, 30, 2, 17, 44]


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(build(small_config(context_window=256))) as engine:
        yield engine


def tokens_of(request: Request) -> list[int]:
    return [event.token_id for event in request if isinstance(event, NewToken)]


def finished(request: Request) -> Finished:
    return next(event for event in request if isinstance(event, Finished))


def test_a_completion_and_what_it_took(engine: Engine) -> None:
    events = list(engine.submit(PROMPT, GREEDY))
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.reason, end.prompt_tokens, end.completion_tokens) == ("length", 6, 12)
    assert end.prefill_s > 0
    assert end.decode_s > 0
    assert len(events) == 13


@pytest.mark.parametrize("generation", ["chatglm", "chatglm2", "glm4"])
def test_greedy_is_the_uncached_argmax(generation: Generation) -> None:
    model = build(small_config(generation, context_window=256))
    with Engine(model) as engine:
        found = tokens_of(engine.submit(PROMPT, GREEDY))
    ids = list(PROMPT)
    for token in found:
        cache = KVCache(model.config, 64, dtype=torch.float32)
        arguments = {"context_length": len(PROMPT) - 1} if generation == "chatglm" else {}
        hidden = model.forward(torch.tensor(ids), cache, **arguments)
        assert int(model.logits(hidden[-1:])[0].argmax()) == token
        ids.append(token)


def test_stop_ids_end_it_and_are_not_given_out(engine: Engine) -> None:
    whole = tokens_of(engine.submit(PROMPT, GREEDY))
    request = engine.submit(PROMPT, GREEDY, stop_ids=frozenset({whole[4]}))
    events = list(request)
    assert [e.token_id for e in events if isinstance(e, NewToken)] == whole[: whole.index(whole[4])]
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "stop"


def test_the_context_window_ends_it(engine: Engine) -> None:
    params = SamplingParams(max_new_tokens=1000, temperature=5.0, top_k=0, top_p=1.0, seed=1)
    end = finished(engine.submit(list(range(50)), params))
    assert end.reason == "length"
    assert end.prompt_tokens + end.completion_tokens == 257  # the last one is not run again


def test_same_seed_same_tokens(engine: Engine) -> None:
    params = SamplingParams(max_new_tokens=30, temperature=1.5, seed=3)
    first, second = (tokens_of(engine.submit(PROMPT, params)) for _ in range(2))
    other = tokens_of(engine.submit(PROMPT, SamplingParams(max_new_tokens=30, temperature=1.5,
                                                           seed=4)))  # fmt: skip
    assert first == second != other


def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(engine: Engine) -> None:
    with pytest.raises(PromptTooLongError, match=r"256 tokens, the context window 256"):
        engine.submit([1] * 256, GREEDY)


@pytest.mark.parametrize("prompt", [[], [64], [-1]])
def test_ids_the_model_has_not_are_refused(engine: Engine, prompt: list[int]) -> None:
    with pytest.raises(GenerationError):
        engine.submit(prompt, GREEDY)


def test_too_little_memory_for_the_cache_is_said(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm.engine.available_bytes", lambda device: 1000)
    with pytest.raises(NotEnoughMemoryError, match=r"need .* GB, and 0\.00 GB are free"):
        engine.submit(PROMPT, GREEDY)


def test_leaving_the_loop_cancels(engine: Engine) -> None:
    long = SamplingParams(max_new_tokens=200, temperature=5.0, seed=1)
    for event in engine.submit(PROMPT, long):
        assert isinstance(event, NewToken)
        break
    # the engine is free for the next request, and gives what it always gives
    assert tokens_of(engine.submit(PROMPT, GREEDY)) == tokens_of(engine.submit(PROMPT, GREEDY))


def test_cancel_ends_within_a_token(engine: Engine) -> None:
    request = engine.submit(PROMPT, SamplingParams(max_new_tokens=200, temperature=5.0, seed=1))
    seen = 0
    for event in request:
        if isinstance(event, NewToken):
            seen += 1
            if seen == 3:
                request.cancel()
        else:
            assert event.reason == "cancelled"
            assert event.completion_tokens == seen < 200  # the engine may run ahead of this loop


def test_requests_wait_for_each_other(engine: Engine) -> None:
    expected = tokens_of(engine.submit(PROMPT, GREEDY))
    found: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: found.append(tokens_of(engine.submit(PROMPT, GREEDY))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8


def test_a_loop_is_ended(engine: Engine) -> None:
    class Stuck:
        def __init__(self, model: Model) -> None:
            self.config, self.dtype, self.device = model.config, model.dtype, model.device

        def forward(self, ids: torch.Tensor, cache: KVCache, **_: Any) -> torch.Tensor:
            cache.advance(len(ids))
            return torch.zeros(len(ids), 1)

        def logits(self, hidden: torch.Tensor) -> torch.Tensor:
            return torch.eye(64)[[7] * len(hidden)]

    with Engine(Stuck(engine.model), context_window=4096) as stuck:  # type: ignore[arg-type]
        end = finished(stuck.submit(PROMPT, SamplingParams(max_new_tokens=2000, temperature=0)))
    assert end.reason == "loop"
    assert end.completion_tokens < 200


def test_weights_with_nan_end_the_request_and_not_the_engine() -> None:
    config = small_config(context_window=256)
    values = random_parameters(config)
    values["embedding"][3] = float("nan")
    with Engine(build(config, values)) as engine:
        with pytest.raises(GenerationError, match="not finite"):
            tokens_of(engine.submit([1, 3, 5], GREEDY))
        assert len(tokens_of(engine.submit([1, 2, 5], GREEDY))) == 12


def test_an_error_inside_reaches_the_caller(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("no such kernel")

    with monkeypatch.context() as patched:
        patched.setattr(engine.model, "forward", broken)
        with pytest.raises(GenerationError, match="no such kernel"):
            tokens_of(engine.submit(PROMPT, GREEDY))
    assert "a request failed" in caplog.text
    assert len(tokens_of(engine.submit(PROMPT, GREEDY))) == 12


def test_closing_cancels_what_runs_and_what_waits() -> None:
    engine = Engine(build(small_config(context_window=4096)))
    endless = SamplingParams(max_new_tokens=4000, temperature=5.0, top_k=0, top_p=1.0, seed=1)
    requests = [engine.submit(PROMPT, endless) for _ in range(3)]
    engine.close()
    engine.close()
    assert {finished(request).reason for request in requests} == {"cancelled"}
    with pytest.raises(GenerationError, match="closed"):
        engine.submit(PROMPT, GREEDY)


def test_a_request_cancelled_while_waiting_costs_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    forward = engine.model.forward

    def counting(ids: torch.Tensor, cache: KVCache, **options: Any) -> torch.Tensor:
        seen.append(len(ids))
        return forward(ids, cache, **options)

    monkeypatch.setattr(engine.model, "forward", counting)
    first = engine.submit(PROMPT, SamplingParams(max_new_tokens=100, temperature=5.0, seed=1))
    second = engine.submit([7] * 33, GREEDY)
    second.cancel()
    assert finished(second).reason == "cancelled"
    tokens_of(first)
    assert 33 not in seen


@pytest.mark.parametrize("generation", ["chatglm", "chatglm3"])
def test_a_prompt_is_cancelled_between_layers_from_outside(generation: Generation) -> None:
    asked: list[None] = []

    def left() -> bool:
        asked.append(None)
        return len(asked) > 3  # queued, before layers 0 and 1; then the next

    with Engine(build(small_config(generation, n_layers=6, context_window=256))) as engine:
        end = list(engine.submit(PROMPT, GREEDY, is_cancelled=left))
        assert len(end) == 1
        assert isinstance(end[0], Finished)
        assert (end[0].reason, end[0].completion_tokens) == ("cancelled", 0)
        assert len(asked) == 4
        # the cache was left half filled; the next request does not notice
        assert len(tokens_of(engine.submit(PROMPT, GREEDY))) == 12


def test_cancel_from_another_thread_does_not_wait_for_the_first_token() -> None:
    reached, goes_on = threading.Event(), threading.Event()
    model = build(small_config(n_layers=6, context_window=256))
    assert isinstance(model, MultiQueryModel)
    seen: list[int] = []

    def watched(layer: int, linear: Linear) -> Linear:
        class Watched:
            form, size_bytes = linear.form, linear.size_bytes

            def __call__(self, x: torch.Tensor) -> torch.Tensor:
                seen.append(layer)
                if layer == 2:
                    reached.set()
                    assert goes_on.wait(30)
                return linear(x)

        return Watched()

    model.blocks = tuple(
        replace(block, ffn_out=watched(i, block.ffn_out)) for i, block in enumerate(model.blocks)
    )
    with Engine(model) as engine:
        request = engine.submit(PROMPT, GREEDY)
        assert reached.wait(30)
        request.cancel()
        goes_on.set()
        assert finished(request).reason == "cancelled"
    assert seen == [0, 1, 2]


def test_a_prompt_is_cancelled_between_its_passes(engine: Engine) -> None:
    passes: list[int] = []

    def cancelled() -> bool:
        return len(passes) == 2

    class Counting:
        def __init__(self, model: Model) -> None:
            self.config, self.device = model.config, model.device
            self.logits = model.logits
            self._forward = model.forward

        def forward(self, ids: torch.Tensor, cache: KVCache, **options: Any) -> torch.Tensor:
            hidden = self._forward(ids, cache, **options)
            passes.append(len(ids))
            return hidden

    cache = KVCache(engine.model.config, 100, dtype=torch.float32)
    model: Any = Counting(engine.model)
    with pytest.raises(Cancelled):
        prefill(model, [5] * 90, cache, chunk_tokens=20, is_cancelled=cancelled)
    assert passes == [20, 20]


def test_a_request_is_over_once(engine: Engine) -> None:
    request = engine.submit(PROMPT, GREEDY)
    assert len(list(request)) == 13
    assert list(request) == []


@pytest.mark.parametrize("prompt", [[5], [5, 9], [5, 9, 30]])
def test_the_shortest_prompts_of_chatglm_6b(prompt: list[int]) -> None:
    model = build(small_config("chatglm", context_window=64))
    with Engine(model) as engine:
        found = tokens_of(engine.submit(prompt, GREEDY))
    values = {n: v.double().numpy() for n, v in random_parameters(model.config).items()}
    for n_done, token in enumerate(found[:3]):
        expected = reference_v1.forward(
            values, prompt + found[:n_done], n_layers=2, n_heads=4, prompt_tokens=len(prompt)
        )
        assert token == expected[-1].argmax()


def test_int8_cache_in_passes_equals_int8_cache_at_once() -> None:
    model = build(small_config())
    prompt = [i % 60 for i in range(90)]
    found = []
    for step in (90, 16):
        cache = KVCache(model.config, 96, dtype=torch.float32, form="int8")
        found.append(prefill(model, prompt, cache, chunk_tokens=step))
    assert (found[0] - found[1]).abs().max() < 0.05


def test_cache_sizes_are_known_before_and_multi_query_is_small() -> None:
    for form in ("model", "int8"):
        for config in (small_config(), small_config("chatglm")):
            cache = KVCache(config, 96, form=form)  # type: ignore[arg-type]
            assert cache.size_bytes == kv_bytes(config, 96, form=form)  # type: ignore[arg-type]
    assert kv_bytes(small_config(n_kv_heads=4), 1) == 2 * kv_bytes(small_config(n_kv_heads=2), 1)
