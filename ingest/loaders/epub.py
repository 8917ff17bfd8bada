"""E-books (.epub): the chapters in reading order, as `ingest/loaders/html.py` reads pages.

The book's title is the heading above all; a chapter without a heading of its own gets the name
that the table of contents gives it.

Left out: the table of contents, covers without text, pictures, notes on the publisher. Books
locked by their seller (DRM) are refused.
"""

import io
import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import unquote
from zipfile import BadZipFile, ZipFile

from lxml import etree

from ingest.decode import decode
from ingest.loaders.archive import check_archive, read_member, read_xml
from ingest.loaders.base import LoadedText, ParseLimits, TextBuilder, check_text_chars
from ingest.loaders.html import declared_encoding, read_html
from ingest.loaders.whitespace import squeeze
from kb.errors import (
    CorruptFileError,
    EncryptedFileError,
    LimitExceededError,
    UndecodableTextError,
)

_KIND = "an e-book (.epub)"
_CONTAINER = "META-INF/container.xml"
# "<a id='x'/>" is an empty element in XHTML, but opens one in HTML.
_SELF_CLOSED = re.compile(r"<(?!(?:br|hr|img|meta|link|col|input|area|wbr)\b)([\w:]+)([^<>]*?)/>")
_TITLE = re.compile(r"<title\b[^>]*>.*?</title>", re.IGNORECASE | re.DOTALL)
_FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
_MAX_CONTENTS = 10_000  # entries


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    check_archive(data, _CONTAINER, _KIND, limits)
    chapters: list[tuple[LoadedText, str]] = []
    unread = []
    n_chars = 0
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            _check_not_locked(archive)
            package_name = _package_name(archive)
            package = read_xml(archive, package_name)
            book = squeeze(next((e.text or "" for e in package.iter("{*}title")), ""))
            members = list(_spine(package, package_name))
            if len(members) > limits.max_pages:
                raise LimitExceededError(f"the book has more than {limits.max_pages:,} parts")
            names = _contents(archive, package, package_name)
            for member in members:
                try:
                    source = _source(read_member(archive, member))
                except (CorruptFileError, UndecodableTextError):
                    unread.append(member)
                    continue
                chapter = _without_title(read_html(source, limits), book)
                n_chars += len(chapter.text)
                check_text_chars(n_chars, limits.max_text_chars)
                chapters.append((chapter, names.get(member, "")))
    except (BadZipFile, OSError) as exc:
        raise CorruptFileError(f"the file is damaged: {_KIND} could not be unpacked") from exc
    if unread and not any(chapter.text for chapter, _ in chapters):
        raise CorruptFileError("the e-book is damaged: none of its chapters can be read")
    notes = [f"chapter {name!r} is missing or damaged" for name in unread]
    return replace(_build(book, chapters, limits), notes=tuple(notes))


def _build(book: str, chapters: list[tuple[LoadedText, str]], limits: ParseLimits) -> LoadedText:
    builder = TextBuilder(limits.max_text_chars)
    levels = [heading.level for chapter, _ in chapters for heading in chapter.headings]
    below = 2 - min(levels, default=1)  # the book's title stands above all
    for chapter, name in chapters:
        if not chapter.text.strip():
            continue
        if builder.is_empty:
            builder.heading(book, 1)
        if name and name != book and not chapter.headings:
            builder.heading(name, 2)
        builder.append(chapter, levels=below)
    return builder.build()


def _without_title(chapter: LoadedText, book: str) -> LoadedText:
    """Drop a first line that only repeats the book's title."""
    first = chapter.headings[0] if chapter.headings else None
    if first is None or first.start or first.title != book:
        return chapter
    _, _, text = chapter.text.partition("\n")
    n_cut = len(chapter.text) - len(text)
    headings = (replace(h, start=h.start - n_cut) for h in chapter.headings[1:])
    return replace(chapter, text=text, headings=tuple(headings))


def _check_not_locked(archive: ZipFile) -> None:
    """Refuse a book whose text is encrypted; fonts may be."""
    if "META-INF/encryption.xml" not in archive.namelist():
        return
    methods = read_xml(archive, "META-INF/encryption.xml").iterfind("{*}EncryptedData")
    for encrypted in methods:
        method = encrypted.find("{*}EncryptionMethod")
        if method is None or method.get("Algorithm") not in _FONTS:
            raise EncryptedFileError("the e-book is locked by its seller (DRM)")


def _package_name(archive: ZipFile) -> str:
    for element in read_xml(archive, _CONTAINER).iter("{*}rootfile"):
        if name := element.get("full-path"):
            return posixpath.normpath(str(name))
    raise CorruptFileError("the e-book is damaged: it does not say where its chapters are")


def _spine(package: etree._Element, package_name: str) -> Iterator[str]:
    """Yield the members with the chapters, in reading order, the table of contents left out."""
    items = {item.get("id"): item for item in package.iterfind("{*}manifest/{*}item")}
    for reference in package.iterfind("{*}spine/{*}itemref"):
        item = items.get(reference.get("idref"))
        if item is not None and "nav" not in item.get("properties", "").split():
            yield _member(package_name, item.get("href", ""))


def _contents(archive: ZipFile, package: etree._Element, package_name: str) -> dict[str, str]:
    """Return the names of chapters by their member; empty if there is no usable list of them."""
    names: dict[str, str] = {}
    for item in package.iterfind("{*}manifest/{*}item"):
        is_nav = "nav" in item.get("properties", "").split()
        if not is_nav and item.get("media-type") != "application/x-dtbncx+xml":
            continue
        contents = _member(package_name, item.get("href", ""))
        try:
            root = read_xml(archive, contents)
        except CorruptFileError:  # the chapters can be read without it
            continue
        points = root.iter("{*}a") if is_nav else root.iter("{*}navPoint")
        for i, point in enumerate(points):
            if i == _MAX_CONTENTS:
                break
            target = point if is_nav else point.find("{*}content")
            label = point if is_nav else point.find("{*}navLabel")
            if target is None or label is None:
                continue
            link = target.get("href" if is_nav else "src", "").partition("#")[0]
            text = squeeze("".join(label.itertext()))
            if link and text:
                names.setdefault(_member(contents, link), text)
    return names


def _member(relative_to: str, link: str) -> str:
    folder = posixpath.dirname(relative_to)
    return posixpath.normpath(posixpath.join("/", folder, unquote(link))).lstrip("/")


def _source(data: bytes) -> str:
    source, _, _ = decode(data, declared=declared_encoding(data))
    return _SELF_CLOSED.sub(r"<\1\2></\1>", _TITLE.sub("", source, count=1))
