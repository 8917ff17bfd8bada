"""Zip containers (Office, OpenDocument, EPUB): refused before they are opened if they unpack to
too much, and their XML is read without entities, external or not."""

import io
import zipfile
import zlib
from zipfile import ZipFile

from lxml import etree

from ingest.loaders.base import ParseLimits
from ingest.loaders.signature import OLE
from kb.errors import CorruptFileError, EncryptedFileError, LimitExceededError

_MEGABYTE = 1 << 20
# XML becomes a tree of about ten times its size in memory.
_MEMORY_PER_BYTE = 10
# Office files shrink to a tenth; a bomb to a thousandth. Small ones may do as they like.
_MAX_RATIO = 100
_RATIO_MATTERS_FROM = 20 * _MEGABYTE
_ENCRYPTED = 0x1  # bit of a member's flags
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
# What Python's zip reader raises on damage; RuntimeError is a password it was not given.
DAMAGED = (
    *(KeyError, ValueError, EOFError, OSError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)
_MARKUP = (".xml", ".rels", ".opf", ".ncx", ".xhtml", ".html", ".htm")


def check_archive(data: bytes, member: str, kind: str, limits: ParseLimits) -> None:
    """Check that `data` is a zip file that holds `member` and is safe to unpack.

    `kind` names the format in messages, as in "a Word document (.docx)". Sizes are those that
    the directory declares; `read_member` reads no more, the parser's memory limit holds for all.

    Raises:
        EncryptedFileError, CorruptFileError, LimitExceededError
    """
    if data.startswith(OLE):
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
    markup = sum(info.file_size for info in members if info.filename.endswith(_MARKUP))
    total = sum(info.file_size for info in members)
    max_markup = limits.memory_mb * _MEGABYTE // _MEMORY_PER_BYTE
    is_bomb = total > _RATIO_MATTERS_FROM and total > _MAX_RATIO * len(data)
    if is_bomb or markup > max_markup or total > limits.memory_mb * _MEGABYTE // 2:
        raise LimitExceededError(
            f"the file unpacks to {total / _MEGABYTE:,.0f} MB, which is not safe to open"
        )


def read_member(archive: ZipFile, name: str) -> bytes:
    """Return the bytes of a member.

    Raises:
        CorruptFileError: it is missing or damaged.
    """
    try:
        size = archive.getinfo(name).file_size
        with archive.open(name) as stream:
            data = stream.read(size + 1)  # read() would unpack all of it, whatever is declared
        if len(data) != size:
            raise CorruptFileError(f"the file is damaged: {name!r} is not as long as it says")
        return data
    except DAMAGED as exc:
        raise CorruptFileError(f"the file is damaged: {name!r} in it cannot be read") from exc


def read_xml(archive: ZipFile, name: str) -> etree._Element:
    """Parse a member that is XML; entities are not resolved and nothing else is opened.

    Raises:
        CorruptFileError: it is missing, damaged or declares entities, which these formats never
            do and bombs ("billion laughs") must.
    """
    return parse_xml(read_member(archive, name))


def parse_xml(data: bytes) -> etree._Element:
    """Parse XML as `read_xml` does."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError) as exc:
        raise CorruptFileError("the file is damaged: its XML is not well-formed") from exc
    dtd = root.getroottree().docinfo.internalDTD
    if dtd is not None and next(dtd.iterentities(), None) is not None:
        raise CorruptFileError("the file declares XML entities, which is not safe to read")
    return root
