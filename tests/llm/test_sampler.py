"""Choosing tokens: each setting does what it says, and nothing else."""

import collections

import pytest
import torch

from llm.errors import GenerationError
from llm.sampler import SamplingParams, choose, default_params, is_looping, make_generator

LOGITS = torch.tensor([1.0, 4.0, 3.0, -2.0, 3.5, 0.0])


def draw(n: int = 400, completion: tuple[int, ...] = (), **settings: object) -> collections.Counter:
    params = SamplingParams(**{"top_k": 0, "top_p": 1.0, "temperature": 1.0, "seed": 1, **settings})
    generator = make_generator(params)
    return collections.Counter(
        choose(LOGITS.clone(), params, completion=completion, generator=generator) for _ in range(n)
    )


def test_temperature_0_takes_the_best() -> None:
    assert draw(temperature=0) == {1: 400}
    assert draw(temperature=1e-40) == {1: 400}


def test_top_k_keeps_the_likeliest() -> None:
    assert set(draw(top_k=2)) == {1, 4}
    assert set(draw(top_k=1)) == {1}
    assert len(draw(top_k=0)) >= 5


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    # shares of 1, 4, 2: about 0.47, 0.29, 0.17
    assert set(draw(top_p=0.4)) == {1}
    assert set(draw(top_p=1e-300)) == {1}
    assert set(draw(top_p=0.6)) == {1, 4}
    assert set(draw(top_p=0.8)) == {1, 4, 2}


def test_frequencies_follow_the_softmax() -> None:
    counted = draw(n=4000)
    expected = LOGITS.softmax(-1)
    for token, share in enumerate(expected.tolist()):
        assert abs(counted[token] / 4000 - share) < 0.03


def test_a_low_temperature_sharpens() -> None:
    assert draw(temperature=0.2)[1] > draw(temperature=1.0)[1] > draw(temperature=3.0)[1]


def test_the_repetition_penalty_lowers_what_was_said() -> None:
    assert draw(temperature=0, repetition_penalty=1.5, completion=(1,)) == {4: 400}
    assert draw(temperature=0, repetition_penalty=1.5) == {1: 400}
    # a negative logit falls too
    assert draw(repetition_penalty=5.0, completion=(3,))[3] <= draw()[3]


def test_the_same_seed_gives_the_same_tokens() -> None:
    def sequence(seed: int | None) -> list[int]:
        params = SamplingParams(seed=seed, temperature=2.0)
        generator = make_generator(params)
        return [
            choose(LOGITS.clone(), params, completion=(), generator=generator) for _ in range(50)
        ]

    assert sequence(7) == sequence(7)
    assert sequence(7) != sequence(8)
    assert sequence(None) != sequence(None)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_end_the_request(bad: float) -> None:
    logits = LOGITS.clone()
    logits[2] = bad
    with pytest.raises(GenerationError, match="not finite"):
        choose(logits, SamplingParams(), completion=(), generator=torch.Generator())


@pytest.mark.parametrize(
    "settings",
    [
        {"max_new_tokens": 0}, {"temperature": -1}, {"temperature": float("nan")}, {"top_k": -1},
        {"top_p": 0}, {"top_p": 1.1}, {"repetition_penalty": 0}, {"stop": ("",)},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(GenerationError):
        SamplingParams(**settings)  # type: ignore[arg-type]


def test_published_defaults() -> None:
    assert (default_params("chatglm").top_p, default_params("chatglm").temperature) == (0.7, 0.95)
    assert (default_params("chatglm3").top_p, default_params("chatglm3").temperature) == (0.8, 0.8)


@pytest.mark.parametrize("period", [1, 3, 17, 64])
def test_a_loop_is_noticed(period: int) -> None:
    start = list(range(1000, 1100))
    cycle = list(range(period))
    assert is_looping(start + cycle * 300)
    assert not is_looping(start + cycle * (100 // period))


def test_ordinary_text_is_no_loop() -> None:
    numbers = torch.randint(0, 50, (2000,), generator=torch.Generator().manual_seed(1)).tolist()
    assert not any(is_looping(numbers[:n]) for n in range(1, 2000))
    # a table of 30 equal rows, then text
    assert not is_looping([5, 6, 7, 8] * 30 + numbers[:20])
