"""Settings: one frozen object, read once, here and nowhere else.

Precedence: flag > environment ``KB_*`` > ``$KB_HOME/kb.toml`` > default. An unknown key in
kb.toml is an error; an unknown KB_* variable warns, since other programs may own it. What
belongs to the data (embedder, splitter, threshold) is stored with the data, not here.
"""

import difflib
import logging
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_data_dir
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from kb.errors import ConfigError

logger = logging.getLogger(__name__)

ENV_PREFIX = "KB_"
FILE_NAME = "kb.toml"


def default_home() -> Path:
    """Return the platform's folder for our data."""
    return Path(user_data_dir("kb", appauthor=False))


class Settings(BaseSettings):
    """Every setting, with its unit and the reason for its default."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    home: Path = Field(
        default_factory=default_home,
        description="Data folder; the default is the platform's place for user data.",
    )
    host: str = Field("127.0.0.1", description="Address of `kb serve`; others need an API key.")
    port: int = Field(8000, ge=0, le=65535, description="Port of `kb serve`; 0 picks a free one.")
    api_key: SecretStr | None = Field(
        None, description="Key that every API call must carry; none is asked for on loopback."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "WARNING", description="Questions, answers and document text appear at DEBUG only."
    )

    top_k: int = Field(
        5, ge=1, le=100, description="Passages put to the answerer; about 2,000 tokens at 5."
    )
    reranker: str = Field(
        "",
        description="Cross-encoder that reorders what was found: its folder, or a name such as "
        "bge-reranker-base; none by default, since it takes seconds without a GPU.",
    )
    rerank_top: int = Field(
        30, ge=1, le=100, description="Passages that the reranker reads for each question."
    )
    answerer: Literal["auto", "extractive", "chatglm", "openai"] = Field(
        "auto",
        description="Who writes answers; auto is chatglm once a model is in use, else extractive.",
    )
    model: str = Field("", description="Model to use instead of the one of `kb model use`.")
    kv_cache: Literal["model", "int8"] = Field(
        "model", description="How ChatGLM keeps keys and values: bf16, or half of it as int8."
    )
    openai_base_url: str = Field(
        "http://127.0.0.1:8080/v1", description="OpenAI-compatible server, for answerer=openai."
    )
    openai_model: str = Field("", description="Model name to ask that server for.")
    openai_api_key: SecretStr | None = Field(None, description="Key for that server, if any.")
    context_tokens: int = Field(
        8192, ge=1024, description="Context window for the prompt; ChatGLM2 and 3 have 8,192."
    )
    max_new_tokens: int = Field(1024, ge=16, description="Longest completion, in tokens.")
    # Off: a CPU reads some 50 tokens of a prompt per second.
    widen_chars: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Characters by which passages may grow to their neighbours for a chat model.",
    )

    trace_days: int = Field(
        365,
        ge=0,
        le=36_500,
        description="Days that answers are kept, for `kb replay` and old citations; 0 keeps none.",
    )

    hub: Literal["huggingface", "modelscope"] = Field(
        "huggingface", description="Where `kb model pull` looks; in China modelscope is nearer."
    )
    hub_endpoint: str = Field(
        "", description="A mirror of that hub, such as https://hf-mirror.com."
    )
    hub_token: SecretStr | None = Field(
        None, description="Token for that hub, if a model needs an account; sent nowhere else."
    )

    embedder: str = Field(
        "all-MiniLM-L6-v2",
        description="Embedder of new knowledge bases: a name such as bge-small-zh-v1.5, or a "
        "folder. Existing ones keep theirs until `kb reembed`.",
    )
    embedder_query_prefix: str | None = Field(
        None, description="What that embedder wants before a question, where we do not know it."
    )
    embedder_passage_prefix: str | None = Field(
        None, description="What it wants before a passage, likewise."
    )
    embedder_scripts: tuple[str, ...] = Field(
        (),
        description="Scripts that it was trained on, such as Hani,Latn; needed where it is not "
        "known by name. Questions in others are found by full text alone.",
    )
    embedder_form: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Number format of the embedder in new knowledge bases; auto is the fastest "
        "of this machine. Existing ones keep theirs.",
    )
    embed_batch: int = Field(
        16, ge=1, le=1024, description="Texts per step of the embedder; measured best of 8 to 64."
    )
    threads: int = Field(
        0,
        ge=0,
        description="Threads for the embedder and for ChatGLM; 0 lets torch take every core.",
    )

    max_upload_mb: int = Field(
        1024, ge=1, description="Largest upload request in MB; a folder drop is one request."
    )
    max_file_mb: int = Field(
        200, ge=1, description="Largest file in MB that is parsed; scans of books stay below."
    )
    max_pages: int = Field(5000, ge=1, description="Most pages of one PDF.")
    max_cells: int = Field(2_000_000, ge=1, description="Most table cells of one file.")
    max_text_chars: int = Field(
        20_000_000, ge=1, description="Most characters of text from one file; ten long novels."
    )
    max_ocr_pages: int = Field(
        500, ge=0, description="Most pages of one file read by OCR, 5 to 20 s each; 0 is no OCR."
    )
    passwords: tuple[SecretStr, ...] = Field(
        (), description="Passwords to try on locked PDFs; in the environment one per line."
    )
    parse_timeout_s: float = Field(
        120,
        gt=0,
        description="Seconds for one file, or part of a page by OCR, before its parser is killed.",
    )
    parse_memory_mb: int = Field(
        2048, ge=256, description="Memory in MB of one parser before it is killed."
    )
    parse_processes: int = Field(
        0,
        ge=0,
        le=64,
        description="Files parsed at once, each in its process; 0 for as many as cores, at most 4.",
    )

    @field_validator("embedder_scripts", mode="before")
    @classmethod
    def _scripts(cls, value: object) -> object:
        """Split what the environment gives; kb.toml has a list."""
        parts = value.split(",") if isinstance(value, str) else value
        if isinstance(parts, (list, tuple)):
            wrong = [part for part in parts if not re.fullmatch("[A-Z][a-z]{3}", str(part).strip())]
            if wrong:
                raise ValueError(f"{wrong[0]!r} is no script by ISO 15924, such as Hani or Latn")
            return tuple(str(part).strip() for part in parts)
        return parts

    @field_validator("passwords", mode="before")
    @classmethod
    def _one_per_line(cls, value: object) -> object:
        """Split what the environment gives; kb.toml has a list."""
        return [line for line in value.split("\n") if line] if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # `load_settings` merges the sources itself, so that it can say where each value is from.
        return (init_settings,)


def load_settings(flags: Mapping[str, Any] | None = None) -> tuple[Settings, dict[str, str]]:
    """Read all sources.

    Args:
        flags: values from the command line; None values count as not given.

    Returns:
        The settings, and for each field where its value came from.

    Raises:
        ConfigError: an unknown key in kb.toml or a value that does not fit.
    """
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    from_env = _from_environment()
    home = Path(given.get("home") or from_env.get("home") or default_home())
    from_file, file_path = _from_file(home)

    values: dict[str, Any] = {"home": home}
    origins = dict.fromkeys(Settings.model_fields, "default")
    layers = (
        (from_file, lambda key: str(file_path)),
        (from_env, lambda key: ENV_PREFIX + key.upper()),
        (given, lambda key: "--" + key.replace("_", "-")),
    )
    for layer, origin in layers:
        for key, value in layer.items():
            values[key] = value
            origins[key] = origin(key)
    try:
        settings = Settings(**values)
    except ValidationError as exc:
        first = exc.errors()[0]
        key = str(first["loc"][0])
        raise ConfigError(
            f"setting {key!r} from {origins.get(key, 'default')} has a value that does not fit: "
            f"{first['msg']}"
        ) from exc
    return settings.model_copy(update={"home": settings.home.expanduser().absolute()}), origins


def _from_environment() -> dict[str, str]:
    values = {}
    for name, value in os.environ.items():
        if not name.startswith(ENV_PREFIX) or not value:
            continue
        key = name.removeprefix(ENV_PREFIX).lower()
        if key in Settings.model_fields:
            values[key] = value
        else:
            logger.warning("environment variable %s is not a setting of kb%s", name, _nearest(key))
    return values


def _from_file(home: Path) -> tuple[dict[str, Any], Path]:
    path = home / FILE_NAME
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return {}, path
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigError(f"cannot read {str(path)!r}: {exc}") from exc
    if "home" in values:
        raise ConfigError(f"{str(path)!r}: home cannot be set here; use KB_HOME or --home")
    for key in values:
        if key not in Settings.model_fields:
            raise ConfigError(f"{str(path)!r}: unknown setting {key!r}{_nearest(key)}")
    return values, path


def _nearest(key: str) -> str:
    close = difflib.get_close_matches(key, Settings.model_fields, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
