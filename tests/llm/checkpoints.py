"""Complete small checkpoint folders in each generation's published layout, made on the spot.

Config, sharded weights with an index, and a tokenizer trained here: everything that a published
folder has, at a size that a test can afford.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from llm.config import Generation, ModelConfig, read_config
from llm.parameters import parameters
from llm.tokenizers import load_tokenizer
from tests.llm.models import random_parameters
from tests.llm.tokenizer_files import write_tokenizer

HIDDEN, LAYERS, HEADS, HEAD_DIM, FFN = 128, 2, 4, 32, 192
NAMES = {"chatglm": "chatglm-6b", "chatglm2": "chatglm2-6b", "chatglm3": "chatglm3-6b",
         "glm4": "glm-4-9b-chat"}  # fmt: skip


def write_checkpoint(
    folder: Path,
    generation: Generation = "chatglm3",
    *,
    form: str = "safetensors",
    n_shards: int = 2,
    official_bits: int = 0,
    context: int = 512,
    scale: float = 1.0,
    **changes: Any,
) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    """Write a folder and return its config and its values by our names, in fp16.

    Args:
        folder: is created.
        generation: whose layout.
        form: "safetensors" or "bin".
        n_shards: 1 writes no index.
        official_bits: 4 or 8 writes the published quantized form.
        context: context window.
        scale: of the weights; 1 keeps the output of a matrix as large as its input.
        changes: keys of config.json to change.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, generation)
    config_json = {**_config_json(generation, folder, context), **changes}
    (folder / "config.json").write_text(json.dumps(config_json), encoding="utf-8")
    config = read_config(folder)
    values = {name: value.half() for name, value in random_parameters(config, scale=scale).items()}
    if generation == "chatglm":
        values["head"] = values["embedding"]
    published: dict[str, torch.Tensor] = {}
    for parameter in parameters(config):
        value = values[parameter.name]
        if official_bits and parameter.kind == "matrix":
            codes, scales = official_codes(value, official_bits)
            published[parameter.published] = codes
            published[f"{parameter.published}_scale"] = scales
        elif parameter.kind == "head" and generation == "chatglm" and official_bits:
            continue  # the published int4 file of ChatGLM-6B has one table for both
        else:
            published[parameter.published] = value.clone()
    _write_weights(folder, published, form, n_shards)
    return config, values


def official_codes(weight: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize as the publisher did: per row, symmetric, fp16 scales, high nibble first."""
    limit = 2 ** (bits - 1) - 1
    scales = weight.float().abs().amax(1) / limit
    codes = torch.round(weight.float() / scales[:, None]).to(torch.int8)
    if bits == 4:
        high, low = codes[:, 0::2].to(torch.int16), codes[:, 1::2].to(torch.int16)
        both = ((high & 0xF) << 4) | (low & 0xF)
        codes = both.to(torch.uint8).view(torch.int8)
    return codes, scales.half()


def official_dequantized(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """Return what the published codes of a matrix stand for."""
    limit = 2 ** (bits - 1) - 1
    scales = weight.float().abs().amax(1) / limit
    codes = torch.round(weight.float() / scales[:, None])
    return codes * scales.half().float()[:, None]


def _write_weights(
    folder: Path, tensors: dict[str, torch.Tensor], form: str, n_shards: int
) -> None:
    names = list(tensors)
    size = -(-len(names) // n_shards)
    stem, suffix = ("model", ".safetensors") if form == "safetensors" else ("pytorch_model", ".bin")
    weight_map = {}
    for i in range(n_shards):
        part = {name: tensors[name] for name in names[i * size : (i + 1) * size]}
        file = f"{stem}{suffix}" if n_shards == 1 else f"{stem}-{i + 1:05}-of-{n_shards:05}{suffix}"
        if form == "safetensors":
            save_file(part, folder / file)
        else:
            torch.save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    if n_shards > 1:
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        path = folder / f"{stem}{suffix}.index.json"
        path.write_text(json.dumps(index), encoding="utf-8")


def _config_json(generation: Generation, folder: Path, context: int) -> dict[str, Any]:
    offset_free = load_tokenizer(folder, generation).vocab_size
    vocabulary = 151_552 if generation == "glm4" else -(-offset_free // 32) * 32
    shared = {
        "model_type": "chatglm",
        "_name_or_path": f"THUDM/{NAMES[generation]}",
        "hidden_size": HIDDEN,
        "num_layers": LAYERS,
        "num_attention_heads": HEADS,
        "layernorm_epsilon": 1e-5,
    }
    if generation == "chatglm":
        return shared | {
            "hidden_size": HEADS * HEAD_DIM,
            "inner_hidden_size": FFN,
            "vocab_size": vocabulary,
            "max_sequence_length": context,
            "position_encoding_2d": True,
        }
    return shared | {
        "ffn_hidden_size": FFN,
        "kv_channels": HEAD_DIM,
        "padded_vocab_size": vocabulary,
        "seq_length": context,
        "multi_query_attention": True,
        "multi_query_group_num": 2,
        "add_qkv_bias": True,
        "add_bias_linear": False,
        "rmsnorm": True,
    }
