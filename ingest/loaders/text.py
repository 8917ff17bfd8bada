"""Plain text: decoded and kept as it is."""

from ingest.decode import decode
from ingest.loaders.base import LoadedText, ParseLimits, check_text_chars

VERSION = "text/1"


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    text, encoding, is_guessed = decode(data)
    check_text_chars(len(text), limits.max_text_chars)
    return LoadedText(text, encoding=encoding, encoding_guessed=is_guessed)
