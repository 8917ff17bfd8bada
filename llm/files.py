"""Files that came from elsewhere: say what is wrong with one before a library stumbles over it."""

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
