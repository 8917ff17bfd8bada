"""From logits to the next token. Pure functions; randomness comes in as a generator."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from llm.config import Generation
from llm.errors import GenerationError

# A repeat counts as a loop when this many tokens in a row only repeat what came before, with a
# period of at most _LOOP_PERIOD tokens. Long tables and code repeat too, but rarely that long.
_LOOP_TOKENS = 160
_LOOP_PERIOD = 64
# Dividing by less than this would overflow fp32, and changes nothing any more.
_GREEDY_BELOW = 1e-4


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen and when to stop.

    Attributes:
        max_new_tokens: longest completion, at least 1.
        temperature: 0 is greedy; below 1 sharpens.
        top_k: keep this many of the likeliest tokens; 0 keeps all.
        top_p: keep the likeliest tokens whose probabilities add up to this (nucleus sampling,
            Holtzman et al. 2020, arXiv:1904.09751); 1 keeps all.
        repetition_penalty: above 1 makes tokens of the completion less likely (Keskar et al.
            2019, arXiv:1909.05858).
        seed: same seed, same tokens on the same machine; None takes a random one.
        stop: texts that end the completion and are not part of it.
    """

    max_new_tokens: int = 1024
    temperature: float = 0.8
    top_k: int = 50
    top_p: float = 0.8
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        limits = (
            (self.max_new_tokens >= 1, "max_new_tokens must be at least 1"),
            (0 <= self.temperature <= 10, "temperature must lie between 0 and 10"),
            (self.top_k >= 0, "top_k must not be negative"),
            (0 < self.top_p <= 1, "top_p must lie above 0 and at most at 1"),
            (0 < self.repetition_penalty <= 10, "repetition_penalty must lie between 0 and 10"),
            (all(self.stop), "a stop text must not be empty"),
        )
        for is_met, message in limits:
            if not is_met:
                raise GenerationError(message)


def default_params(generation: Generation) -> SamplingParams:
    """Return the published defaults of a generation's chat model."""
    if generation == "chatglm":
        return SamplingParams(temperature=0.95, top_p=0.7)
    return SamplingParams(temperature=0.8, top_p=0.8)


def make_generator(params: SamplingParams) -> torch.Generator:
    """Return the source of randomness of one request."""
    generator = torch.Generator()
    if params.seed is None:
        generator.seed()
    else:
        generator.manual_seed(params.seed & (2**63 - 1))
    return generator


@torch.inference_mode()
def choose(
    logits: torch.Tensor,
    params: SamplingParams,
    *,
    completion: Sequence[int],
    generator: torch.Generator,
) -> int:
    """Choose the next token.

    The order is that of the published models' own code: penalty, temperature, top_k, top_p.

    Args:
        logits: (V,) fp32 on the CPU; changed by the penalty.
        params: how.
        completion: tokens of the completion so far.
        generator: consumed once per sampled token.

    Raises:
        GenerationError: a logit is NaN or infinite.
    """
    if not torch.isfinite(logits).all():
        raise GenerationError(
            "the model's output is not finite: its weights are damaged, or too large for the "
            "number format. Check its files, or load it in bf16"
        )
    if params.repetition_penalty != 1.0 and completion:
        seen = torch.tensor(sorted(set(completion)))
        scores = logits[seen]
        penalty = params.repetition_penalty
        logits[seen] = torch.where(scores < 0, scores * penalty, scores / penalty)
    if params.temperature < _GREEDY_BELOW:
        return int(logits.argmax())
    scores = logits / params.temperature
    n_kept = min(params.top_k or len(scores), len(scores))
    scores, ids = scores.topk(n_kept)  # sorted, best first
    probabilities = scores.softmax(-1)
    if params.top_p < 1:
        is_cut = probabilities.cumsum(-1) - probabilities >= params.top_p  # by the likelier ones
        is_cut[0] = False  # the best one always stays, however small top_p
        probabilities = probabilities.masked_fill(is_cut, 0.0)
    return int(ids[torch.multinomial(probabilities, 1, generator=generator)])


def is_looping(completion: Sequence[int]) -> bool:
    """Say whether the completion has only repeated itself for `_LOOP_TOKENS` tokens."""
    for period in range(1, _LOOP_PERIOD + 1):
        if len(completion) < _LOOP_TOKENS + period or completion[-1] != completion[-1 - period]:
            continue
        tail = completion[-_LOOP_TOKENS:]
        if tail == completion[-_LOOP_TOKENS - period : -period]:
            return True
    return False
