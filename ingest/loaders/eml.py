"""Mails (.eml): subject, head, text and attachments, whatever encodings they claim.

Of a text that comes plain and as HTML the plain one is taken. Attachments are read by the loader
of their name; those that cannot be are noted, pictures inside the text are not. Nothing is
fetched, no signature is checked.
"""

import email
import email.policy
import re
from collections import Counter
from email.errors import HeaderParseError, MessageError
from email.header import decode_header
from email.message import Message
from typing import Any

from ingest.decode import decode
from ingest.loaders.attachments import Mail, mail_text
from ingest.loaders.base import LoadedText, ParseLimits
from ingest.loaders.html import read_html
from ingest.loaders.whitespace import squeeze
from kb.errors import CorruptFileError, EncryptedFileError, UndecodableTextError

_FIELDS = ("From", "To", "Cc", "Date")
# One of these at least stands in every mail.
_KNOWN = (*_FIELDS, "Subject", "Received", "Message-ID", "MIME-Version", "Content-Type")
_MAX_PARTS = 10_000
_MAX_DEPTH = 20  # parts inside parts
_SIGNATURES = (
    "application/pgp-signature",
    "application/pkcs7-signature",
    "application/x-pkcs7-signature",
)
_ENCRYPTED = ("multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime")
_QUOTED_PRINTABLE_BREAK = re.compile(r"\n{3,}")


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    # compat32 raises on nothing; the newer policy raises odd errors on odd headers.
    message = email.message_from_bytes(data, policy=email.policy.compat32)
    if not any(name in message for name in _KNOWN):
        if not data.strip():
            return LoadedText("")
        raise CorruptFileError("the file is not a mail (.eml): it has no sender, date or subject")
    if message.get_content_type() in _ENCRYPTED:
        raise EncryptedFileError(
            "the mail is encrypted; open it in your mail program and save it in plain form"
        )
    return mail_text(_Reader(limits).read(message, limits.max_nesting), limits)


class _Reader:
    """Takes mails apart; counts parts over all of a file."""

    def __init__(self, limits: ParseLimits) -> None:
        self._limits = limits
        self._n_parts = 0

    def read(self, message: Message, nesting: int) -> Mail:
        fields = [(name, _header(message, name)) for name in _FIELDS]
        mail = Mail(_header(message, "Subject"), fields)
        texts: list[LoadedText] = []
        self._take(message, mail, texts, nesting, 0)
        mail.body = _joined(texts)
        return mail

    def _take(
        self, part: Message, mail: Mail, texts: list[LoadedText], nesting: int, depth: int
    ) -> None:
        self._n_parts += 1
        if self._n_parts > _MAX_PARTS or depth > _MAX_DEPTH:
            if "the mail has too many parts; some are not read" not in mail.notes:
                mail.notes.append("the mail has too many parts; some are not read")
            return
        kind = part.get_content_type()
        name = _file_name(part)
        payload = part.get_payload()
        if kind == "message/rfc822" and isinstance(payload, list):
            if nesting <= 0:
                mail.notes.append("mails inside mails are nested too deeply; some are not read")
                return
            mail.inner += [self.read(inner, nesting - 1) for inner in _parts(payload)]
        elif kind in _ENCRYPTED:
            mail.notes.append("a part of the mail is encrypted and not read")
        elif isinstance(payload, list):
            parts = _parts(payload)
            for inner in _best(parts) if kind == "multipart/alternative" else parts:
                self._take(inner, mail, texts, nesting, depth + 1)
        elif kind in _SIGNATURES:
            return
        elif name or part.get_content_disposition() == "attachment":
            if part.get_content_maintype() == "image" and "Content-ID" in part:
                return  # shown inside the text
            mail.files.append((name or f"attachment.{part.get_content_subtype()}", _bytes(part)))
        elif kind in ("text/plain", "text/html"):
            try:
                texts.append(self._text(part, is_html=kind == "text/html"))
            except UndecodableTextError as exc:
                mail.notes.append(f"a part of the mail is not read: {exc}")

    def _text(self, part: Message, *, is_html: bool) -> LoadedText:
        declared = part.get_param("charset")
        source, _, _ = decode(
            _bytes(part), declared=declared if isinstance(declared, str) else None
        )
        if is_html:
            return read_html(source, self._limits)
        return LoadedText(_QUOTED_PRINTABLE_BREAK.sub("\n\n", source))


def _parts(payload: list[Any]) -> list[Message]:
    return [part for part in payload if isinstance(part, Message)]


def _best(parts: list[Message]) -> list[Message]:
    """Return the one of several forms of a text that reads best: plain, unless it is blank."""
    for part in parts:
        if part.get_content_type() == "text/plain" and _bytes(part).strip():
            return [part]
    wanted = ("text/html", "multipart/related", "multipart/mixed")
    return [part for part in parts if part.get_content_type() in wanted][-1:] or parts[-1:]


def _bytes(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _joined(texts: list[LoadedText]) -> LoadedText:
    if len(texts) == 1:
        return texts[0]
    hidden = sum((Counter(text.hidden) for text in texts), Counter[str]())
    return LoadedText("\n\n".join(text.text for text in texts if text.text.strip()), hidden=hidden)


def _file_name(part: Message) -> str:
    try:
        name = part.get_filename() or ""
    except (LookupError, ValueError, TypeError):
        return ""
    return _decoded(name).replace("/", "_").replace("\\", "_")


def _header(message: Message, name: str) -> str:
    value = message.get(name)
    return "" if value is None else _decoded(value)


def _decoded(value: object) -> str:
    """Decode a header: encoded words, and bytes that should not be there but are."""
    try:
        pieces = decode_header(value)  # type: ignore[arg-type]
    except (HeaderParseError, MessageError, ValueError, LookupError):
        pieces = [(str(value), None)]
    texts = []
    for piece, charset in pieces:
        data = piece if isinstance(piece, bytes) else piece.encode("utf-8", "surrogateescape")
        if charset == "unknown-8bit":
            charset = None
        try:
            texts.append(decode(data, declared=charset)[0] if data.strip() else data.decode())
        except UndecodableTextError:
            texts.append(data.decode("ascii", "replace"))
    return squeeze("".join(texts))
