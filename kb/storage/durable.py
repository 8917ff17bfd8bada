"""What must survive a power cut: bytes in a file, and the names in a folder."""

import os
from pathlib import Path


def flush_to_disk(path: Path) -> None:
    """Return when the bytes of a file, or the names in a folder, are on the disk.

    Raises:
        OSError: it is not there, or the disk fails.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
