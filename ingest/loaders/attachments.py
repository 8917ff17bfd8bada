"""What mails of both formats share: their head, and attachments read by their own loaders."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ingest.loaders import is_supported, load_bytes
from ingest.loaders.base import LoadedText, ParseLimits, TextBuilder
from ingest.loaders.whitespace import squeeze
from kb.errors import CorruptFileError, LimitExceededError, LoadError, UnsupportedFormatError
from kb.records import Flag

logger = logging.getLogger(__name__)

_MAX_ATTACHMENTS = 200


@dataclass(slots=True)
class Mail:
    """One mail: `fields` are its head as ``(name, value)``, `files` as ``(name, bytes)``."""

    subject: str
    fields: list[tuple[str, str]]
    body: LoadedText = field(default_factory=lambda: LoadedText(""))
    files: list[tuple[str, bytes]] = field(default_factory=list)
    inner: list["Mail"] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def mail_text(mail: Mail, limits: ParseLimits) -> LoadedText:
    """Return the mail with what is attached to it.

    The subject is the heading above all, each attachment has its name as a heading. An attachment
    that cannot be read becomes a note and does not harm the rest. A mail without a subject, text
    and attachments is blank.
    """
    builder = TextBuilder(limits.max_text_chars)
    notes = list(mail.notes)
    flags: list[Flag] = []
    if not (mail.subject or mail.body.text.strip() or mail.files or mail.inner):
        return LoadedText("", hidden=mail.body.hidden)
    builder.heading(mail.subject, 1)
    _add_lines(builder, (f"{name}: {value}" for name, value in mail.fields if value))
    builder.append(mail.body, levels=1)
    if limits.max_nesting <= 0 and (mail.files or mail.inner):
        notes.append("mails inside mails are nested too deeply; the inner ones are not read")
        return replace(builder.build(), notes=tuple(notes))
    inside = replace(limits, max_nesting=limits.max_nesting - 1)
    for inner in mail.inner:
        loaded = mail_text(inner, inside)
        builder.append(loaded, levels=1)
        notes += loaded.notes
        flags += loaded.flags
    if len(mail.files) > _MAX_ATTACHMENTS:
        notes.append(f"only the first {_MAX_ATTACHMENTS} of {len(mail.files)} attachments are read")
    for name, data in mail.files[:_MAX_ATTACHMENTS]:
        try:
            loaded = _load(name, data, inside)
        except LoadError as exc:
            notes.append(f"attachment {name!r} is not read: {exc}")
            continue
        notes += [f"attachment {name!r}: {note}" for note in loaded.notes]
        # The others are found again in the mail as a whole.
        flags += [flag for flag in loaded.flags if flag.kind == "hidden_part"]
        if loaded.text.strip():
            builder.heading(name, 2)
            builder.append(loaded, levels=2)
        else:
            builder.hidden.update(loaded.hidden)
    return replace(builder.build(), notes=tuple(notes), flags=tuple(flags))


def _add_lines(builder: TextBuilder, lines: Iterable[str]) -> None:
    for i, line in enumerate(lines):
        builder.add(squeeze(line), "\n" if i else "\n\n")


def _load(name: str, data: bytes, limits: ParseLimits) -> LoadedText:
    if not is_supported(name):
        raise UnsupportedFormatError("files of its format cannot be read")
    if len(data) > limits.max_file_mb << 20:
        raise LimitExceededError(f"it is larger than {limits.max_file_mb} MB")
    try:
        return load_bytes(data, name, limits)
    except (LoadError, MemoryError):
        raise
    except Exception as exc:  # libraries raise anything on damaged files
        logger.debug("an attachment could not be read", exc_info=True)
        raise CorruptFileError("it may be damaged") from exc
