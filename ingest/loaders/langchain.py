"""Our loaders as a LangChain `BaseLoader`, for use in any LangChain program.

It parses in its own process, so it is for files that you trust; our own ingest goes through
`ingest/parser.py`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document

from ingest.loaders import load_bytes
from ingest.loaders.base import ParseLimits
from kb.config import Settings

_LIMITS = ParseLimits.of(Settings.model_validate({}))  # the defaults


class FileLoader(BaseLoader):
    """Yields one `Document` with the whole text of a file.

    Its metadata: `source` (the path), `headings` (dicts of start, level, title), `pages` (start
    offsets), `encoding`, None for formats that have none, `encoding_guessed`, and `notes` on what
    of the file is not in the text. The limits of time and memory need a process of their own and
    are not enforced here.
    """

    def __init__(self, path: str | Path, *, limits: ParseLimits = _LIMITS) -> None:
        self.path = Path(path)
        self._limits = limits

    def lazy_load(self) -> Iterator[Document]:
        """Yield the document.

        Raises:
            LoadError: the file cannot be read.
            OSError: it cannot be opened.
        """
        loaded = load_bytes(self.path.read_bytes(), self.path.name, self._limits)
        metadata: dict[str, Any] = {
            "source": str(self.path),
            "headings": [
                {"start": heading.start, "level": heading.level, "title": heading.title}
                for heading in loaded.headings
            ],
            "pages": list(loaded.pages),
            "encoding": loaded.encoding,
            "encoding_guessed": loaded.encoding_guessed,
            "notes": list(loaded.notes),
        }
        yield Document(page_content=loaded.text, metadata=metadata)
