"""Speed and memory of a model at full size with random weights: what `kb bench llm` prints.

The bound on decoding is the memory bus: every weight is read once per token. So decoding is
measured in turns with reading the same weights with a plain sum, and reported as a share of what
that read would allow: the median of the turns' ratios, since a shared machine drifts. Random
weights are as fast as trained ones; nothing here says anything about quality.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from llm.config import ModelConfig
from llm.engine import decode, prefill
from llm.kv_cache import KVCache, KVForm, kv_bytes
from llm.memory import n_parameters
from llm.model import Model
from llm.packed import int4_layout
from llm.parameters import Parameter, Stored, assemble, parameters
from llm.quantize import Int4Weight, Int8Weight, Weight
from llm.store import PACKED, WEIGHTS, add_parameter, reader, write_packed
from llm.tensor_file import TensorFile, TensorWriter
from llm.tiles import TiledInt4

_TOKENS_PER_TURN = 4
_READ_BYTES = 2**30  # per turn


def write_random_model(folder: Path, config: ModelConfig, bits: int, group_size: int = 32) -> Path:
    """Write weights of a shape, in the form that `llm.convert` would; return the file to load."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(1)
    with TensorWriter(folder / WEIGHTS) as writer:
        for parameter in parameters(config):
            add_parameter(writer, parameter.name, _random(parameter, bits, group_size, generator))
        writer.finish({"config": config.to_dict(), "bits": bits})
    if bits == 4 and (layout := int4_layout()):
        write_packed(folder / PACKED, TensorFile(folder / WEIGHTS), config, layout)
        (folder / WEIGHTS).unlink()
        return folder / PACKED
    return folder / WEIGHTS


def load_random_model(path: Path, config: ModelConfig) -> tuple[Model, list[torch.Tensor]]:
    """Open a file by `write_random_model`; return the model and its matrices as int64 to sum."""
    get = reader(TensorFile(path))
    matrices = []

    def noting(name: str) -> Stored:
        value = get(name)
        stored: torch.Tensor
        if isinstance(value, torch.Tensor):
            stored = value
        else:
            stored = value.octets if isinstance(value, TiledInt4) else value.codes
        if stored.ndim >= 2 and name != "embedding":
            matrices.append(stored.view(-1).view(torch.int64))
        return value

    return assemble(config, noting, dtype=torch.bfloat16), matrices


def measure(
    path: Path,
    config: ModelConfig,
    *,
    context: int = 1024,
    prompts: tuple[int, ...] = (512, 1024),
    turns: int = 12,
    kv_form: KVForm = "model",
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Load a model, run prompts and tokens, and return the figures.

    Args:
        path: by `write_random_model`.
        config: its shape.
        context: tokens in the cache while decoding.
        prompts: lengths of prompts to prefill.
        turns: each decodes 4 tokens and reads 1 GiB of weights.
        kv_form: as for `KVCache`.
        progress: told what is being done.

    Returns:
        Tokens per second, the bandwidth and the bound it sets (`decode_ratio` is decoding over
        that bound; `prefill_gemm_ratio` is prefill over plain bf16 products, timed right before
        and after), and bytes.
    """
    progress("loading")
    started = time.perf_counter()
    model, weights = load_random_model(path, config)
    cache = KVCache(config, max(*prompts, context + turns * _TOKENS_PER_TURN + 8), form=kv_form)
    decode(model, 1, cache)  # the first token touches every page of the weights
    load_s = time.perf_counter() - started

    progress("decoding")
    ids = _token_ids(config, max(*prompts, context))
    cache.reset()
    filled = prefill(model, ids[:context], cache)
    assert torch.isfinite(filled).all()
    bounds, speeds = [], []  # tokens per second, per turn
    for _ in range(turns):
        bounds.append(_read_speed(weights) / model.weight_bytes_per_token)
        started = time.perf_counter()
        for _ in range(_TOKENS_PER_TURN):
            decode(model, 5, cache)
        speeds.append(_TOKENS_PER_TURN / (time.perf_counter() - started))
    bound = statistics.median(bounds)
    ratios = [speed / limit for speed, limit in zip(speeds, bounds, strict=True)]
    kv_read = kv_bytes(config, context, form=kv_form)

    prefilled, shares = {}, {}
    for length in prompts:
        progress(f"prefilling {length} tokens")
        cache.reset()
        before = _gemm_speed(config, length)
        started = time.perf_counter()
        prefill(model, ids[:length], cache)
        speed = length / (time.perf_counter() - started)
        prefilled[str(length)] = round(speed, 2)
        shares[str(length)] = round(2 * speed / (before + _gemm_speed(config, length)), 3)
    return {
        "context": context,
        "threads": torch.get_num_threads(),
        "bandwidth_gb_s": round(bound * model.weight_bytes_per_token / 1e9, 2),
        "weight_bytes_per_token": model.weight_bytes_per_token,
        "kv_bytes_read_per_token": kv_read,
        "bound_tokens_per_s": round(bound, 3),
        "decode_tokens_per_s": round(statistics.median(speeds), 3),
        "decode_ratio": round(statistics.median(ratios), 3),
        "prefill_tokens_per_s": prefilled,
        "prefill_gemm_ratio": shares,
        "peak_memory_gb": round(_peak_bytes() / 2**30, 2),
        "weights_gb": round(path.stat().st_size / 2**30, 2),
        "kv_gb": round(cache.size_bytes / 2**30, 3),
        "kv_bytes_per_token": cache.size_bytes // cache.max_tokens,
        "kv_bytes_per_token_multi_head": kv_bytes(replace(config, n_kv_heads=config.n_heads), 1),
        "load_s": round(load_s, 2),
    }


def _random(parameter: Parameter, bits: int, group_size: int, generator: torch.Generator) -> Weight:
    """Return random codes; the spread of trained weights keeps activations finite."""
    shape = parameter.shape
    if parameter.kind == "vector":
        return torch.ones(shape) if parameter.name.endswith("norm.weight") else torch.zeros(shape)
    if parameter.kind == "embedding" or bits == 16:
        row = torch.randn(shape[1], generator=generator).mul_(0.02).to(torch.bfloat16)
        return torch.stack([row, -row]).repeat(-(-shape[0] // 2), 1)[: shape[0]]
    n_rows, n_columns = shape
    # one row of random codes, again and again: speed does not depend on the values
    row = torch.randint(256, (n_columns,), generator=generator, dtype=torch.uint8)
    if bits == 8:
        codes = row.view(torch.int8).clamp(min=-127).repeat(n_rows, 1)
        return Int8Weight(codes, torch.full((n_rows,), 0.02 / 73, dtype=torch.bfloat16))
    scales = torch.full((n_rows, n_columns // group_size), 0.02 / 4.6, dtype=torch.bfloat16)
    codes = row[: n_columns // 2].repeat(n_rows, 1)
    # zeros as the quantizer makes them for weights around 0: they are stored and read
    return Int4Weight(codes, scales, scales / 2)


def _token_ids(config: ModelConfig, n: int) -> list[int]:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(config.vocab_size, (n,), generator=generator).tolist()


def _read_speed(weights: list[torch.Tensor]) -> float:
    """Return bytes per second of summing about `_READ_BYTES` of weights."""
    done = 0
    started = time.perf_counter()
    for tensor in weights:
        tensor.sum()
        done += tensor.nbytes
        if done >= _READ_BYTES:
            break
    return done / (time.perf_counter() - started)


def _gemm_speed(config: ModelConfig, n_tokens: int) -> float:
    """Return tokens per second if prefill were nothing but bf16 products of unquantized weights.

    Timed on a slice of one matrix and scaled up.
    """
    n_rows = 4096
    weight = torch.ones(n_rows, config.hidden_size, dtype=torch.bfloat16)
    x = torch.ones(n_tokens, config.hidden_size, dtype=torch.bfloat16)
    F.linear(x, weight)
    started = time.perf_counter()
    F.linear(x, weight)
    seconds = time.perf_counter() - started
    matrices, table = n_parameters(config)
    return n_tokens / (seconds * (matrices - table) / weight.numel())


def _peak_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
