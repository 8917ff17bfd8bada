"""Small random models for tests: configurations, and parameters by our names."""

from collections.abc import Callable

import torch

from llm.config import Generation, ModelConfig
from llm.model import Model
from llm.parameters import Parameter, assemble, parameters

VOCABULARY = 64


def small_config(generation: Generation = "chatglm3", **changes: object) -> ModelConfig:
    """Return two layers with the published head size of 128, or what `changes` say."""
    first = generation == "chatglm"
    values: dict[str, object] = {
        "generation": generation,
        "n_layers": 2,
        "hidden_size": 256,
        "n_heads": 4,
        "n_kv_heads": 4 if first else 2,
        "head_dim": 64 if first else 128,
        "ffn_size": 320,
        "vocab_size": VOCABULARY,
        "context_window": 4096,
        "norm_eps": 1e-5,
        "has_linear_bias": first,
    }
    return ModelConfig(**{**values, **changes})  # type: ignore[arg-type]


def random_parameters(
    config: ModelConfig, seed: int = 0, scale: float = 1.0
) -> dict[str, torch.Tensor]:
    """Return fp32 values; with `scale` 1 a matrix keeps activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    return {p.name: _random(p, generator, scale) for p in parameters(config)}


def build(
    config: ModelConfig,
    values: dict[str, torch.Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Model:
    get: Callable[[str], torch.Tensor] = (values or random_parameters(config)).__getitem__
    return assemble(config, get, dtype=dtype)


def _random(parameter: Parameter, generator: torch.Generator, scale: float) -> torch.Tensor:
    values = torch.randn(parameter.shape, generator=generator)
    if parameter.kind == "vector":
        is_norm = parameter.name.endswith("norm.weight")
        return 1 + 0.1 * values if is_norm else 0.1 * values
    return values * scale / parameter.shape[1] ** 0.5
