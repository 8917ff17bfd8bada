"""Old PowerPoint presentations (.ppt): turned into new ones by LibreOffice, read as those."""

from ingest.loaders import pptx
from ingest.loaders.base import LoadedText, ParseLimits
from ingest.loaders.libreoffice import convert


def load(data: bytes, limits: ParseLimits) -> LoadedText:
    return pptx.load(convert(data, ".ppt", limits), limits)
