"""Published checkpoint folders: which file holds which tensor, and the tensors one at a time.

Reads sharded or single ``.safetensors`` and PyTorch ``.bin`` files, with or without an index.
Files are mapped, not read, and at most `_OPEN_SHARDS` of them at once, so that walking over the
model layer by layer keeps about one shard in memory. Pickled code is never run: ``.bin`` goes
through PyTorch's weights-only loader, and a file that needs more is refused.

Not covered: GGUF and GGML files, and adapters.
"""

import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from safetensors import SafetensorError, safe_open

from llm.errors import CheckpointError
from llm.files import check_file

_OPEN_SHARDS = 2
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_PATTERNS = ("model*.safetensors", "pytorch_model*.bin")


class _Shard(Protocol):
    def names(self) -> list[str]: ...

    def tensor(self, name: str) -> torch.Tensor: ...


class Checkpoint:
    """The tensors of one folder by their published names. Use as a context manager."""

    def __init__(self, folder: Path, files: Mapping[str, Path]) -> None:
        self.folder = folder
        self._files = dict(files)  # tensor name -> file
        self._open: OrderedDict[Path, _Shard] = OrderedDict()

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Find out which file holds what; reads headers only.

        Raises:
            CheckpointError: no weights, missing shards, a Git LFS pointer, a damaged file.
        """
        indexes = [folder / name for name in _INDEXES if (folder / name).is_file()]
        if indexes:
            # some folders hold both forms; a complete one is as good as the other
            complete = [index for index in indexes if not _missing(index)]
            files = _read_index((complete or indexes)[0])
            checkpoint = cls(folder, files)
            for path in checkpoint.paths():
                check_file(path)
                checkpoint._shard(path)  # a truncated one is found now, not after an hour
            return checkpoint
        paths = next((found for p in _PATTERNS if (found := sorted(folder.glob(p)))), [])
        if not paths:
            raise CheckpointError(
                f"{str(folder)!r} has no weights: no model*.safetensors and no pytorch_model*.bin"
            )
        checkpoint = cls(folder, {})
        for path in paths:
            check_file(path)
            for name in checkpoint._shard(path).names():
                checkpoint._files[name] = path
        return checkpoint

    def close(self) -> None:
        self._open.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def paths(self) -> list[Path]:
        """Return the weight files, sorted."""
        return sorted(set(self._files.values()))

    def tensor(self, name: str, shape: tuple[int, ...] | None = None) -> torch.Tensor:
        """Return one tensor in its stored dtype, mapped from its file.

        Args:
            name: the published name.
            shape: what the configuration says it must be; None if it may be any.

        Raises:
            CheckpointError: missing, damaged, or of another shape.
        """
        if name not in self._files:
            raise CheckpointError(f"{str(self.folder)!r} lacks the tensor {name!r}")
        path = self._files[name]
        try:
            tensor = self._shard(path).tensor(name)
        except KeyError as exc:
            raise CheckpointError(
                f"{str(path)!r} lacks {name!r}, which the index places there; fetch both again"
            ) from exc
        except (SafetensorError, RuntimeError, ValueError) as exc:
            raise CheckpointError(f"{str(path)!r}: cannot read {name!r}: {exc}") from exc
        if shape is not None and tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"{str(path)!r}: {name!r} has the shape {tuple(tensor.shape)}; "
                f"by config.json it should be {shape}"
            )
        return tensor

    def _shard(self, path: Path) -> _Shard:
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        while len(self._open) >= _OPEN_SHARDS:
            self._open.popitem(last=False)
        shard: _Shard
        shard = _Safetensors(path) if path.suffix == ".safetensors" else _Pickled(path)
        self._open[path] = shard
        return shard


class _Safetensors:
    def __init__(self, path: Path) -> None:
        try:
            self._file: Any = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as exc:
            raise _damaged(path, exc) from exc
        self._names = list(self._file.keys())  # type: ignore[no-untyped-call]

    def names(self) -> list[str]:
        return self._names

    def tensor(self, name: str) -> torch.Tensor:
        if name not in self._names:
            raise KeyError(name)
        found: torch.Tensor = self._file.get_tensor(name)
        return found


class _Pickled:
    def __init__(self, path: Path) -> None:
        # Files older than PyTorch 1.6 are no zip archives and cannot be mapped.
        is_zip = zipfile.is_zipfile(path)
        try:
            loaded = torch.load(path, map_location="cpu", mmap=is_zip, weights_only=True)
        except pickle.UnpicklingError as exc:
            if not is_zip:
                raise _damaged(path, exc) from exc
            raise CheckpointError(
                f"{str(path)!r} holds more than weights and would have to run code to be read; "
                "refused. Use a safetensors copy of this model"
            ) from exc
        except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as exc:
            raise _damaged(path, exc) from exc
        if not isinstance(loaded, dict):
            raise CheckpointError(f"{str(path)!r} is no dictionary of tensors")
        self._tensors = {k: v for k, v in loaded.items() if isinstance(v, torch.Tensor)}

    def names(self) -> list[str]:
        return list(self._tensors)

    def tensor(self, name: str) -> torch.Tensor:
        return self._tensors[name]


def _read_index(index: Path) -> dict[str, Path]:
    folder = index.parent
    if missing := _missing(index):
        raise CheckpointError(
            f"{str(folder)!r} is incomplete, these files are missing: {', '.join(missing)}; "
            "fetch them too; a download continues where it stopped"
        )
    return {tensor: folder / file for tensor, file in _weight_map(index).items()}


def _missing(index: Path) -> list[str]:
    files = set(_weight_map(index).values())
    return sorted(file for file in files if not (index.parent / file).is_file())


def _weight_map(index: Path) -> dict[str, str]:
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        named = {str(tensor): str(file) for tensor, file in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise CheckpointError(f"cannot read the index {str(index)!r}: {exc}") from exc
    for file in set(named.values()):
        if Path(file).name != file:  # an index from elsewhere must not name files elsewhere
            raise CheckpointError(f"{str(index)!r} names a file outside its folder: {file!r}")
    return named


def _damaged(path: Path, exc: Exception) -> CheckpointError:
    return CheckpointError(
        f"{str(path)!r} ({path.stat().st_size:,} bytes) is truncated or damaged: "
        f"{str(exc).splitlines()[0][:200] if str(exc) else type(exc).__name__}; fetch it again"
    )
