"""Source code and configuration: decoded and kept as it is, without headings.

Nothing is executed, highlighted or left out. Chapter titles are not looked for, since a comment
such as "一、" is none.
"""

from ingest.decode import decode
from ingest.loaders.base import LoadedText, ParseLimits, check_text_chars


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    text, encoding, is_guessed = decode(data)
    check_text_chars(len(text), limits.max_text_chars)
    return LoadedText(text, encoding=encoding, encoding_guessed=is_guessed)
