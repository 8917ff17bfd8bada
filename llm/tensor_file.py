"""Our model files: safetensors, written tensor by tensor, each with its checksum.

The published safetensors writer wants all tensors in memory at once; this one streams them, so
that converting a model never holds more than one. Reading goes through the `safetensors`
library, which maps the file: opening costs nothing and pages come in as they are used.

The header has a fixed size, so that it can be written last. Tensors that do not start at a multiple
of 64 bytes, as vector instructions want them, are copied when read; those of real models all do.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open

from llm.errors import CheckpointError
from llm.files import check_file

_HEADER_BYTES = 2**20 - 8  # with the 8 bytes of its length: 1 MiB
_DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int8: "I8",
    torch.uint8: "U8",
}
_ALIGNMENT = 64


class TensorWriter:
    """Writes a file under a temporary name; `finish` puts it in place.

    Use as a context manager: leaving it without `finish` removes the temporary file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._file = self._partial.open("wb")
        self._file.write(b" " * (8 + _HEADER_BYTES))
        self._entries: dict[str, Any] = {}
        self._checksums: dict[str, str] = {}
        self._offset = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Append one tensor."""
        octets = memoryview(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        self._file.write(octets)
        end = self._offset + len(octets)
        self._entries[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [self._offset, end],
        }
        self._checksums[name] = _checksum(tensor, octets)
        self._offset = end

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """Write the header, sync, and rename into place.

        Args:
            metadata: JSON values; read back by `TensorFile.metadata`.
        """
        described = json.dumps({**metadata, "checksums": self._checksums}, ensure_ascii=False)
        header = json.dumps({"__metadata__": {"llm": described}, **self._entries}).encode()
        if len(header) > _HEADER_BYTES:
            raise CheckpointError(f"a model of {len(self._entries):,} tensors is too large")
        self._file.seek(0)
        self._file.write(_HEADER_BYTES.to_bytes(8, "little"))
        self._file.write(header.ljust(_HEADER_BYTES))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self._path)


class TensorFile:
    """A file by `TensorWriter`, mapped. Tensors are views of it."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            CheckpointError: missing, truncated, or not ours.
        """
        self.path = path
        check_file(path)
        try:
            self._file: Any = safe_open(path, framework="pt")
            described = self._file.metadata() or {}  # type: ignore[no-untyped-call]
            self.metadata: dict[str, Any] = json.loads(described["llm"])
            if not isinstance(self.metadata["checksums"], dict):
                raise ValueError("no checksums")
        except (SafetensorError, OSError) as exc:
            raise CheckpointError(f"{str(path)!r} is truncated or damaged: {exc}") from exc
        except (KeyError, ValueError, TypeError, RecursionError) as exc:
            raise CheckpointError(f"{str(path)!r} was not written by this program") from exc
        self._names = frozenset(self._file.keys())  # type: ignore[no-untyped-call]

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor, mapped; copied only where its place is not aligned.

        Raises:
            CheckpointError: the file lacks it.
        """
        if name not in self._names:
            raise CheckpointError(f"{str(self.path)!r} lacks {name!r}; add the model again")
        found: torch.Tensor = self._file.get_tensor(name)
        return found if found.data_ptr() % _ALIGNMENT == 0 else found.clone()

    def damaged(self) -> Iterator[str]:
        """Yield the names of tensors whose bytes are not those that were written."""
        checksums = self.metadata["checksums"]
        for name in sorted(self._names):
            tensor = self._file.get_tensor(name)
            octets = tensor.contiguous().view(-1).view(torch.uint8).numpy()
            if _checksum(tensor, memoryview(octets)) != checksums.get(name):
                yield name


def _checksum(tensor: torch.Tensor, octets: memoryview) -> str:
    """Hash what a tensor is together with its bytes."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    digest.update(octets)
    return digest.hexdigest()
