"""Which loader reads which file: the table below, by extension.

The loaders themselves are imported when first needed, in the parser child.
"""

from importlib import import_module
from pathlib import PurePosixPath
from types import ModuleType

from ingest.loaders.base import LoadedText, ParseLimits
from kb.errors import UnsupportedFormatError

# extension -> (module in this package, version). A new version makes the sync parse again.
LOADERS: dict[str, tuple[str, str]] = {
    ".txt": ("text", "text/1"),
    ".text": ("text", "text/1"),
    ".log": ("text", "text/1"),
    ".md": ("markdown", "markdown/1"),
    ".markdown": ("markdown", "markdown/1"),
    ".html": ("html", "html/1"),
    ".htm": ("html", "html/1"),
    ".xhtml": ("html", "html/1"),
    ".pdf": ("pdf", "pdf/1"),
    ".docx": ("docx", "docx/1"),
    ".csv": ("csv", "csv/1"),
    ".tsv": ("csv", "csv/1"),
    ".rst": ("rst", "rst/1"),
}


def extension(name: str) -> str:
    """Return the lower-case extension of a file name, with its dot, "" without one."""
    return PurePosixPath(name.replace("\\", "/")).suffix.lower()


def is_supported(name: str) -> bool:
    return extension(name) in LOADERS


def loader_version(name: str) -> str:
    """Return what reads this file, as "pdf/1"; "" when nothing does."""
    _, version = LOADERS.get(extension(name), ("", ""))
    return version


def import_loader(name: str) -> ModuleType:
    """Import what reads this file, so that the first one of a kind does not pay for it.

    Raises:
        UnsupportedFormatError: no loader knows the extension.
    """
    suffix = extension(name)
    if suffix not in LOADERS:
        raise UnsupportedFormatError(
            f"{suffix or 'files without an extension'} cannot be read yet; "
            f"supported: {', '.join(sorted(LOADERS))}"
        )
    module, _ = LOADERS[suffix]
    return import_module(f"ingest.loaders.{module}")


def load_bytes(data: bytes, name: str, limits: ParseLimits) -> LoadedText:
    """Read the text of one file; `name` gives its extension.

    Raises:
        LoadError: the reason is for the user.
    """
    loaded: LoadedText = import_loader(name).load(data, limits)
    return loaded
