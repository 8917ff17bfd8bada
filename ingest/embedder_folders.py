"""Embedders in folders: which folder a name means, what its settings are, and its identity.

    $KB_HOME/embedders/NAME/        the files of a published embedder (`kb model pull NAME`)
    $KB_HOME/embedders/HASH.json    a folder that was used, wherever it lies, with its settings

The identity is a hash of the folder's files together with the settings, so a base finds its
embedder again however the folder is called, and never takes another one for it. Hashing gigabytes
takes seconds, so the record keeps the hash beside sizes and times of the files. Nothing heavy is
imported here; `ingest.embedder` loads the weights.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ingest.embedder_names import KNOWN_EMBEDDERS, NEED_CODE, Pooling
from kb.errors import ConfigError, EmbedderError
from kb.models import EMBEDDERS
from kb.records import EmbedderSpec

logger = logging.getLogger(__name__)

BUILT_IN = "all-MiniLM-L6-v2"
# What a text is cut to where the folder does not say; chunks have about 250 tokens.
DEFAULT_MAX_TOKENS = 512
# What decides over vectors: configuration, vocabularies, weights.
_SMALL = (".json", ".txt", ".model")
_WEIGHTS = (".safetensors", ".bin")
_PROMPTS = {"query": ("query", "search_query"), "passage": ("document", "passage")}


@dataclass(frozen=True, slots=True)
class FolderSettings:
    """How an embedder is used. `pooling` is "" where the folder's `modules.json` says it."""

    name: str
    folder: str
    dimension: int
    max_tokens: int
    pooling: Pooling
    scripts: tuple[str, ...]
    query_prefix: str
    passage_prefix: str


@dataclass(frozen=True, slots=True)
class InstalledFolder:
    """Settings with what the files were when they were hashed."""

    settings: FolderSettings
    digest: str
    stamp: str

    def identity(self, form: str) -> str:
        """Return what a base pins: files, number format and settings, but not where they lie."""
        used = self.settings
        told = json.dumps(
            [used.max_tokens, used.pooling, used.query_prefix, used.passage_prefix],
            ensure_ascii=False,
        )
        return f"{self.digest[:24]}/{form}/{hashlib.sha256(told.encode()).hexdigest()[:12]}"

    def is_there(self) -> bool:
        """Whether the folder still holds the files that were hashed."""
        return _stamp(Path(self.settings.folder)) == self.stamp


@dataclass(frozen=True, slots=True)
class OwnSettings:
    """What the user says of a folder that is not known by name; None is left to the folder."""

    query_prefix: str | None = None
    passage_prefix: str | None = None
    scripts: Sequence[str] = ()


def install(home: Path, name_or_folder: str, own: OwnSettings) -> InstalledFolder:
    """Return the embedder with this name or in this folder, and remember it for its bases.

    Raises:
        ConfigError: there is none, or what it needs to be told is missing.
        EmbedderError: its files cannot be read or used.
    """
    settings = _settings(find_folder(home, name_or_folder), own)
    stamp = _stamp(Path(settings.folder))
    for known in remembered(home):
        if known.settings == settings and known.stamp == stamp:
            return known
    digest = _digest(Path(settings.folder))
    installed = InstalledFolder(settings, digest, stamp)
    _remember(home, installed)
    return installed


def remembered(home: Path) -> Iterator[InstalledFolder]:
    """Yield the folders that were used before, whether or not they are still there."""
    for path in sorted((home / EMBEDDERS).glob("*.json")):
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            settings = stored["settings"] | {"scripts": tuple(stored["settings"]["scripts"])}
            yield InstalledFolder(
                FolderSettings(**settings), str(stored["digest"]), str(stored["stamp"])
            )
        except (OSError, ValueError, TypeError, KeyError):
            logger.warning("%s is no record of an embedder; it is ignored", path)


def installed_names(home: Path) -> list[str]:
    """Return the names of the embedders in the data folder, sorted."""
    names = (path.parent.name for path in (home / EMBEDDERS).glob("*/config.json"))
    return sorted(name for name in names if not name.startswith("."))


def is_made_by(spec: EmbedderSpec, home: Path, name: str) -> bool:
    """Tell whether a base's embedder is the one of this name in the data folder."""
    folder = str((home / EMBEDDERS / name).resolve())
    digests = {each.digest[:24] for each in remembered(home) if each.settings.folder == folder}
    return spec.name == name or spec.identity.split("/", 1)[0] in digests


def find_folder(home: Path, name_or_folder: str) -> Path:
    """Return the folder of an embedder: one of the data folder by name, else a path.

    Raises:
        ConfigError: there is none; the message says how to get one.
    """
    name = name_or_folder
    if Path(name).name in NEED_CODE:
        raise ConfigError(
            f"the embedder {Path(name).name!r} needs code that comes with its weights, and such "
            "code is never run here; take another, such as bge-m3"
        )
    for folder in (home / EMBEDDERS / name, Path(name).expanduser()):
        with contextlib.suppress(OSError):  # too long for a path
            if name and (folder / "config.json").is_file():
                return folder.resolve()
    how = f"run `kb model pull {name}`" if name in KNOWN_EMBEDDERS else "give its folder"
    raise ConfigError(
        f"there is no embedder {name[:300]!r}: no folder of that name, here or in "
        f"{str(home / EMBEDDERS)!r}, has a config.json; {how}. Known by name: "
        f"{', '.join((BUILT_IN, *KNOWN_EMBEDDERS))}"
    )


def _settings(folder: Path, own: OwnSettings) -> FolderSettings:
    """Join what the table, the user and the folder say; the user before the table before it."""
    config = _read(folder / "config.json")
    known = KNOWN_EMBEDDERS.get(folder.name)
    prompts = _read(folder / "config_sentence_transformers.json").get("prompts") or {}
    has_modules = (folder / "modules.json").is_file()
    if not has_modules and known is None:
        raise ConfigError(
            f"{str(folder)!r} has no modules.json, so nobody knows how its token vectors become "
            "one; bring all files of a sentence-transformers model, or call the folder by a known "
            f"name ({', '.join(KNOWN_EMBEDDERS)})"
        )
    scripts = tuple(sorted(own.scripts or (known.scripts if known else ())))
    if not scripts:
        raise ConfigError(
            f"say with embedder_scripts (KB_EMBEDDER_SCRIPTS) which scripts the embedder in "
            f"{str(folder)!r} was trained on, such as Hani,Latn for Chinese and English"
        )
    queries = known.query_prefix if known else _prompt(prompts, "query")
    passages = known.passage_prefix if known else _prompt(prompts, "passage")
    told = _read(folder / "sentence_bert_config.json").get("max_seq_length")
    positions = int(config.get("max_position_embeddings") or DEFAULT_MAX_TOKENS)
    if str(config.get("model_type")) in ("xlm-roberta", "roberta"):
        positions -= 2  # they count from 2
    max_tokens = known.max_tokens if known else int(told or min(positions, DEFAULT_MAX_TOKENS))
    return FolderSettings(
        name=folder.name,
        folder=str(folder),
        dimension=_dimension(folder, config),
        max_tokens=max(1, min(max_tokens, positions)),
        pooling="" if has_modules or known is None else known.pooling,
        scripts=scripts,
        query_prefix=queries if own.query_prefix is None else own.query_prefix,
        passage_prefix=passages if own.passage_prefix is None else own.passage_prefix,
    )


def _prompt(prompts: dict[str, Any], kind: str) -> str:
    return next((str(prompts[key]) for key in _PROMPTS[kind] if prompts.get(key)), "")


def _dimension(folder: Path, config: dict[str, Any]) -> int:
    """Return the length of vectors: that of the last module which states one, else of tokens."""
    dimension = int(config.get("hidden_size") or config.get("dim") or 0)
    if (folder / "modules.json").is_file():
        for module in _read_modules(folder):
            own = _read(folder / str(module.get("path", "")) / "config.json")
            dimension = int(own.get("out_features") or dimension)
    if dimension < 1:
        raise EmbedderError(f"{str(folder / 'config.json')!r} does not say how long vectors are")
    return dimension


def _read_modules(folder: Path) -> list[dict[str, Any]]:
    """Return what `modules.json` lists, if all of it is code of the library.

    Raises:
        EmbedderError: it names other code, or is no such list.
    """
    path = folder / "modules.json"
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
        kinds = [str(module["type"]) for module in modules]
    except (OSError, ValueError, TypeError, KeyError) as exc:
        raise EmbedderError(f"{str(path)!r} cannot be read ({exc}); fetch it again") from exc
    for kind in kinds:
        if not kind.startswith("sentence_transformers."):
            raise EmbedderError(
                f"{str(path)!r} names {kind[:100]!r}, code that comes with the model, and such "
                "code is never run here; take another embedder"
            )
    return list(modules)


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON object, {} where the file is not there.

    Raises:
        EmbedderError: it cannot be read, or is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as exc:
        raise EmbedderError(f"{str(path)!r} cannot be read ({exc}); fetch it again") from exc
    if not isinstance(found, dict):
        raise EmbedderError(f"{str(path)!r} is no JSON object; fetch it again")
    return found


def _files(folder: Path) -> list[Path]:
    """Return the files that decide over vectors: of the folder and its modules, by name.

    Where there are safetensors, other forms of the weights are not loaded.
    """
    found: list[Path] = []
    for place in [folder, *sorted(folder.glob("[0-9]*_*/"))]:
        names = [
            path for path in sorted(place.iterdir()) if path.name[:1] != "." and path.is_file()
        ]
        weights = next(
            (of for suffix in _WEIGHTS if (of := [p for p in names if p.suffix == suffix])), []
        )
        found += [path for path in names if path.suffix in _SMALL or path in weights]
    return found


def _stamp(folder: Path) -> str:
    """Return sizes and times of the files as one hash; "" where the folder cannot be read."""
    told = hashlib.sha256()
    try:
        for path in _files(folder):
            stat = path.stat()
            name = path.relative_to(folder).as_posix()
            told.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    except OSError:
        return ""
    return told.hexdigest()


def _digest(folder: Path) -> str:
    told = hashlib.sha256()
    try:
        for path in _files(folder):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            told.update(f"{path.relative_to(folder).as_posix()}\0{digest}\n".encode())
    except OSError as exc:
        raise EmbedderError(f"cannot read the embedder in {str(folder)!r}: {exc}") from exc
    return told.hexdigest()


def _remember(home: Path, installed: InstalledFolder) -> None:
    """Write the record of a folder, in place of an older one of the same folder and settings."""
    key = json.dumps(asdict(replace(installed.settings, scripts=())), sort_keys=True)
    path = home / EMBEDDERS / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(asdict(installed), ensure_ascii=False), encoding="utf-8")
        partial.replace(path)
    except OSError as exc:
        raise EmbedderError(f"cannot write {str(path)!r}: {exc.strerror}") from exc
