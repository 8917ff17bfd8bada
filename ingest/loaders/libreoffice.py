"""Old Office documents (.doc, .ppt), which LibreOffice turns into new ones if it is installed.

It runs as a program of its own, with a profile and home folder that are thrown away, watched for
time and memory like the parser child. It is started by the parent of that child
(`ingest/parser.py`), since the child itself may not start programs.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from ingest.loaders.base import ParseLimits
from ingest.loaders.signature import OLE
from kb.errors import (
    CancelledError,
    CorruptFileError,
    EncryptedFileError,
    LimitExceededError,
    UnsupportedFormatError,
)

# What each is turned into, and by which part of LibreOffice.
NEW_FORMATS = {".doc": ("docx", "writer"), ".ppt": ("pptx", "impress")}
_PROGRAMS = ("soffice", "libreoffice")
_MEGABYTE = 1 << 20
_POLL_S = 0.05
# A Word document's first sector holds its head; the second byte of its flags tells encryption.
_WORD_HEAD, _WORD_MAGIC, _WORD_ENCRYPTED = 512, b"\xec\xa5", 0x01
_PPT_ENCRYPTED = "EncryptedSummary".encode("utf-16-le")


def convert(
    data: bytes,
    suffix: str,
    limits: ParseLimits,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> bytes:
    """Return an old Office document as a new one.

    Raises:
        LoadError: it cannot be converted; the message says why.
        CancelledError: `should_stop` said so.
    """
    _check(data, suffix)
    target, part = NEW_FORMATS[suffix]
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        raise UnsupportedFormatError(
            f"old {suffix} files are read by LibreOffice, which is not installed; install "
            f"libreoffice (Debian, Ubuntu: apt install libreoffice-{part}-nogui) and ingest with "
            f"--retry-failed, or save the file as .{target}"
        )
    with TemporaryDirectory(prefix="kb-office-") as folder:
        source = Path(folder, f"document{suffix}")
        source.write_bytes(data)
        _run(program, source, target, limits, should_stop)
        result = source.with_suffix(f".{target}")
        if not result.is_file():
            raise CorruptFileError(
                "LibreOffice could not read the file; it is damaged or needs a password"
            )
        if result.stat().st_size > limits.max_file_mb * _MEGABYTE:
            raise LimitExceededError(
                f"the file becomes larger than {limits.max_file_mb} MB when converted; split it"
            )
        return result.read_bytes()


def _check(data: bytes, suffix: str) -> None:
    if not data.startswith(OLE):
        raise CorruptFileError(
            f"the file is not an old Office document ({suffix}), whatever its name says; "
            "give it the extension of its real format"
        )
    head = data[_WORD_HEAD : _WORD_HEAD + 12]
    is_locked_word = head.startswith(_WORD_MAGIC) and head[11:] and head[11] & _WORD_ENCRYPTED
    if is_locked_word or (suffix == ".ppt" and _PPT_ENCRYPTED in data):
        raise EncryptedFileError(
            "the file needs a password; save a copy without one and ingest that"
        )


def _run(
    program: str,
    source: Path,
    target: str,
    limits: ParseLimits,
    should_stop: Callable[[], bool],
) -> None:
    folder = source.parent
    command = [
        program,
        "--headless",
        "--norestore",
        "--nolockcheck",
        f"-env:UserInstallation={(folder / 'profile').as_uri()}",
        "--convert-to",
        target,
        "--outdir",
        str(folder),
        str(source),
    ]
    environment = {
        "PATH": os.defpath,
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
    }
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    except PermissionError as exc:  # in the parser child: an attachment of a mail
        raise UnsupportedFormatError(
            "old Office documents inside other files cannot be read; save it as a file"
        ) from exc
    deadline = time.monotonic() + limits.timeout_s
    try:
        while process.poll() is None:
            if should_stop():
                raise CancelledError("stopped while a file was converted")
            if time.monotonic() > deadline:
                raise LimitExceededError(
                    f"converting the file takes longer than {limits.timeout_s:g} seconds; "
                    "save it in the new format or raise parse_timeout_s"
                )
            if _resident_bytes(process.pid) > limits.memory_mb * _MEGABYTE:
                raise LimitExceededError(
                    f"converting the file needs more than {limits.memory_mb} MB of memory; "
                    "save it in the new format or raise parse_memory_mb"
                )
            time.sleep(_POLL_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it started, too
        process.wait()


def _resident_bytes(pid: int) -> int:
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += one.memory_info().rss
    return total
