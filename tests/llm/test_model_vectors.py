"""One-layer models with the outputs of the published models' own code (chatglm.cpp, MIT).

Their head size is 4, so they do not tell rotary layouts apart; `test_model_reference.py` does.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from llm.config import ModelConfig
from llm.kv_cache import KVCache
from llm.linear import make_linear
from llm.model import rms_norm
from llm.model_v1 import LayerNorm
from llm.parameters import assemble

VECTORS = Path(__file__).parents[3] / "shared" / "vectors" / "chatglm_cpp"

pytestmark = pytest.mark.skipif(
    not VECTORS.is_dir(), reason="the reference vectors (../shared/vectors) are not here"
)


class Reader:
    def __init__(self, name: str) -> None:
        self._bytes = (VECTORS / name).read_bytes()
        self._at = 0

    def floats(self, *shape: int) -> torch.Tensor:
        return torch.from_numpy(self._take(np.float32, shape).copy())

    def ints(self, *shape: int) -> torch.Tensor:
        return torch.from_numpy(self._take(np.int32, shape).astype(np.int64))

    def is_at_end(self) -> bool:
        return self._at == len(self._bytes)

    def _take(self, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape)) * 4
        taken = np.frombuffer(self._bytes[self._at : self._at + size], dtype).reshape(shape)
        self._at += size
        return taken


def tiny(generation: str, **changes: object) -> ModelConfig:
    values: dict[str, object] = {
        "generation": generation, "n_layers": 1, "hidden_size": 32, "n_heads": 8,
        "n_kv_heads": 8, "head_dim": 4, "ffn_size": 128, "vocab_size": 5,
        "context_window": 64, "norm_eps": 1e-5,
    }  # fmt: skip
    return ModelConfig(**{**values, **changes})  # type: ignore[arg-type]


def check(config: ModelConfig, values: dict[str, torch.Tensor], reader: Reader) -> None:
    values["head"] = torch.zeros(5, 32)
    model = assemble(config, values.__getitem__, dtype=torch.float32)
    cache = KVCache(config, 16, dtype=torch.float32)
    for n_tokens in (3, 1, 1):
        ids, expected = reader.ints(n_tokens), reader.floats(n_tokens, 32)
        found = model.forward(ids, cache)
        assert (found - expected).abs().max() < 1e-5
    assert reader.is_at_end()


def test_chatglm_6b() -> None:
    reader, values = Reader("glm_model.data"), {}
    for name, shape in (
        ("embedding", (5, 32)),
        ("layers.0.attention_norm.weight", (32,)), ("layers.0.attention_norm.bias", (32,)),
        ("layers.0.qkv", (96, 32)), ("layers.0.qkv.bias", (96,)),
        ("layers.0.attention_out", (32, 32)), ("layers.0.attention_out.bias", (32,)),
        ("layers.0.ffn_norm.weight", (32,)), ("layers.0.ffn_norm.bias", (32,)),
        ("layers.0.ffn_in", (128, 32)), ("layers.0.ffn_in.bias", (128,)),
        ("layers.0.ffn_out", (32, 128)), ("layers.0.ffn_out.bias", (32,)),
        ("final_norm.weight", (32,)), ("final_norm.bias", (32,)),
    ):  # fmt: skip
        values[name] = reader.floats(*shape)
    check(tiny("chatglm"), values, reader)


def test_chatglm2_6b() -> None:
    reader, values = Reader("glm2_model.data"), {}
    for name, shape in (
        ("embedding", (5, 32)),
        ("layers.0.attention_norm.weight", (32,)),
        ("layers.0.qkv", (48, 32)), ("layers.0.qkv.bias", (48,)),
        ("layers.0.attention_out", (32, 32)),
        ("layers.0.ffn_norm.weight", (32,)),
        ("layers.0.ffn_in", (96, 32)),
        ("layers.0.ffn_out", (32, 48)),
        ("final_norm.weight", (32,)),
    ):  # fmt: skip
        values[name] = reader.floats(*shape)
    check(tiny("chatglm2", n_kv_heads=2, ffn_size=48), values, reader)


def test_rms_norm() -> None:
    reader = Reader("rms_norm.data")
    weight, x, expected = reader.floats(64), reader.floats(3, 64), reader.floats(3, 64)
    assert (rms_norm(x, weight, 1e-5) - expected).abs().max() < 1e-5


def test_layer_norm() -> None:
    reader = Reader("layer_norm.data")
    norm = LayerNorm(reader.floats(64), reader.floats(64))
    x, expected = reader.floats(3, 64), reader.floats(3, 64)
    assert (norm(x, 1e-5) - expected).abs().max() < 1e-5


def test_linear() -> None:
    reader = Reader("linear.data")
    linear = make_linear(reader.floats(32, 64), reader.floats(32), torch.float32)
    x, expected = reader.floats(2, 64), reader.floats(2, 32)
    assert (linear(x) - expected).abs().max() < 1e-5
    x, expected = reader.floats(64), reader.floats(32)
    assert (linear(x) - expected).abs().max() < 1e-5
