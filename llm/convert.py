"""From a published checkpoint folder to a model of ours: read, quantize, measure, write. Once.

The checkpoint is walked in the order of a forward pass, one matrix at a time, so memory stays
near one shard besides the file being written. On the way, sample texts go through each layer
twice, with the original and with the quantized weights; what that shows is the report.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from llm.checkpoint import Checkpoint
from llm.config import Generation, ModelConfig, read_config
from llm.errors import CheckpointError, UnsupportedModelError
from llm.files import check_file, locked
from llm.kv_cache import KVCache
from llm.memory import weights_bytes
from llm.model import rms_norm
from llm.packed import int4_layout
from llm.parameters import Parameter, assemble, parameters
from llm.quantize import (
    Int4Weight,
    Int8Weight,
    Weight,
    dequantize,
    from_official_int4,
    from_official_int8,
    quantize_int4,
    quantize_int8,
    take_rows,
)
from llm.store import (
    DESCRIPTION,
    PACKED,
    REPORT,
    WEIGHTS,
    ModelDescription,
    Progress,
    add_parameter,
    write_packed,
)
from llm.tensor_file import TensorFile, TensorWriter
from llm.tokenizers import load_tokenizer

_TOKENIZER_FILES = ("ice_text.model", "tokenizer.model", "tokenizer_config.json")
# Rows quantized at once: bounds the fp32 copies of a matrix to about 100 MB each.
_ROWS_AT_ONCE = 2048
SAMPLES = (
    "知识库把文档切成段落，检索与问题最相关的几段，再由模型写出带出处的答案。",
    "The pump in building 4 was replaced after 1,250 hours; see page 12 of the manual.",
)


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """bits: 4, 8 or 16; group_size: of int4; quantize_head: the output layer too (it is read
    for every token); embedding: as bf16, or int8 with one scale per row."""

    bits: int = 4
    group_size: int = 32
    quantize_head: bool = True
    embedding: Literal["bf16", "int8"] = "bf16"


def convert(
    source: Path,
    target: Path,
    options: ConvertOptions | None = None,
    *,
    generation: Generation | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a model folder from a checkpoint folder.

    The target appears under its name only when it is complete; an older one is replaced.

    Args:
        source: as published, of any generation, in fp16, bf16 or fp32, or quantized by its
            publisher (whose codes are kept; `bits` must then be theirs).
        target: folder to write.
        options: default int4 in groups of 32.
        generation: overrules what the folder seems to be.
        progress: called with (done, total, name).

    Returns:
        The report, also written to ``report.json``.

    Raises:
        CheckpointError: incomplete or damaged; which file or tensor, and why.
        UnsupportedModelError: not a ChatGLM, or bits that its publisher did not choose.
    """
    options = options or ConvertOptions()
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    with locked(target.with_name(f".{target.name}.lock"), "this model is being added"):
        return _convert(source, target, options, generation, progress)


def _convert(
    source: Path,
    target: Path,
    options: ConvertOptions,
    generation: Generation | None,
    progress: Progress | None,
) -> dict[str, Any]:
    config = read_config(source, generation)
    tokenizer_files = _tokenizer_files(source, config)
    tokenizer = load_tokenizer(source, config.generation, id_offset=config.id_offset)
    work, old = (target.with_name(f".{target.name}.{suffix}") for suffix in ("part", "old"))
    if old.is_dir() and not target.exists():
        old.rename(target)  # a process died between the two renames below
    for leftover in (work, old):
        shutil.rmtree(leftover, ignore_errors=True)
    _check_space(target.parent, config, options)
    work.mkdir()
    try:
        with Checkpoint.open(source) as checkpoint:
            is_official = _check_bits(checkpoint, config, options)
            samples = [tokenizer.encode(text) for text in SAMPLES]
            probe = _Probe(config, [ids for ids in samples if len(ids) > 1])
            _check_names(checkpoint, config)
            with TensorWriter(work / WEIGHTS) as writer:
                _write(checkpoint, config, options, writer, probe, progress)
                writer.finish({"config": config.to_dict(), "bits": options.bits})
            description = ModelDescription(
                config=config,
                bits=options.bits,
                group_size=0 if is_official and options.bits == 4 else options.group_size,
                source=source.resolve().name,
                source_hash=_source_hash(checkpoint),
                tokenizer_files={
                    name: hashlib.sha256((source / name).read_bytes()).hexdigest()
                    for name in tokenizer_files
                },
            )
        if options.bits == 4 and (layout := int4_layout()):
            write_packed(work / PACKED, TensorFile(work / WEIGHTS), config, layout, progress)
        for name in tokenizer_files:
            shutil.copyfile(source / name, work / name)
        report = probe.report() | {
            "bits": options.bits,
            "group_size": description.group_size,
            "quantized_by": "publisher" if is_official else "us",
        }
        (work / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        (work / DESCRIPTION).write_text(description.to_json(), encoding="utf-8")
        if target.exists():
            target.rename(old)
        work.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as exc:
        raise CheckpointError(f"the model cannot be written to {str(target)!r}: {exc}") from exc
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return report


def _sweep(folder: Path) -> None:
    """Remove what killed processes left of other models."""
    for leftover in folder.glob(".*.part"):
        name = leftover.name.removeprefix(".").removesuffix(".part")
        try:
            with locked(folder / f".{name}.lock", "it is being added"):
                shutil.rmtree(leftover, ignore_errors=True)
        except CheckpointError:
            continue  # a live process is writing it


def _check_space(folder: Path, config: ModelConfig, options: ConvertOptions) -> None:
    size = weights_bytes(config, options.bits, options.group_size)
    needed = size * 2 if options.bits == 4 else size  # plain and packed
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CheckpointError(
            f"the model needs about {needed / 1e9:.1f} GB in {str(folder)!r}, and "
            f"{free / 1e9:.1f} GB are free; make room there"
        )


def _write(
    checkpoint: Checkpoint,
    config: ModelConfig,
    options: ConvertOptions,
    writer: TensorWriter,
    probe: "_Probe",
    progress: Progress | None,
) -> None:
    listed = list(parameters(config))
    for done, parameter in enumerate(listed):
        original, stored = _read(checkpoint, parameter, config, options)
        add_parameter(writer, parameter.name, stored)
        probe.see(parameter, original, stored)
        if progress:
            progress(done + 1, len(listed), parameter.name)


def _read(
    checkpoint: Checkpoint, parameter: Parameter, config: ModelConfig, options: ConvertOptions
) -> tuple[torch.Tensor, Weight]:
    """Return a parameter as the checkpoint has it, and as it will be stored."""
    name = parameter.published
    scale_name = f"{name}_scale"
    if scale_name in checkpoint:
        imported = _official(checkpoint, parameter)
        original = dequantize(imported, torch.bfloat16)
        is_table = parameter.kind == "embedding" and isinstance(imported, Int4Weight)
        return original, original if is_table else imported
    if parameter.kind == "head" and name not in checkpoint:
        # ChatGLM-6B ties the head to the embedding, and its int4 file stores one of them
        name = next(parameters(config)).published
        if f"{name}_scale" in checkpoint:
            original = dequantize(_official(checkpoint, next(parameters(config))), torch.bfloat16)
            return original, _quantize(original, parameter, options)
    original = checkpoint.tensor(name, parameter.shape)
    try:
        return original, _quantize(original, parameter, options)
    except CheckpointError as exc:
        raise CheckpointError(f"{str(checkpoint.folder)!r}: {name!r}: {exc}") from exc


def _quantize(original: torch.Tensor, parameter: Parameter, options: ConvertOptions) -> Weight:
    if parameter.kind == "vector":
        return original.float()
    if parameter.kind == "embedding":
        wants_codes = options.embedding == "int8"
        return _by_rows(original, 8, 0) if wants_codes else original.to(torch.bfloat16)
    if options.bits == 16 or (parameter.kind == "head" and not options.quantize_head):
        return original.to(torch.bfloat16)
    # a matrix whose rows cannot be cut into groups is kept at 8 bits
    bits = 4 if options.bits == 4 and original.shape[1] % options.group_size == 0 else 8
    return _by_rows(original, bits, options.group_size)


def _by_rows(original: torch.Tensor, bits: int, group_size: int) -> Weight:
    """Quantize some rows at a time, so that fp32 copies stay small."""
    blocks = original.split(_ROWS_AT_ONCE)
    if bits == 8:
        eights = [quantize_int8(block) for block in blocks]
        return Int8Weight(
            torch.cat([part.codes for part in eights]), torch.cat([part.scales for part in eights])
        )
    fours = [quantize_int4(block, group_size) for block in blocks]
    zeros = [part.zeros for part in fours if part.zeros is not None]
    return Int4Weight(
        torch.cat([part.codes for part in fours]),
        torch.cat([part.scales for part in fours]),
        torch.cat(zeros),
    )


def _official(checkpoint: Checkpoint, parameter: Parameter) -> Int8Weight | Int4Weight:
    n_rows, n_columns = parameter.shape
    codes = checkpoint.tensor(parameter.published)
    scales = checkpoint.tensor(f"{parameter.published}_scale", (n_rows,))
    if codes.dtype == torch.int8 and tuple(codes.shape) == (n_rows, n_columns):
        return from_official_int8(codes, scales)
    if codes.dtype == torch.int8 and tuple(codes.shape) == (n_rows, n_columns // 2):
        return from_official_int4(codes, scales)
    raise CheckpointError(
        f"{parameter.published!r} is quantized, but {tuple(codes.shape)} {codes.dtype} is neither "
        f"the int8 nor the int4 form of {parameter.shape}"
    )


def _check_bits(checkpoint: Checkpoint, config: ModelConfig, options: ConvertOptions) -> bool:
    """Say whether the publisher quantized it; then only the publisher's bits will do."""
    matrix = next(parameter for parameter in parameters(config) if parameter.kind == "matrix")
    if f"{matrix.published}_scale" not in checkpoint:
        return False
    bits = 4 if isinstance(_official(checkpoint, matrix), Int4Weight) else 8
    if options.bits != bits:
        raise UnsupportedModelError(
            f"{str(checkpoint.folder)!r} was quantized to {bits} bits by its publisher and cannot "
            f"become a model of {options.bits} bits; add it with {bits} bits, or start from the "
            "fp16 checkpoint"
        )
    return True


def _check_names(checkpoint: Checkpoint, config: ModelConfig) -> None:
    """Refuse an incomplete checkpoint before the work begins."""
    missing = [
        parameter.published
        for parameter in parameters(config)
        if parameter.published not in checkpoint
        and not (parameter.kind == "head" and config.generation == "chatglm")
    ]
    if missing:
        shown = ", ".join(missing[:3]) + (" and others" if len(missing) > 3 else "")
        raise CheckpointError(
            f"{str(checkpoint.folder)!r} lacks {len(missing)} tensors of a "
            f"{config.generation} model with {config.n_layers} layers: {shown}; fetch it again, or "
            "name the generation if config.json is of another model"
        )


def _tokenizer_files(source: Path, config: ModelConfig) -> list[str]:
    needed = "ice_text.model" if config.generation == "chatglm" else "tokenizer.model"
    check_file(source / needed)
    return [name for name in _TOKENIZER_FILES if (source / name).is_file()]


def _source_hash(checkpoint: Checkpoint) -> str:
    """Hash names, sizes and first MiB of the weight files: tells revisions apart in a second."""
    digest = hashlib.sha256()
    for path in checkpoint.paths():
        digest.update(f"{path.name}:{path.stat().st_size}:".encode())
        with path.open("rb") as file:
            digest.update(file.read(2**20))
    return digest.hexdigest()


class _Probe:
    """Runs sample texts through original and quantized layers while they pass by."""

    def __init__(self, config: ModelConfig, samples: Sequence[Sequence[int]]) -> None:
        self._config = replace(config, n_layers=1)
        self._samples = [torch.tensor(ids) for ids in samples]
        self._pending: dict[str, tuple[torch.Tensor, Weight]] = {}
        self._hidden: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._layers: list[dict[str, float]] = []
        self._logits: dict[str, float] = {}

    def see(self, parameter: Parameter, original: torch.Tensor, stored: Weight) -> None:
        """Take note of a parameter; run a layer once it is complete."""
        if parameter.kind == "embedding":
            table = dequantize(stored, torch.bfloat16)
            self._hidden = [(original[ids].float(), table[ids].float()) for ids in self._samples]
            return
        self._pending[parameter.name] = (original, stored)
        if parameter.name.endswith("ffn_out.bias" if self._has_last_bias else "ffn_out"):
            self._run_layer(parameter.name.split(".")[1])
        elif parameter.kind == "head":
            self._run_head()

    def report(self) -> dict[str, Any]:
        """Return relative errors: of matrices and hidden states per layer, and of logits."""
        return {"layers": self._layers, "logits": self._logits, "samples": len(self._samples)}

    @property
    def _has_last_bias(self) -> bool:
        return self._config.generation == "chatglm" or self._config.has_linear_bias

    def _run_layer(self, layer: str) -> None:
        prefix = f"layers.{layer}."
        errors = {
            name.removeprefix(prefix): _matrix_error(stored, original)
            for name, (original, stored) in self._pending.items()
            if not isinstance(stored, torch.Tensor)
        }
        models = [
            self._one_layer({
                name.replace(prefix, "layers.0."): dequantize(pair[which], torch.bfloat16)
                for name, pair in self._pending.items()
            })
            for which in (0, 1)
        ]  # fmt: skip
        self._pending.clear()
        passed = []
        for original, quantized in self._hidden:
            outs = []
            for model, x in zip(models, (original, quantized), strict=True):
                cache = KVCache(self._config, len(x))
                cache.context_length = len(x) - 1
                outs.append(model.through_blocks(x, cache))
            passed.append((outs[0], outs[1]))
        self._hidden = passed
        errors["hidden"] = _mean(_relative(found, true) for true, found in passed)
        self._layers.append({name: round(value, 6) for name, value in errors.items()})

    def _run_head(self) -> None:
        final = {name: pair[0].float() for name, pair in self._pending.items() if name != "head"}
        original, stored = self._pending.pop("head")
        errors, agreements = [], []
        for pair in self._hidden:
            normed = [self._final_norm(x.float(), final).to(torch.bfloat16) for x in pair]
            true, found = _by_blocks(normed[0], original), _by_blocks(normed[1], stored)
            errors.append(_relative(found, true))
            agreements.append(float((true.argmax(-1) == found.argmax(-1)).float().mean()))
        self._logits = {
            "relative_error": round(_mean(errors), 6),
            "same_first_choice": round(_mean(agreements), 4),
        }
        self._pending.clear()

    def _final_norm(self, x: torch.Tensor, final: dict[str, torch.Tensor]) -> torch.Tensor:
        weight, eps = final["final_norm.weight"], self._config.norm_eps
        if self._config.generation != "chatglm":
            return rms_norm(x, weight, eps)
        bias = final["final_norm.bias"]
        return torch.nn.functional.layer_norm(x, weight.shape, weight, bias, eps)

    def _one_layer(self, values: dict[str, torch.Tensor]) -> Any:
        """Return a model of this layer alone, for `through_blocks`."""
        hidden = self._config.hidden_size
        empty = torch.zeros(1, hidden)
        values |= {"embedding": empty, "head": empty, "final_norm.weight": torch.ones(hidden)}
        values["final_norm.bias"] = torch.zeros(hidden)
        return assemble(self._config, values.__getitem__, dtype=torch.bfloat16)


def _matrix_error(stored: Weight, original: torch.Tensor) -> float:
    """Return `_relative` of a whole matrix, some rows at a time."""
    difference = total = 0.0
    for first in range(0, original.shape[0], _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        true = original[rows].float()
        difference += float((dequantize(take_rows(stored, rows)) - true).square().sum())
        total += float(true.square().sum())
    return (difference / total) ** 0.5 if total else 0.0


def _by_blocks(x: torch.Tensor, matrix: Weight) -> torch.Tensor:
    """Return x @ matrix.T in fp32, expanding some rows of the matrix at a time."""
    n_rows = matrix.shape[0]
    return torch.cat(
        [
            (x @ dequantize(take_rows(matrix, slice(i, i + _ROWS_AT_ONCE)), x.dtype).T).float()
            for i in range(0, n_rows, _ROWS_AT_ONCE)
        ],
        dim=-1,
    )


def _relative(found: torch.Tensor, true: torch.Tensor) -> float:
    """Return the Frobenius norm of the difference over that of the truth."""
    norm = float(true.float().norm())
    return float((found.float() - true.float()).norm()) / norm if norm else 0.0


def _mean(values: Iterator[float] | Sequence[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0
