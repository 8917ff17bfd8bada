"""What the tests of loaders share."""

from ingest.loaders import load_bytes
from ingest.loaders.base import LoadedText
from tests.ingest.files_samples import LIMITS


def load(data: bytes | str, name: str) -> LoadedText:
    """Load a file with the tests' limits and check that its headings begin their lines."""
    loaded = load_bytes(data.encode() if isinstance(data, str) else data, name, LIMITS)
    starts = [heading.start for heading in loaded.headings]
    assert starts == sorted(starts)
    assert list(loaded.pages) == sorted(loaded.pages)
    for start in starts:
        assert start == 0 or loaded.text[start - 1] == "\n"
        assert loaded.text[start] != "\n"
    return loaded


def titles(loaded: LoadedText) -> list[tuple[int, str]]:
    return [(heading.level, heading.title) for heading in loaded.headings]


def heading_lines(loaded: LoadedText) -> list[str]:
    return [loaded.text[heading.start :].split("\n")[0] for heading in loaded.headings]
