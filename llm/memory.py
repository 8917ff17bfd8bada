"""How much memory a model takes, and whether it is there, before anything is loaded."""

import psutil
import torch

from llm.config import ModelConfig
from llm.kv_cache import KVForm, kv_bytes

# Activations, expanded blocks of weights, the tokenizer and torch itself.
WORKING_BYTES = 2**30


def available_bytes(device: torch.device | str = "cpu") -> int:
    """Return the memory that can be taken now without swapping."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def n_parameters(config: ModelConfig) -> tuple[int, int]:
    """Return the numbers of weights in matrices that are quantized, and in the embedding."""
    attention = config.qkv_size * config.hidden_size
    out = config.n_heads * config.head_dim * config.hidden_size
    ffn = (config.ffn_in_size + config.ffn_size) * config.hidden_size
    table = config.vocab_size * config.hidden_size
    return config.n_layers * (attention + out + ffn) + table, table


def weights_bytes(config: ModelConfig, bits: int, group_size: int = 32) -> int:
    """Return the bytes of a model's weights in memory; norms and biases are left out.

    Args:
        config: the model's shape.
        bits: 4, 8 or 16.
        group_size: for 4 bits: a scale and a zero of 2 bytes each per group.
    """
    matrices, embedding = n_parameters(config)
    per_weight = {16: 2.0, 8: 1.0, 4: 0.5 + 4 / group_size}[bits]
    return int(matrices * per_weight) + 2 * embedding


def needed_bytes(
    config: ModelConfig, bits: int, n_tokens: int, *, group_size: int = 32, kv: KVForm = "model"
) -> int:
    """Return what loading a model and filling `n_tokens` of context takes, in bytes."""
    weights = weights_bytes(config, bits, group_size)
    return weights + kv_bytes(config, n_tokens, form=kv) + WORKING_BYTES
