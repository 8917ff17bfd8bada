"""Bring a checkpoint from Hugging Face, ModelScope or a mirror of them into a folder.

The hub lists a repository's files with sizes and digests; the few that a checkpoint needs are
fetched one after the other and verified (`llm.download`). Nothing that is fetched is ever run:
``tokenization_*.py`` is read as text, since it alone tells ChatGLM2 from ChatGLM3. A rerun skips
what is there and continues what is not; ``.pull.json`` in the folder says which files were
verified.

Written from the hubs' published clients and tried against servers that the tests start; no run
against the real hubs is recorded yet. Leaves out: loading (a pulled folder is a folder like any
other), licences (read the one that comes with the weights), and files in subfolders.

    Hugging Face   GET /api/models/ORG/NAME/tree/main?recursive=true
                   GET /ORG/NAME/resolve/main/FILE
    ModelScope     GET /api/v1/models/ORG/NAME/repo/files?Revision=master&Recursive=True
                   GET /models/ORG/NAME/resolve/master/FILE
"""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from llm.download import Client, RemoteFile, digest_of, discard_part, fetch, kept_bytes
from llm.errors import DownloadError

Source = Literal["huggingface", "modelscope"]
Progress = Callable[[int, int, str], None]  # (bytes done, bytes in all, file at hand)

ENDPOINTS: dict[Source, str] = {
    "huggingface": "https://huggingface.co",
    "modelscope": "https://modelscope.cn",
}
LOCK_NAME = ".pull.lock"
RECORD_NAME = ".pull.json"

# A Git LFS pointer, the usual broken download, has some 130 bytes; no weights or vocabulary do.
MIN_LFS_BYTES = 1024

NEEDED = {
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "LICENSE",
    "MODEL_LICENSE",
}
VOCABULARIES = {
    "ice_text.model",
    "tokenizer.model",
    "tokenizer.json",
    "sentencepiece.bpe.model",
    "vocab.txt",
}
TOKENIZER_CODE = re.compile(r"tokenization_\w+\.py")

# Best first: safetensors can be mapped into memory and hold no pickle.
WEIGHTS = (("model", ".safetensors"), ("pytorch_model", ".bin"))


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A published checkpoint; `size_bytes` is about what is fetched."""

    huggingface: str
    modelscope: str
    size_bytes: int


# Sizes are sums of the published shards where those are known, else from the hubs' pages.
KNOWN_MODELS = {
    "chatglm-6b": KnownModel("zai-org/chatglm-6b", "ZhipuAI/ChatGLM-6B", 13_420_000_000),
    "chatglm-6b-int4": KnownModel(
        "zai-org/chatglm-6b-int4", "ZhipuAI/ChatGLM-6B-Int4", 3_890_000_000
    ),
    "chatglm-6b-int8": KnownModel(
        "zai-org/chatglm-6b-int8", "ZhipuAI/ChatGLM-6B-int8", 6_750_000_000
    ),
    "chatglm2-6b": KnownModel("zai-org/chatglm2-6b", "ZhipuAI/chatglm2-6b", 12_490_000_000),
    "chatglm2-6b-int4": KnownModel(
        "zai-org/chatglm2-6b-int4", "ZhipuAI/chatglm2-6b-int4", 3_920_000_000
    ),
    "chatglm2-6b-32k": KnownModel(
        "zai-org/chatglm2-6b-32k", "ZhipuAI/chatglm2-6b-32k", 12_490_000_000
    ),
    "chatglm3-6b": KnownModel("zai-org/chatglm3-6b", "ZhipuAI/chatglm3-6b", 12_490_000_000),
    "chatglm3-6b-base": KnownModel(
        "zai-org/chatglm3-6b-base", "ZhipuAI/chatglm3-6b-base", 12_490_000_000
    ),
    "chatglm3-6b-32k": KnownModel(
        "zai-org/chatglm3-6b-32k", "ZhipuAI/chatglm3-6b-32k", 12_490_000_000
    ),
    "chatglm3-6b-128k": KnownModel(
        "zai-org/chatglm3-6b-128k", "ZhipuAI/chatglm3-6b-128k", 12_490_000_000
    ),
    "glm-4-9b-chat": KnownModel("zai-org/glm-4-9b-chat", "ZhipuAI/glm-4-9b-chat", 18_800_000_000),
}


def pull(
    name_or_repo: str,
    folder: Path,
    *,
    source: Source = "huggingface",
    endpoint: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
    cancel: Callable[[], bool] | None = None,
) -> Path:
    """Bring a checkpoint into `folder`, continuing an earlier run, and return the folder.

    Args:
        name_or_repo: a name of ``KNOWN_MODELS``, or a repository as ``ORG/NAME``.
        endpoint: a mirror that speaks as the source does; default: the source itself.
        token: sent to the endpoint's own origin only, never to where it redirects.
        progress: bytes done may fall, when a server cannot continue and starts a file over.
        cancel: asked often; True stops the download and keeps what arrived.

    Raises:
        DownloadError: see the message; every one says what to do next.
    """
    name, repo = find_repo(name_or_repo, source)
    client = Client(endpoint or ENDPOINTS[source], token=token, cancel=cancel)
    files = choose_files(list_files(client, repo, source), repo)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise DownloadError(f"cannot make the folder {str(folder)!r}: {exc.strerror}") from exc
    with _locked(folder):
        record = _read_record(folder, name)
        missing = [file for file in files if not _is_done(folder / file.path, file, record)]
        urls = {file.path: _file_url(client, repo, source, file.path) for file in files}
        _check_space(folder, missing, urls)
        _write_record(folder, name, record)
        total = sum(file.size_bytes for file in files)
        done = total - sum(file.size_bytes for file in missing)
        for file in missing:
            told = _adding(progress, done, total, file.path)
            fetch(client, urls[file.path], file, folder / file.path, told)
            done += file.size_bytes
            record[file.path] = file
            _write_record(folder, name, record)
        if progress is not None and not missing:
            progress(total, total, "")
    return folder


def find_repo(name_or_repo: str, source: Source) -> tuple[str, str]:
    """Return the model's name and its repository at `source`.

    A repository that is none of ``KNOWN_MODELS`` is its own name.

    Raises:
        DownloadError: neither a known name nor ORG/NAME.
    """
    for name, known in KNOWN_MODELS.items():
        repos = {"huggingface": known.huggingface, "modelscope": known.modelscope}
        if name_or_repo in (name, *repos.values()):
            return name, repos[source]
    if re.fullmatch(r"(?!\.)[\w.-]+/(?!\.)[\w.-]+", name_or_repo, re.ASCII):
        return name_or_repo, name_or_repo
    raise DownloadError(
        f"no model named {name_or_repo!r}; known: {', '.join(KNOWN_MODELS)}; "
        "others by their repository, as ORG/NAME"
    )


def list_files(client: Client, repo: str, source: Source) -> list[RemoteFile]:
    """Return the files that the hub lists for a repository, in its order.

    Raises:
        DownloadError: no list can be had, or one that cannot be believed: a path that leads out
            of the folder, a size that is none.
    """
    if source == "modelscope":
        url = f"{client.endpoint}/api/v1/models/{repo}/repo/files?Revision=master&Recursive=True"
        answer = client.get_json(url, repo)
        entries, parse = _modelscope_entries(answer, client.host, repo), _modelscope_file
    else:
        url = f"{client.endpoint}/api/models/{repo}/tree/main?recursive=true"
        entries, parse = client.get_json(url, repo), _huggingface_file
    try:
        parsed = [parse(entry) for entry in entries]
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise DownloadError(
            f"{client.host} lists the files of {repo} in a form we do not know ({exc}); "
            "check the endpoint, or try another source"
        ) from exc
    files = [file for file in parsed if file is not None]
    for file in files:
        _refuse_hostile_path(file.path, client.host)
    return files


def choose_files(files: Sequence[RemoteFile], repo: str) -> list[RemoteFile]:
    """Return what a checkpoint needs: configuration, tokenizer, one complete set of weights.

    Small files come first, so that what is wrong with a repository shows early. Weights are
    safetensors where a complete set of them is there, else ``.bin`` files.

    Raises:
        DownloadError: the repository is no such checkpoint, or lists Git LFS pointers.
    """
    by_name = {file.path: file for file in files if "/" not in file.path}
    vocabulary = sorted(VOCABULARIES & by_name.keys())
    code = sorted(name for name in by_name if TOKENIZER_CODE.fullmatch(name))
    weights = next((found for kind in WEIGHTS if (found := _weights(by_name, *kind))), [])
    lacks = [
        what
        for what, has in (
            ("config.json", "config.json" in by_name),
            ("a tokenizer (tokenizer.model or ice_text.model)", bool(vocabulary)),
            ("a complete set of .safetensors or .bin weights", bool(weights)),
        )
        if not has
    ]
    if lacks:
        raise DownloadError(f"{repo} is no checkpoint we can use: it lacks {' and '.join(lacks)}")
    for name in (*vocabulary, *weights):
        size = by_name[name].size_bytes
        if size < MIN_LFS_BYTES and not name.endswith((".json", ".txt")):
            raise DownloadError(
                f"{repo} lists {name} with {size} bytes, which is a Git LFS pointer and not the "
                "file; try another source or mirror"
            )
    small = [*sorted(NEEDED & by_name.keys()), *code, *vocabulary]
    return [by_name[name] for name in (*small, *weights)]


def _modelscope_entries(answer: Any, host: str, repo: str) -> Any:
    if isinstance(answer, dict) and answer.get("Code", 200) != 200:
        raise DownloadError(
            f"{host} does not list {repo} ({str(answer.get('Message', ''))[:200]}); "
            "check the name, or try another source"
        )
    try:
        return answer["Data"]["Files"]
    except (KeyError, TypeError):
        return None  # told by the caller as a form we do not know


def _modelscope_file(entry: Any) -> RemoteFile | None:
    if entry.get("Type") == "tree":
        return None
    return _remote_file(entry["Path"], entry["Size"], "sha256", entry.get("Sha256"))


def _huggingface_file(entry: Any) -> RemoteFile | None:
    if entry["type"] != "file":
        return None
    if lfs := entry.get("lfs"):
        return _remote_file(entry["path"], lfs["size"], "sha256", lfs["oid"])
    return _remote_file(entry["path"], entry["size"], "git", entry.get("oid"))


def _remote_file(path: Any, size: Any, kind: str, digest: Any) -> RemoteFile:
    if not isinstance(path, str) or isinstance(size, bool) or not isinstance(size, int):
        raise ValueError("a path or size is missing")
    if size < 0:
        raise ValueError("a size is negative")
    if not digest:
        return RemoteFile(path, size, "")
    text = str(digest).lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{40}" if kind == "git" else r"[0-9a-f]{64}", text):
        raise ValueError(f"{text[:80]!r} is no {kind} digest")
    return RemoteFile(path, size, f"{kind}:{text}")


def _refuse_hostile_path(path: str, host: str) -> None:
    parts = path.split("/")
    if (
        any(part in ("", ".", "..") for part in parts)  # covers absolute paths, too
        or any(sign in path for sign in "\\:")
        or not path.isprintable()
    ):
        raise DownloadError(
            f"{host} lists the path {path[:200]!r}, which leads out of the folder or is no file "
            "name; nothing was fetched, do not use this source"
        )


def _weights(by_name: dict[str, RemoteFile], stem: str, suffix: str) -> list[str]:
    """Return the names of one complete set of weights and its index, or nothing."""
    if stem + suffix in by_name:
        return [stem + suffix]
    index = f"{stem}{suffix}.index.json"
    shards: dict[int, list[str]] = {}
    for name in sorted(by_name):
        if numbers := re.fullmatch(rf"{stem}-(\d{{5}})-of-(\d{{5}}){re.escape(suffix)}", name):
            shards.setdefault(int(numbers[2]), []).append(name)
    for count, names in shards.items():
        wanted = [f"{stem}-{i:05}-of-{count:05}{suffix}" for i in range(1, len(names) + 1)]
        if index in by_name and len(names) == count and names == wanted:
            return [index, *names]
    return []


def _file_url(client: Client, repo: str, source: Source, path: str) -> str:
    if source == "modelscope":
        return f"{client.endpoint}/models/{repo}/resolve/master/{quote(path)}"
    return f"{client.endpoint}/{repo}/resolve/main/{quote(path)}"


def _is_done(path: Path, file: RemoteFile, record: dict[str, RemoteFile]) -> bool:
    """Say whether the file is there and is the one listed.

    One that was not fetched by us, as a copy from a colleague's disk, counts after its digest.
    """
    if not path.is_file() or path.stat().st_size != file.size_bytes:
        return False
    if record.get(file.path) != file:
        kind = file.digest.partition(":")[0]
        if not kind or digest_of(path, kind) != file.digest:
            return False
        record[file.path] = file
    discard_part(path)
    return True


def _check_space(folder: Path, missing: Sequence[RemoteFile], urls: dict[str, str]) -> None:
    needed = sum(
        file.size_bytes - kept_bytes(urls[file.path], file, folder / file.path) for file in missing
    )
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"the disk of {str(folder)!r} is too small: {needed / 1e9:.2f} GB are needed, "
            f"{free / 1e9:.2f} GB are free; make room, or choose a folder on another disk"
        )


def _adding(progress: Progress | None, done: int, total: int, path: str) -> Callable[[int], None]:
    """Return a listener for one file's bytes that tells those of the whole."""
    if progress is None:
        return lambda _n_bytes: None
    return lambda n_bytes: progress(done + n_bytes, total, path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system frees it with the process, however that ends."""
    try:
        lock = (folder / LOCK_NAME).open("a")
    except OSError as exc:
        raise DownloadError(f"cannot write in {str(folder)!r}: {exc.strerror}") from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise DownloadError(
                f"another download into {str(folder)!r} is running; wait for it or stop it"
            ) from exc
        yield


def _read_record(folder: Path, name: str) -> dict[str, RemoteFile]:
    """Return the verified files; an unreadable record means that all are verified anew.

    Raises:
        DownloadError: the folder belongs to another model.
    """
    try:
        stored = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
        owner, files = str(stored["model"]), [RemoteFile(**file) for file in stored["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if owner != name:
        raise DownloadError(
            f"{str(folder)!r} already holds {owner!r}; fetch {name!r} into another folder"
        )
    return {file.path: file for file in files}


def _write_record(folder: Path, name: str, record: dict[str, RemoteFile]) -> None:
    files = [
        {"path": file.path, "size_bytes": file.size_bytes, "digest": file.digest}
        for file in record.values()
    ]
    path = folder / RECORD_NAME
    fresh = path.with_name(RECORD_NAME + ".new")
    try:
        fresh.write_text(json.dumps({"model": name, "files": files}, indent=1), encoding="utf-8")
        os.replace(fresh, path)
    except OSError as exc:
        raise DownloadError(f"cannot write {str(path)!r}: {exc.strerror}; make room") from exc
