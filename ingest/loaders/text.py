"""Plain text: decoded and kept as it is. Chapter titles become headings."""

from ingest.decode import decode
from ingest.loaders.base import LoadedText, ParseLimits, check_text_chars
from ingest.loaders.chapters import find_chapters


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    text, encoding, is_guessed = decode(data)
    check_text_chars(len(text), limits.max_text_chars)
    return LoadedText(text, find_chapters(text), (), encoding, is_guessed)
