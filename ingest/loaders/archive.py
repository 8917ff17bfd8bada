"""Zip containers (docx): refused before they are opened if they unpack to too much."""

import io
import zipfile
from zipfile import ZipFile

from ingest.loaders.base import ParseLimits
from kb.errors import CorruptFileError, EncryptedFileError, LimitExceededError

_MEGABYTE = 1 << 20
# XML becomes a tree of about ten times its size in memory.
_MEMORY_PER_BYTE = 10
# Office files shrink to a tenth; a bomb to a thousandth. Small ones may do as they like.
_MAX_RATIO = 100
_RATIO_MATTERS_FROM = 20 * _MEGABYTE
_ENCRYPTED = 0x1  # bit of a member's flags
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")


def check_archive(data: bytes, member: str, kind: str, limits: ParseLimits) -> None:
    """Check that `data` is a zip file that holds `member` and is safe to unpack.

    `kind` names the format in messages, as in "a Word document (.docx)". Sizes are those that
    the directory declares; Python reads no more of a member than that.

    Raises:
        EncryptedFileError, CorruptFileError, LimitExceededError
    """
    if data.startswith(_OLE):
        if _ENCRYPTED_PACKAGE in data:
            raise EncryptedFileError(
                "the file needs a password; save a copy without one and ingest that"
            )
        raise CorruptFileError(
            f"the file is an old Office document, not {kind}; save it in the new format"
        )
    if not data.startswith(b"PK"):
        raise CorruptFileError(f"the file is not {kind}, whatever its name says")
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as exc:
        raise CorruptFileError(f"the file is damaged: {kind} could not be unpacked") from exc
    if any(info.flag_bits & _ENCRYPTED for info in members):
        raise EncryptedFileError(
            "the file needs a password; save a copy without one and ingest that"
        )
    if member not in {info.filename for info in members}:
        raise CorruptFileError(f"the file is some other zip archive, not {kind}")
    # Pictures are not unpacked as trees, only markup is.
    markup = sum(info.file_size for info in members if info.filename.endswith((".xml", ".rels")))
    total = sum(info.file_size for info in members)
    max_markup = limits.memory_mb * _MEGABYTE // _MEMORY_PER_BYTE
    is_bomb = total > _RATIO_MATTERS_FROM and total > _MAX_RATIO * len(data)
    if is_bomb or markup > max_markup or total > limits.memory_mb * _MEGABYTE // 2:
        raise LimitExceededError(
            f"the file unpacks to {total / _MEGABYTE:,.0f} MB, which is not safe to open"
        )
