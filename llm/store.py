"""A converted model on disk: written once from a checkpoint, opened in seconds ever after.

    MODEL/model.json            shape, bits, where it came from
    MODEL/weights.safetensors   codes and scales in plain layout, readable on any machine
    MODEL/packed.safetensors    int4 only: the same in the layout of this machine's kernels
    MODEL/report.json           what quantization cost, layer by layer
    MODEL/tokenizer files       copied from the checkpoint

`load_model` maps the packed file where it fits this machine, and writes it anew where it does
not (another instruction set, or another version of torch where torch's kernel is used).
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from llm.config import ModelConfig
from llm.errors import CheckpointError, NotEnoughMemoryError
from llm.files import locked
from llm.kv_cache import KVForm, kv_bytes
from llm.memory import WORKING_BYTES, available_bytes, needed_bytes
from llm.model import Model
from llm.packed import Layout, PackedInt4, can_pack, find_block_rows, int4_layout, pack
from llm.parameters import Stored, assemble, parameters
from llm.quantize import GROUP_SIZES, Int4Weight, Int8Weight
from llm.tensor_file import TensorFile, TensorWriter
from llm.tiles import TiledInt4, can_tile, tile

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
DESCRIPTION = "model.json"
WEIGHTS = "weights.safetensors"
PACKED = "packed.safetensors"
REPORT = "report.json"

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What ``model.json`` says.

    bits: 4, 8 or 16; group_size: columns per scale for 4 bits, 0 where the checkpoint came
    quantized per row; source: the checkpoint's folder name; source_hash: SHA-256 over its
    weight files' names, sizes and heads; tokenizer_files: name to SHA-256.
    """

    config: ModelConfig
    bits: int
    group_size: int
    source: str
    source_hash: str
    tokenizer_files: dict[str, str]

    def to_json(self) -> str:
        values = {"format_version": FORMAT_VERSION, **asdict(self)}
        return json.dumps(values, ensure_ascii=False, indent=2) + "\n"


def read_description(folder: Path) -> ModelDescription:
    """Read ``model.json``.

    Raises:
        CheckpointError: not a converted model, damaged, or from a newer version.
    """
    path = folder / DESCRIPTION
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = dict(values).pop("format_version")
    except FileNotFoundError as exc:
        raise CheckpointError(f"{str(folder)!r} is not a converted model") from exc
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise CheckpointError(f"{str(path)!r} is damaged; add the model again") from exc
    del values["format_version"]
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{str(folder)!r} has the format {version}, this program reads {FORMAT_VERSION}; "
            "add the model again"
        )
    try:
        config = ModelConfig.from_dict(values.pop("config"))
        described = ModelDescription(config=config, **values)
        if described.bits not in (4, 8, 16) or described.group_size not in (0, *GROUP_SIZES):
            raise ValueError("bits or group_size")
        if any(Path(name).name != name for name in described.tokenizer_files):
            raise ValueError("tokenizer_files or source")
        return described
    except (TypeError, KeyError, ValueError, AttributeError, CheckpointError) as exc:
        raise CheckpointError(f"{str(path)!r} is damaged: {exc}; add the model again") from exc


def load_model(
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    context_tokens: int = 0,
    kv_form: KVForm = "model",
    progress: Progress | None = None,
) -> Model:
    """Open a converted model.

    Args:
        folder: by `llm.convert.convert`.
        dtype: of activations; default bf16, the only one that torch's CPU kernels take.
        device: a CPU, or CUDA, where codes are expanded for each product.
        context_tokens: refuse to load unless this much context would fit besides.
        kv_form: as for `KVCache`; counts for that check only.
        progress: called with (done, total, name) while the packed file is written anew.

    Raises:
        CheckpointError: damaged or missing files.
        NotEnoughMemoryError: before anything is loaded.
    """
    description = read_description(folder)
    dtype = dtype or torch.bfloat16
    check_memory(folder, context_tokens, kv_form, device, dtype)
    _check_tokenizer(folder, description)
    source = _plain_file(folder, description)
    is_cpu = torch.device(device).type == "cpu"
    if description.bits == 4 and is_cpu and dtype == torch.bfloat16 and (layout := int4_layout()):
        source = _packed_file(folder, source, description, layout, progress)
    get = reader(source, device)
    return assemble(description.config, get, dtype=dtype, device=device)


def check_memory(
    folder: Path,
    context_tokens: int,
    kv_form: KVForm = "model",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Refuse a model that does not fit, naming the nearest setting that does.

    Raises:
        NotEnoughMemoryError
        CheckpointError: not a converted model.
    """
    description = read_description(folder)
    config, available = description.config, available_bytes(device)
    value_bytes = torch.tensor([], dtype=dtype).element_size()
    files = [folder / name for name in (PACKED, WEIGHTS) if (folder / name).is_file()]
    weights = files[0].stat().st_size if files else 0
    weights *= 2 if description.bits == 16 and value_bytes == 4 else 1

    def needed(tokens: int, kv: KVForm) -> int:
        keys_values = kv_bytes(config, tokens, form=kv, value_bytes=value_bytes)
        return weights + keys_values + WORKING_BYTES

    if needed(context_tokens, kv_form) <= available:
        return
    room = available - needed(0, kv_form)
    lower = [bits for bits in (8, 4) if bits < description.bits]
    fits = [b for b in lower if needed_bytes(config, b, 2048, kv="int8") <= available]
    if needed(context_tokens, "int8") <= available:
        remedy = "keys and values as int8 would fit"
    elif room > kv_bytes(config, 1024, form="int8"):
        tokens = room // kv_bytes(config, 1, form="int8") // 256 * 256
        remedy = f"a context of {tokens:,} tokens with keys and values as int8 would fit"
    elif fits:
        remedy = f"the same model at {fits[0]} bits would fit; add it again with that"
    else:
        remedy = "no setting of this model fits; free memory, or take a smaller model"
    raise NotEnoughMemoryError(
        f"the model at {description.bits} bits with {context_tokens:,} tokens of context needs "
        f"{needed(context_tokens, kv_form) / 2**30:.1f} GB, and "
        f"{available / 2**30:.1f} GB are free; {remedy}"
    )


def find_damage(folder: Path) -> str | None:
    """Read a model's files whole and say what is damaged, None if nothing is.

    Raises:
        CheckpointError: a file is missing or cannot be read.
    """
    description = read_description(folder)
    _check_tokenizer(folder, description)
    _plain_file(folder, description)
    for name in (WEIGHTS, PACKED):
        if name == PACKED and not (folder / name).is_file():
            continue
        if damaged := next(TensorFile(folder / name).damaged(), None):
            return f"{name}: the tensor {damaged!r} is damaged; add the model again"
    return None


def reader(source: TensorFile, device: torch.device | str = "cpu") -> Callable[[str], Stored]:
    """Return a function that reads parameters by name, in whatever form the file holds."""

    def tensor(name: str) -> torch.Tensor:
        return source.tensor(name).to(device)

    def get(name: str) -> Stored:
        if f"{name}.tiles" in source:
            return TiledInt4(tensor(f"{name}.tiles"))
        if f"{name}.packed" in source:
            return PackedInt4(
                tensor(f"{name}.packed"), tensor(f"{name}.scales_zeros"), find_block_rows()
            )
        if f"{name}.codes4" in source:
            zeros = tensor(f"{name}.zeros") if f"{name}.zeros" in source else None
            return Int4Weight(tensor(f"{name}.codes4"), tensor(f"{name}.scales"), zeros)
        if f"{name}.codes8" in source:
            return Int8Weight(tensor(f"{name}.codes8"), tensor(f"{name}.scales"))
        return tensor(name)

    return get


def add_parameter(writer: TensorWriter, name: str, value: Stored) -> None:
    """Write one parameter in its form; `reader` finds it again."""
    parts: Mapping[str, torch.Tensor | None]
    if isinstance(value, torch.Tensor):
        parts = {"": value}
    elif isinstance(value, Int8Weight):
        parts = {".codes8": value.codes, ".scales": value.scales}
    elif isinstance(value, Int4Weight):
        parts = {".codes4": value.codes, ".scales": value.scales, ".zeros": value.zeros}
    elif isinstance(value, TiledInt4):
        parts = {".tiles": value.octets}
    else:
        parts = {".packed": value.codes, ".scales_zeros": value.scales_zeros}
    for suffix, tensor in parts.items():
        if tensor is not None:
            writer.add(f"{name}{suffix}", tensor)


def write_packed(
    path: Path,
    source: TensorFile,
    config: ModelConfig,
    layout: Layout,
    progress: Progress | None = None,
) -> None:
    """Write the file for this machine's int4 kernels from the plain one.

    What they do not take stays as it is.

    Raises:
        CheckpointError: a tensor of the plain file is damaged.
    """
    if damaged := next(source.damaged(), None):
        raise CheckpointError(
            f"{str(source.path)!r}: the tensor {damaged!r} is damaged; add the model again"
        )
    get, listed = reader(source), list(parameters(config))
    with TensorWriter(path) as writer:
        for done, parameter in enumerate(listed):
            value = get(parameter.name)
            if isinstance(value, Int4Weight):
                value = _packed(value, layout)
            add_parameter(writer, parameter.name, value)
            if progress:
                progress(done + 1, len(listed), parameter.name)
        writer.finish(machine(layout) | {"weights": weights_mark(source)})


def _packed(value: Int4Weight, layout: Layout) -> Stored:
    if layout == "tiles":
        return tile(value) if can_tile(value) else value
    return pack(value) if can_pack(value.shape, value.group_size) else value


def machine(layout: Layout) -> dict[str, Any]:
    """Return what the packed file depends on."""
    common = {"format_version": FORMAT_VERSION, "layout": layout}
    if layout == "tiles":
        return common
    return common | {
        "block_rows": find_block_rows(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def weights_mark(source: TensorFile) -> str:
    """Return a hash of all checksums of a plain file: it changes with any of its bytes."""
    checksums = json.dumps(source.metadata["checksums"], sort_keys=True)
    return hashlib.sha256(checksums.encode()).hexdigest()


def _check_tokenizer(folder: Path, description: ModelDescription) -> None:
    for name, wanted in description.tokenizer_files.items():
        try:
            found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError as exc:
            raise CheckpointError(
                f"{str(folder / name)!r} cannot be read ({exc.strerror}); add the model again"
            ) from exc
        if found != wanted:
            raise CheckpointError(f"{str(folder / name)!r} is damaged; add the model again")


def _plain_file(folder: Path, description: ModelDescription) -> TensorFile:
    """Open the plain file; what it says of the model must be what ``model.json`` says."""
    try:
        file = TensorFile(folder / WEIGHTS)
    except CheckpointError as exc:
        raise CheckpointError(f"{exc}; add the model again") from exc
    said = (file.metadata.get("config"), file.metadata.get("bits"))
    if said != (description.config.to_dict(), description.bits):
        raise CheckpointError(
            f"{str(folder / DESCRIPTION)!r} and {WEIGHTS} do not describe the same model; add the "
            "model again"
        )
    return file


def _packed_file(
    folder: Path,
    plain: TensorFile,
    description: ModelDescription,
    layout: Layout,
    progress: Progress | None,
) -> TensorFile:
    """Open the packed file, after writing it anew if it is not of this machine."""
    path = folder / PACKED
    wanted = machine(layout) | {"weights": weights_mark(plain)}
    reason = "it is not there"
    if path.is_file():
        try:
            packed = TensorFile(path)
        except CheckpointError as exc:
            reason = str(exc)
        else:
            if all(packed.metadata.get(key) == value for key, value in wanted.items()):
                return packed
            reason = "it was made for another machine, version of torch or of this program"
    logger.warning("%s is written anew: %s", path, reason)
    try:
        with locked(folder / ".packing.lock", "the model is being packed"):
            for leftover in folder.glob(f".{PACKED}.*.part"):
                leftover.unlink()
            write_packed(path, plain, description.config, layout, progress)
    except OSError as exc:
        raise CheckpointError(
            f"{str(path)!r} must be written anew ({reason}), and cannot be: {exc.strerror}; make "
            f"room for {plain.path.stat().st_size / 1e9:.1f} GB, or make the folder writable"
        ) from exc
    return TensorFile(path)
