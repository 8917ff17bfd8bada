"""Old Word documents (.doc): turned into new ones by LibreOffice, then read as those."""

from ingest.loaders import docx
from ingest.loaders.base import LoadedText, ParseLimits
from ingest.loaders.libreoffice import convert


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    return docx.load(convert(data, ".doc", limits), limits)
