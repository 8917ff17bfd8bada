"""Files that came from elsewhere, and files that two processes may want at once."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llm.errors import CheckpointError

_LFS_MARK = b"version https://git-lfs"


def check_file(path: Path) -> None:
    """Refuse a file that is missing, empty, or only a Git LFS pointer.

    Raises:
        CheckpointError: saying which, and what to do.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_LFS_MARK))
    except FileNotFoundError as exc:
        raise CheckpointError(
            f"{str(path)!r} is missing, but the checkpoint needs it; fetch it again"
        ) from exc
    except OSError as exc:
        raise CheckpointError(f"cannot read {str(path)!r}: {exc.strerror}") from exc
    if not start:
        raise CheckpointError(f"{str(path)!r} is empty; fetch it again")
    if start == _LFS_MARK:
        raise CheckpointError(
            f"{str(path)!r} is a Git LFS pointer of a few bytes, not the file itself; "
            "run `git lfs pull` in that folder, or fetch the file from the hub"
        )


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file; the system lets go of it when this process ends, however it ends.

    Raises:
        CheckpointError: another process holds it, and `what` it does; or the folder cannot be
            written.
    """
    try:
        file = path.open("w")
    except OSError as exc:
        raise CheckpointError(f"cannot write {str(path)!r}: {exc.strerror}") from exc
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise CheckpointError(f"{what} by another process; wait for it to end") from exc
        yield  # the empty file stays: removing it could part two processes that wait for it
