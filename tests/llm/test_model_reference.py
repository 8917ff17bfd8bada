"""Forward passes against independent ones: transformers' GLM, and a slow ChatGLM-6B."""

from typing import Any

import numpy as np
import pytest
import torch

from llm.config import Generation, ModelConfig
from llm.engine import decode, prefill
from llm.kv_cache import KVCache
from llm.model import Model
from tests.llm import reference_v1
from tests.llm.models import build, random_parameters, small_config

# name: generation, rope_ratio as config.json has it, sequence length
SHAPES: dict[str, tuple[Generation, dict[str, float], int]] = {
    "chatglm2-6b": ("chatglm2", {}, 300),
    "chatglm2-6b-32k": ("chatglm2", {"rope_scale": 16.0}, 3000),
    "chatglm3-6b": ("chatglm3", {}, 300),
    "chatglm3-6b-32k": ("chatglm3", {"rope_base": 500_000.0}, 3000),
    "chatglm3-6b-128k": ("chatglm3", {"rope_base": 5_000_000.0}, 300),
    "glm-4-9b-chat": ("glm4", {"rope_base": 5_000_000.0, "norm_eps": 1.5625e-07}, 300),
}


def glm_of_transformers(config: ModelConfig, values: dict[str, torch.Tensor]) -> Any:
    from transformers import GlmConfig, GlmForCausalLM

    rope: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": config.rope_base,
        "partial_rotary_factor": 0.5,
    }
    if config.rope_scale != 1:
        rope |= {"rope_type": "linear", "factor": config.rope_scale}
    model = GlmForCausalLM(
        GlmConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.ffn_size,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            rms_norm_eps=config.norm_eps,
            attention_bias=True,
            tie_word_embeddings=False,
            pad_token_id=0,
            max_position_embeddings=config.context_window,
            rope_parameters=rope,
        )
    ).eval()
    q, k = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    renamed = {"model.embed_tokens.weight": values["embedding"], "lm_head.weight": values["head"]}
    renamed["model.norm.weight"] = values["final_norm.weight"]
    for i in range(config.n_layers):
        ours, theirs = f"layers.{i}", f"model.layers.{i}"
        renamed[f"{theirs}.input_layernorm.weight"] = values[f"{ours}.attention_norm.weight"]
        renamed[f"{theirs}.post_attention_layernorm.weight"] = values[f"{ours}.ffn_norm.weight"]
        for suffix, part in ((".weight", values[f"{ours}.qkv"]),
                             (".bias", values[f"{ours}.qkv.bias"])):  # fmt: skip
            rows = part.split([q, k, k])
            for name, row in zip(("q_proj", "k_proj", "v_proj"), rows, strict=True):
                renamed[f"{theirs}.self_attn.{name}{suffix}"] = row
        renamed[f"{theirs}.self_attn.o_proj.weight"] = values[f"{ours}.attention_out"]
        renamed[f"{theirs}.mlp.gate_up_proj.weight"] = values[f"{ours}.ffn_in"]
        renamed[f"{theirs}.mlp.down_proj.weight"] = values[f"{ours}.ffn_out"]
    missing, unexpected = model.load_state_dict(renamed, strict=False)
    assert not missing
    assert not unexpected
    return model


def whole(model: Model, ids: torch.Tensor) -> torch.Tensor:
    cache = KVCache(model.config, len(ids), dtype=model.dtype)
    return model.logits(model.forward(ids, cache))


@pytest.mark.parametrize("name", SHAPES)
def test_equals_transformers(name: str) -> None:
    generation, changes, length = SHAPES[name]
    config = small_config(generation, **changes)
    values = random_parameters(config)
    ids = torch.randint(config.vocab_size, (length,), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        expected = glm_of_transformers(config, values)(ids[None]).logits[0]
    model = build(config, values)
    assert (whole(model, ids) - expected).abs().max() < 1e-4

    # token by token after a prompt, near the end, where wrong angles show
    cache = KVCache(config, length, dtype=torch.float32)
    n_prompt = length - 8
    found = [prefill(model, ids[:n_prompt].tolist(), cache, chunk_tokens=512)]
    found += [decode(model, int(token), cache) for token in ids[n_prompt:]]
    assert (torch.stack(found) - expected[n_prompt - 1 :]).abs().max() < 1e-4


@pytest.mark.parametrize("head_dim", [64, 128])
def test_chatglm_6b_equals_the_slow_reference(head_dim: int) -> None:
    config = small_config("chatglm", hidden_size=2 * head_dim, n_heads=2, n_kv_heads=2,
                          head_dim=head_dim)  # fmt: skip
    values = random_parameters(config)
    ids = torch.randint(config.vocab_size, (40,), generator=torch.Generator().manual_seed(3))
    n_prompt = 34
    expected = reference_v1.forward(
        {name: value.double().numpy() for name, value in values.items()},
        ids.tolist(),
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        prompt_tokens=n_prompt,
    )
    model = build(config, values)
    cache = KVCache(config, 64, dtype=torch.float32)
    found = [prefill(model, ids[:n_prompt].tolist(), cache)]
    found += [decode(model, int(token), cache) for token in ids[n_prompt:]]
    difference = np.abs(torch.stack(found).double().numpy() - expected[n_prompt - 1 :])
    assert difference.max() < 1e-4


@pytest.mark.parametrize("generation", ["chatglm2", "chatglm3", "glm4"])
def test_cached_equals_uncached(generation: Generation) -> None:
    config = small_config(generation)
    model = build(config)
    ids = torch.randint(config.vocab_size, (30,), generator=torch.Generator().manual_seed(5))
    expected = whole(model, ids)
    cache = KVCache(config, 32, dtype=torch.float32)
    for position, token in enumerate(ids):
        found = decode(model, int(token), cache)
        assert (found - expected[position]).abs().max() < 1e-4


def test_cached_equals_uncached_for_chatglm_6b() -> None:
    config = small_config("chatglm")
    model = build(config)
    ids = torch.randint(config.vocab_size, (30,), generator=torch.Generator().manual_seed(5))
    n_prompt = 12
    cache = KVCache(config, 32, dtype=torch.float32)
    hidden = model.forward(ids, cache, context_length=n_prompt - 1)  # type: ignore[call-arg]
    expected = model.logits(hidden)
    cache.reset()
    found = prefill(model, ids[:n_prompt].tolist(), cache)
    for position in range(n_prompt - 1, len(ids) - 1):
        assert (found - expected[position]).abs().max() < 1e-4
        found = decode(model, int(ids[position + 1]), cache)


@pytest.mark.parametrize("chunk_tokens", [1, 2, 7, 16, 33, 100])
def test_any_split_of_the_prompt_gives_the_same_tokens(chunk_tokens: int) -> None:
    config = small_config("chatglm3")
    model = build(config)
    prompt = torch.randint(
        config.vocab_size, (100,), generator=torch.Generator().manual_seed(7)
    ).tolist()

    def greedy(step: int) -> list[int]:
        cache = KVCache(config, 128, dtype=torch.float32)
        logits = prefill(model, prompt, cache, chunk_tokens=step)
        tokens = []
        for _ in range(20):
            tokens.append(int(logits.argmax()))
            logits = decode(model, tokens[-1], cache)
        return tokens

    assert greedy(chunk_tokens) == greedy(1024)


def test_int8_keys_and_values_stay_close() -> None:
    config = small_config("chatglm3")
    model = build(config)
    ids = torch.randint(config.vocab_size, (60,), generator=torch.Generator().manual_seed(9))
    expected = whole(model, ids)
    cache = KVCache(config, 64, dtype=torch.float32, form="int8")
    found = model.logits(model.forward(ids, cache))
    assert cache.size_bytes < KVCache(config, 64, dtype=torch.bfloat16).size_bytes * 0.6
    assert (found - expected).norm() / expected.norm() < 0.02
