"""What a model looks like: one frozen record for every ChatGLM, read from its config.json.

All generations call themselves ``"model_type": "chatglm"``; `read_config` tells them apart and
lets the caller overrule it. Nothing in a checkpoint folder is ever executed.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

from llm.errors import CheckpointError, UnsupportedModelError

Generation = Literal["chatglm", "chatglm2", "chatglm3", "glm4"]
GENERATIONS: tuple[Generation, ...] = ("chatglm", "chatglm2", "chatglm3", "glm4")
SUPPORTED = (
    "ChatGLM-6B, ChatGLM2-6B, ChatGLM2-6B-32K, ChatGLM3-6B, -base, -32K, -128K, GLM-4-9B-chat "
    "and smaller models of the same shapes"
)

# The old ChatGLM-6B vocabulary began with 20,000 image tokens.
_OLD_VOCABULARY = 150_528
_IMAGE_TOKENS = 20_000
_GLM4_VOCABULARY = 151_552
# Flags of config.json that change the mathematics, and the only value that is implemented.
_IMPLEMENTED_V1 = {"position_encoding_2d": True}
_IMPLEMENTED = {
    "multi_query_attention": True,
    "rmsnorm": True,
    "original_rope": True,
    "apply_residual_connection_post_layernorm": False,
    "post_layer_norm": True,
}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape and constants of one model.

    `n_kv_heads` equals `n_heads` for multi-head attention (ChatGLM-6B) and is the number of
    multi-query groups otherwise. `rope_base` is the base of the rotary angles;
    `rope_scale` divides positions (linear interpolation, ChatGLM2-6B-32K only).
    """

    generation: Generation
    n_layers: int
    hidden_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    ffn_size: int
    vocab_size: int
    context_window: int
    norm_eps: float
    rope_base: float = 10_000.0
    rope_scale: float = 1.0
    has_qkv_bias: bool = True
    has_linear_bias: bool = False
    id_offset: int = 0  # ChatGLM-6B before April 2023: ids of all tokens shifted by this
    is_chat: bool = True

    @property
    def is_prefix_bidirectional(self) -> bool:
        """ChatGLM-6B: all prompt tokens see each other, so no part of a prompt can be reused."""
        return self.generation == "chatglm"

    @property
    def qkv_size(self) -> int:
        return (self.n_heads + 2 * self.n_kv_heads) * self.head_dim

    @property
    def ffn_in_size(self) -> int:
        """Rows of the first MLP matrix: gate and up for the gated generations."""
        return self.ffn_size if self.generation == "chatglm" else 2 * self.ffn_size

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Rebuild a record written by `to_dict`.

        Raises:
            CheckpointError: a field is missing or unknown.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise CheckpointError(f"the model's description has unknown fields: {unknown}")
        for field in fields(cls):
            value = values.get(field.name, field.default)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            is_right = {
                int: is_number and isinstance(value, int),
                float: is_number,
                bool: isinstance(value, bool),
            }
            if not is_right.get(field.type, isinstance(value, str)):  # type: ignore[arg-type]
                raise CheckpointError(f"the model's description has an odd {field.name}")
        try:
            return cls(**values)
        except TypeError as exc:
            raise CheckpointError(f"the model's description is incomplete: {exc}") from exc


def read_config(folder: Path, generation: Generation | None = None) -> ModelConfig:
    """Read ``config.json`` of a published checkpoint folder.

    Args:
        folder: the folder.
        generation: overrules what the folder seems to be.

    Raises:
        CheckpointError: config.json is missing, unreadable, or lacks a number.
        UnsupportedModelError: not a ChatGLM.
    """
    values = _read_json(folder / "config.json")
    if values is None:
        raise CheckpointError(
            f"{str(folder)!r} has no config.json; name the folder that holds the whole checkpoint"
        )
    if values.get("model_type") not in ("chatglm", None) or "num_attention_heads" not in values:
        raise UnsupportedModelError(
            f"{str(folder)!r} holds a model of type {values.get('model_type')!r}; "
            f"supported are {SUPPORTED}"
        )
    try:
        found = generation or _tell_generation(folder, values)
        config = _first_generation(values) if found == "chatglm" else _later(values, found, folder)
    except KeyError as exc:
        raise CheckpointError(f"config.json of {str(folder)!r} lacks {exc.args[0]!r}") from exc
    except (TypeError, ValueError) as exc:
        raise CheckpointError(f"config.json of {str(folder)!r} does not fit: {exc}") from exc
    _check(config, folder)
    _check_flags(config, values, folder)
    return config


def _tell_generation(folder: Path, values: Mapping[str, Any]) -> Generation:
    if "multi_query_attention" not in values:
        return "chatglm"
    if int(values["padded_vocab_size"]) >= _GLM4_VOCABULARY or int(values["num_layers"]) == 40:
        return "glm4"
    tokenizer = _read_json(folder / "tokenizer_config.json") or {}
    if tokenizer.get("tokenizer_class") == "ChatGLM4Tokenizer":
        return "glm4"
    # ChatGLM2 and 3 have the same config and the same tokenizer.model: only names differ.
    names = " ".join(
        str(name).lower()
        for name in (values.get("_name_or_path"), tokenizer.get("name_or_path"), _own_name(folder))
        if name
    )
    if "chatglm3" in names:
        return "chatglm3"
    if "chatglm2" in names or "codegeex2" in names:
        return "chatglm2"
    if "chat_template" in tokenizer:
        return "chatglm3"
    code = folder / "tokenization_chatglm.py"
    if code.is_file() and "<|assistant|>" in code.read_text(encoding="utf-8", errors="replace"):
        return "chatglm3"
    return "chatglm2"


def _first_generation(values: Mapping[str, Any]) -> ModelConfig:
    hidden, heads = int(values["hidden_size"]), int(values["num_attention_heads"])
    vocabulary = int(values["vocab_size"])
    return ModelConfig(
        generation="chatglm",
        n_layers=int(values["num_layers"]),
        hidden_size=hidden,
        n_heads=heads,
        n_kv_heads=heads,
        head_dim=hidden // heads,
        ffn_size=int(values.get("inner_hidden_size") or 4 * hidden),
        vocab_size=vocabulary,
        context_window=int(values.get("max_sequence_length") or 2048),
        norm_eps=float(values.get("layernorm_epsilon", 1e-5)),
        has_linear_bias=True,
        id_offset=_IMAGE_TOKENS if vocabulary == _OLD_VOCABULARY else 0,
    )


def _later(values: Mapping[str, Any], generation: Generation, folder: Path) -> ModelConfig:
    heads = int(values["num_attention_heads"])
    ratio = float(values.get("rope_ratio") or 1.0)
    # ChatGLM2-6B-32K interpolates positions (its model card says so); every later model raises
    # the base instead. The wrong one of the two gives gibberish.
    scales_positions = generation == "chatglm2"
    name = str(values.get("_name_or_path") or _own_name(folder))
    return ModelConfig(
        generation=generation,
        n_layers=int(values["num_layers"]),
        hidden_size=int(values["hidden_size"]),
        n_heads=heads,
        n_kv_heads=int(values["multi_query_group_num"]),
        head_dim=int(values.get("kv_channels") or int(values["hidden_size"]) // heads),
        ffn_size=int(values["ffn_hidden_size"]),
        vocab_size=int(values["padded_vocab_size"]),
        context_window=int(values["seq_length"]),
        norm_eps=float(values.get("layernorm_epsilon", 1e-5)),
        rope_base=10_000.0 * (1.0 if scales_positions else ratio),
        rope_scale=ratio if scales_positions else 1.0,
        has_qkv_bias=bool(values.get("add_qkv_bias", True)),
        has_linear_bias=bool(values.get("add_bias_linear", False)),
        is_chat=not name.rstrip("/").lower().endswith("-base"),
    )


def _check(config: ModelConfig, folder: Path) -> None:
    numbers = (
        config.n_layers, config.hidden_size, config.n_heads, config.n_kv_heads,
        config.head_dim, config.ffn_size, config.vocab_size, config.context_window,
    )  # fmt: skip
    if min(numbers) < 1 or config.n_heads % config.n_kv_heads or config.head_dim % 4:
        raise CheckpointError(
            f"config.json of {str(folder)!r} does not describe a model: {config.n_heads} heads, "
            f"{config.n_kv_heads} key-value heads, head size {config.head_dim}, "
            f"{config.n_layers} layers, context {config.context_window}"
        )


def _check_flags(config: ModelConfig, values: Mapping[str, Any], folder: Path) -> None:
    implemented = _IMPLEMENTED_V1 if config.generation == "chatglm" else _IMPLEMENTED
    for name, wanted in implemented.items():
        if values.get(name, wanted) != wanted:
            raise UnsupportedModelError(
                f"config.json of {str(folder)!r} has {name} = {values[name]!r}; only {wanted!r} "
                f"is implemented. Supported are {SUPPORTED}"
            )
    if values.get("pre_seq_len"):
        raise UnsupportedModelError(
            f"{str(folder)!r} was tuned with a prefix (pre_seq_len), which is not supported yet; "
            "use the model without it"
        )


def _own_name(folder: Path) -> str:
    return folder.resolve().name


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as exc:
        raise CheckpointError(f"cannot read {str(path)!r}: {exc}") from exc
    if not isinstance(values, dict):
        raise CheckpointError(f"{str(path)!r} is not a JSON object")
    return cast(dict[str, Any], values)
