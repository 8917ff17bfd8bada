"""Outlook messages (.msg): subject, head, text and attachments, by olefile.

A message is a container of streams named by the property they hold (MS-OXMSG): ``0037`` is the
subject, the ending ``001F`` means UTF-16, ``001E`` a code page, ``0102`` bytes. Of the text in
several forms the plain one is taken, else HTML, else RTF, which is compressed (MS-OXRTFCP).

Left out: appointments' and contacts' own fields, signatures, pictures inside the text.
"""

import io
import struct
from datetime import UTC, datetime
from typing import Any

import olefile

from ingest.decode import decode
from ingest.loaders import rtf
from ingest.loaders.attachments import Mail, mail_text
from ingest.loaders.base import LoadedText, ParseLimits
from ingest.loaders.html import declared_encoding, read_html
from ingest.loaders.signature import OLE
from kb.errors import CorruptFileError, LoadError, UndecodableTextError

_Path = tuple[str, ...]
_STREAM = "__substg1.0_"
_SUBJECT, _BODY, _HTML, _RTF = "0037", "1000", "1013", "1009"
_SENDER, _ADDRESS, _TO, _CC = "0C1A", "5D01", "0E04", "0E03"
_FILE, _LONG_NAME, _NAME, _CONTENT_ID = "3701", "3707", "3704", "3712"
_DELIVERED = (0x00390040, 0x0E060040)  # when it was sent, when it arrived
_FILETIME_EPOCH_S = 11_644_473_600  # from 1601 to 1970
# What a compressed RTF may refer back to before it begins.
_RTF_PRESET = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript "
    rb"\fdecor MS Sans SerifSymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0"
    b"\r\n"
    rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)
_BYTES_PER_CHAR = 8  # in RTF, formatting included
_DAMAGED = (OSError, struct.error, LookupError, ValueError, AttributeError, TypeError)


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    if not data.startswith(OLE):
        raise CorruptFileError("the file is not an Outlook message (.msg), whatever its name says")
    try:
        with olefile.OleFileIO(io.BytesIO(data)) as ole:
            reader = _Reader(ole, limits)
            if not reader.has_properties(()):
                raise CorruptFileError("the file is an old Office document, not an Outlook message")
            mail = reader.read((), limits.max_nesting)
    except LoadError:
        raise
    except _DAMAGED as exc:
        raise CorruptFileError("the Outlook message is damaged and cannot be read") from exc
    return mail_text(mail, limits)


class _Reader:
    def __init__(self, ole: Any, limits: ParseLimits) -> None:
        self._ole = ole
        self._limits = limits
        self._streams = {tuple(path) for path in ole.listdir()}

    def has_properties(self, path: _Path) -> bool:
        return (*path, "__properties_version1.0") in self._streams

    def read(self, path: _Path, nesting: int) -> Mail:
        sender = self._text(path, _SENDER)
        address = self._text(path, _ADDRESS)
        shown = f"{sender} <{address}>" if sender and address else sender or address
        fields = [
            ("From", shown),
            ("To", self._text(path, _TO)),
            ("Cc", self._text(path, _CC)),
            ("Date", self._date(path)),
        ]
        mail = Mail(self._text(path, _SUBJECT), fields)
        try:
            mail.body = self._body(path)
        except UndecodableTextError as exc:
            mail.notes.append(f"the text of the mail is not read: {exc}")
        depth = len(path)
        names = {p[depth] for p in self._streams if p[:depth] == path and len(p) > depth + 1}
        for name in sorted(name for name in names if name.startswith("__attach_")):
            self._add_attachment(mail, (*path, name), nesting)
        return mail

    def _add_attachment(self, mail: Mail, path: _Path, nesting: int) -> None:
        inner = (*path, f"{_STREAM}{_FILE}000D")
        if self.has_properties(inner):
            if nesting > 0:
                mail.inner.append(self.read(inner, nesting - 1))
            else:
                mail.notes.append("mails inside mails are nested too deeply; some are not read")
            return
        data = self._stream(path, f"{_FILE}0102")
        name = self._text(path, _LONG_NAME) or self._text(path, _NAME) or "attachment"
        is_picture = data.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM"))
        if data and not (is_picture and self._text(path, _CONTENT_ID)):
            mail.files.append((name.replace("/", "_").replace("\\", "_"), data))

    def _body(self, path: _Path) -> LoadedText:
        if text := self._text(path, _BODY, is_body=True):
            return LoadedText(text)
        page = self._stream(path, f"{_HTML}0102").rstrip(b"\0")
        if page.strip():
            return read_html(decode(page, declared=declared_encoding(page))[0], self._limits)
        if source := self._text(path, _HTML, is_body=True):
            return read_html(source, self._limits)
        if packed := self._stream(path, f"{_RTF}0102"):
            return rtf.load(_unpack_rtf(packed, self._limits), self._limits)
        return LoadedText("")

    def _text(self, path: _Path, tag: str, *, is_body: bool = False) -> str:
        if data := self._stream(path, f"{tag}001F"):
            text = data.decode("utf-16-le", "replace").replace("\0", "")
        elif data := self._stream(path, f"{tag}001E").replace(b"\0", b""):
            try:
                text = decode(data)[0]
            except UndecodableTextError:
                if is_body:
                    raise
                text = data.decode("ascii", "replace")
        else:
            return ""
        return text.replace("\r\n", "\n").replace("\r", "\n").strip()

    def _stream(self, path: _Path, name: str) -> bytes:
        place = (*path, f"{_STREAM}{name}")
        if place not in self._streams:
            return b""
        with self._ole.openstream(list(place)) as stream:
            data: bytes = stream.read()
        return data

    def _date(self, path: _Path) -> str:
        """Return when the mail was sent, in UTC."""
        with self._ole.openstream([*path, "__properties_version1.0"]) as stream:
            properties = stream.read()
        # The head of the file's own message is 32 bytes long, that of one inside another 24.
        start = 24 if path else 32
        found = {}
        for offset in range(start, len(properties) - 15, 16):
            tag, _, value = struct.unpack_from("<IIQ", properties, offset)
            found[tag] = value
        for tag in _DELIVERED:
            seconds = found.get(tag, 0) / 10_000_000 - _FILETIME_EPOCH_S
            if 0 < seconds < 2**33:
                return _utc(seconds)
        return ""


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _unpack_rtf(data: bytes, limits: ParseLimits) -> bytes:
    """Unpack a compressed RTF: runs of a ring of 4,096 bytes, eight to a byte of flags."""
    _, n_raw, kind = struct.unpack_from("<I I 4s", data)
    if kind == b"MELA":
        return data[16 : 16 + n_raw]
    if kind != b"LZFu":
        raise CorruptFileError("the Outlook message is damaged: its text cannot be unpacked")
    ring = bytearray(_RTF_PRESET.ljust(4096, b"\0"))
    at = len(_RTF_PRESET)  # where the ring is written next
    out = bytearray()

    def write(byte: int) -> None:
        nonlocal at
        ring[at % 4096] = byte
        out.append(byte)
        at += 1

    n_most = min(n_raw, limits.max_text_chars * _BYTES_PER_CHAR)
    position = 16
    while position < len(data) and len(out) < n_most:
        flags = data[position]
        position += 1
        for bit in range(8):
            if flags >> bit & 1:
                reference = int.from_bytes(data[position : position + 2], "big")
                position += 2
                start = reference >> 4
                if start == at % 4096 or position > len(data):  # the end mark, or cut off
                    return bytes(out)
                for i in range((reference & 15) + 2):
                    write(ring[(start + i) % 4096])
            elif position < len(data):
                write(data[position])
                position += 1
    return bytes(out)
