"""What every loader shares: its limits, its result and a builder that keeps offsets exact.

A loader is a plain function ``load(data, limits) -> LoadedText`` over the bytes of one file. It
runs in the parser child, reads nothing else and writes nothing.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from kb.errors import LimitExceededError
from kb.records import Flag, Heading

if TYPE_CHECKING:
    from kb.config import Settings

# A heading longer than this is a paragraph in disguise; the path is embedded with each chunk.
MAX_TITLE_CHARS = 200


@dataclass(frozen=True, slots=True)
class ParseLimits:
    """How much one file may cost before it is refused.

    `timeout_s` counts from the moment the loader is imported, and anew from each part of a page
    that OCR reads; `memory_mb` is the resident size of the child; `max_cells` counts table cells,
    CSV fields included; `max_text_chars` bounds the text that comes out; `max_nesting` is how many
    mails inside mails are opened; `max_ocr_pages` may be 0. The `passwords`, tried on locked PDFs,
    are no limit but go the same way.
    """

    timeout_s: float
    memory_mb: int
    max_file_mb: int
    max_pages: int
    max_cells: int
    max_text_chars: int
    max_nesting: int = 3
    max_ocr_pages: int = 500
    passwords: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, settings: "Settings") -> Self:
        return cls(
            timeout_s=settings.parse_timeout_s,
            memory_mb=settings.parse_memory_mb,
            max_file_mb=settings.max_file_mb,
            max_pages=settings.max_pages,
            max_cells=settings.max_cells,
            max_text_chars=settings.max_text_chars,
            max_ocr_pages=settings.max_ocr_pages,
            passwords=tuple(secret.get_secret_value() for secret in settings.passwords),
        )


@dataclass(frozen=True, slots=True)
class LoadedText:
    """The clean text of one file; fields as in `kb.records.LoadedDocument`.

    ``text[heading.start:]`` begins with the heading's line.
    """

    text: str
    headings: tuple[Heading, ...] = ()
    pages: tuple[int, ...] = ()
    encoding: str | None = None
    encoding_guessed: bool = False
    notes: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    # What was left out since no reader sees it, as "white text", with its number of characters.
    hidden: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class TextBuilder:
    """Collects blocks of text, so that offsets are right by construction.

    Blocks are separated by an empty line. `max_chars` is checked while building, so a small
    file that expands without end stops early.
    """

    max_chars: int
    hidden: Counter[str] = field(default_factory=Counter)  # as in `LoadedText`
    _parts: list[str] = field(default_factory=list)
    _headings: list[Heading] = field(default_factory=list)
    _pages: list[int] = field(default_factory=list)
    _n_chars: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added yet."""
        return not self._parts

    def add(self, block: str, separator: str = "\n\n") -> None:
        """Append a block; blank blocks are ignored, `separator` stands before it."""
        block = block.strip("\n").rstrip()
        if not block.strip():
            return
        is_first = not self._parts or self._parts[-1].endswith("\n")  # of the text or page
        self._write(("" if is_first else separator) + block)

    def heading(self, line: str, level: int, title: str = "") -> None:
        """Append a heading on a line of its own.

        `level` is from 1; `title` is what the heading path shows, by default the line itself.
        """
        line = " ".join(line.split())
        if not line:
            return
        self.add(line)
        start = self._n_chars - len(line)
        self._headings.append(Heading(start, level, (title or line)[:MAX_TITLE_CHARS]))

    def page(self, separator: str = "\n\n") -> None:
        """Begin the next page: it starts where the next character will stand."""
        if self._parts and not self._parts[-1].endswith("\n"):
            self._write(separator)
        self._pages.append(self._n_chars)

    def append(self, loaded: LoadedText, levels: int = 0) -> None:
        """Append another text with its headings, `levels` deeper; its pages are dropped."""
        before = self._n_chars
        self.hidden.update(loaded.hidden)
        self.add(loaded.text)
        n_added = len(loaded.text.strip("\n").rstrip())
        start = self._n_chars - n_added
        n_cut = len(loaded.text) - len(loaded.text.lstrip("\n"))
        if self._n_chars > before:
            self._headings += [
                Heading(start + heading.start - n_cut, heading.level + levels, heading.title)
                for heading in loaded.headings
                if n_cut <= heading.start < n_cut + n_added
            ]

    def build(self) -> LoadedText:
        return LoadedText(
            "".join(self._parts),
            tuple(self._headings),
            tuple(self._pages),
            hidden=+self.hidden,
        )

    def _write(self, piece: str) -> None:
        self._n_chars += len(piece)
        check_text_chars(self._n_chars, self.max_chars)
        self._parts.append(piece)


def check_text_chars(n_chars: int, max_chars: int) -> None:
    """Refuse a text that grew beyond its limit.

    Raises:
        LimitExceededError: `n_chars` is more than `max_chars`.
    """
    if n_chars > max_chars:
        raise LimitExceededError(
            f"the file holds more than {max_chars:,} characters of text; split it"
        )


def check_cells(n_cells: int, max_cells: int) -> None:
    """Refuse a table that is too large.

    Raises:
        LimitExceededError: `n_cells` is more than `max_cells`.
    """
    if n_cells > max_cells:
        raise LimitExceededError(f"the file holds more than {max_cells:,} table cells; split it")
