"""Every parameter of a model: our name, its name in the published checkpoints, its shape.

`parameters` lists them in the order in which a forward pass meets them; `assemble` builds a
model from anything that hands out parameters by our names.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from llm.config import ModelConfig
from llm.linear import Linear, make_linear
from llm.model import Block, Embedding, Model, MultiQueryModel
from llm.model_v1 import BlockV1, LayerNorm, PrefixModel
from llm.packed import PackedInt4
from llm.quantize import Int8Weight, Weight
from llm.tiles import TiledInt4

Kind = Literal["embedding", "vector", "matrix", "head"]
Stored: TypeAlias = Weight | PackedInt4 | TiledInt4


@dataclass(frozen=True, slots=True)
class Parameter:
    """name: ours; published: in the checkpoint; kind: what may be done to it."""

    name: str
    published: str
    shape: tuple[int, ...]
    kind: Kind


def parameters(config: ModelConfig) -> Iterator[Parameter]:
    """Yield every parameter, embedding first, head last."""
    first = config.generation == "chatglm"
    root = "transformer" if first else "transformer.encoder"
    hidden, heads = config.hidden_size, config.n_heads * config.head_dim
    table = "transformer.word_embeddings" if first else "transformer.embedding.word_embeddings"
    shape = (config.vocab_size, hidden)
    yield Parameter("embedding", f"{table}.weight", shape, "embedding")
    for i in range(config.n_layers):
        ours, theirs = f"layers.{i}", f"{root}.layers.{i}"
        attention = f"{theirs}.{'attention' if first else 'self_attention'}"
        yield from _norm(f"{ours}.attention_norm", f"{theirs}.input_layernorm", hidden, first)
        has_bias = first or config.has_qkv_bias
        yield from _linear(f"{ours}.qkv", f"{attention}.query_key_value",
                           (config.qkv_size, hidden), has_bias)  # fmt: skip
        has_bias = first or config.has_linear_bias
        yield from _linear(f"{ours}.attention_out", f"{attention}.dense", (hidden, heads), has_bias)
        norm = f"{theirs}.post_attention_layernorm"
        yield from _norm(f"{ours}.ffn_norm", norm, hidden, first)
        shape = (config.ffn_in_size, hidden)
        yield from _linear(f"{ours}.ffn_in", f"{theirs}.mlp.dense_h_to_4h", shape, has_bias)
        shape = (hidden, config.ffn_size)
        yield from _linear(f"{ours}.ffn_out", f"{theirs}.mlp.dense_4h_to_h", shape, has_bias)
    yield from _norm("final_norm", f"{root}.final_layernorm", hidden, first)
    head = "lm_head.weight" if first else "transformer.output_layer.weight"
    yield Parameter("head", head, (config.vocab_size, hidden), "head")


def assemble(
    config: ModelConfig,
    get: Callable[[str], Stored],
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> Model:
    """Build a model.

    Args:
        config: its shape.
        get: returns the parameter of a name from `parameters`, on `device`.
        dtype: of activations.
        device: where it will run.
    """
    names = {parameter.name for parameter in parameters(config)}

    def vector(name: str, vector_dtype: torch.dtype = dtype) -> torch.Tensor:
        found = get(name)
        assert isinstance(found, torch.Tensor)
        return found.to(device, vector_dtype)

    def linear(name: str) -> Linear:
        bias = vector(f"{name}.bias") if f"{name}.bias" in names else None
        return make_linear(get(name), bias, dtype)

    def layer_norm(name: str) -> LayerNorm:
        return LayerNorm(
            vector(f"{name}.weight", torch.float32), vector(f"{name}.bias", torch.float32)
        )

    table = get("embedding")
    if isinstance(table, Int8Weight):
        embedding = Embedding(table.codes, dtype, table.scales)
    else:
        assert isinstance(table, torch.Tensor)
        embedding = Embedding(table, dtype)
    head = make_linear(get("head"), None, dtype)

    def linears(layer: int) -> dict[str, Linear]:
        names = ("qkv", "attention_out", "ffn_in", "ffn_out")
        return {name: linear(f"layers.{layer}.{name}") for name in names}

    if config.generation == "chatglm":
        old_blocks = [
            BlockV1(
                attention_norm=layer_norm(f"layers.{i}.attention_norm"),
                ffn_norm=layer_norm(f"layers.{i}.ffn_norm"),
                **linears(i),
            )
            for i in range(config.n_layers)
        ]
        final = layer_norm("final_norm")
        return PrefixModel(
            config, embedding=embedding, blocks=old_blocks, final_norm=final, head=head, dtype=dtype
        )
    blocks = [
        Block(
            attention_norm=vector(f"layers.{i}.attention_norm.weight"),
            ffn_norm=vector(f"layers.{i}.ffn_norm.weight"),
            **linears(i),
        )
        for i in range(config.n_layers)
    ]
    norm = vector("final_norm.weight")
    return MultiQueryModel(config, embedding=embedding, blocks=blocks, final_norm=norm, head=head)


def _norm(name: str, published: str, size: int, has_bias: bool) -> Iterator[Parameter]:
    yield Parameter(f"{name}.weight", f"{published}.weight", (size,), "vector")
    if has_bias:
        yield Parameter(f"{name}.bias", f"{published}.bias", (size,), "vector")


def _linear(
    name: str, published: str, shape: tuple[int, int], has_bias: bool
) -> Iterator[Parameter]:
    yield Parameter(name, f"{published}.weight", shape, "matrix")
    if has_bias:
        yield Parameter(f"{name}.bias", f"{published}.bias", shape[:1], "vector")
