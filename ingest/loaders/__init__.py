"""Which loader reads which file: the table below, by extension.

A loader is a module of this package with a function ``load(data, limits) -> LoadedText``; it is
imported when first needed, in the parser child. To add a format, write the module and name it
here. Raise a loader's version when its text or flags change: only then are known files parsed
again.
"""

from importlib import import_module
from pathlib import PurePosixPath
from types import ModuleType

from ingest.loaders.base import LoadedText, ParseLimits
from ingest.loaders.screen import screen
from ingest.loaders.signature import check_is_text
from kb.errors import UnsupportedFormatError

# extension -> (module, version)
LOADERS: dict[str, tuple[str, str]] = {
    ".txt": ("text", "text/2"),
    ".text": ("text", "text/2"),
    ".log": ("text", "text/2"),
    ".md": ("markdown", "markdown/2"),
    ".markdown": ("markdown", "markdown/2"),
    ".rst": ("rst", "rst/2"),
    ".html": ("html", "html/2"),
    ".htm": ("html", "html/2"),
    ".xhtml": ("html", "html/2"),
    ".pdf": ("pdf", "pdf/3"),
    ".docx": ("docx", "docx/2"),
    ".doc": ("doc", "doc/2"),
    ".pptx": ("pptx", "pptx/2"),
    ".pptm": ("pptx", "pptx/2"),
    ".ppsx": ("pptx", "pptx/2"),
    ".ppt": ("ppt", "ppt/2"),
    ".xlsx": ("xlsx", "xlsx/2"),
    ".xlsm": ("xlsx", "xlsx/2"),
    ".xls": ("xls", "xls/2"),
    ".csv": ("csv", "csv/2"),
    ".tsv": ("csv", "csv/2"),
    ".odt": ("odt", "odt/2"),
    ".rtf": ("rtf", "rtf/2"),
    ".epub": ("epub", "epub/2"),
    ".eml": ("eml", "eml/2"),
    ".msg": ("msg", "msg/2"),
    ".json": ("json", "json/2"),
    ".jsonl": ("json", "json/2"),
    ".ndjson": ("json", "json/2"),
    ".ipynb": ("ipynb", "ipynb/2"),
    ".png": ("picture", "picture/1"),
    ".jpg": ("picture", "picture/1"),
    ".jpeg": ("picture", "picture/1"),
    ".tif": ("picture", "picture/1"),
    ".tiff": ("picture", "picture/1"),
    ".bmp": ("picture", "picture/1"),
    ".webp": ("picture", "picture/1"),
    ".gif": ("picture", "picture/1"),
    "": ("text", "text/2"),  # README, LICENSE; what is no text is refused by its bytes
}
# Source code and configuration, read as it is.
_CODE = (
    "asm bash bat c cc cfg clj cmake cmd conf cpp cs css cxx dart diff el erl ex exs f90 fish go "
    "gradle graphql groovy h hh hpp hs ini ipp java jl js jsx kt kts less lisp lua m make mjs "
    "mk ml mm org patch php pl pm properties proto ps1 py pyi r rb rs s scala scss sh sol sql "
    "srt st svelte swift tcl tex tf toml ts tsx v vb vhd vhdl vtt vue xml xsd yaml yml zig zsh"
)
LOADERS |= {f".{suffix}": ("code", "code/2") for suffix in _CODE.split()}
_BINARY_FORMATS = frozenset(
    ("pdf", "docx", "doc", "pptx", "ppt", "xlsx", "xls", "odt", "rtf", "epub", "msg", "picture")
)


def extension(name: str) -> str:
    """Return the lower-case extension of a file name with its dot, "" without one."""
    return PurePosixPath(name.replace("\\", "/")).suffix.lower()


def is_supported(name: str) -> bool:
    """Tell by a file's name whether a loader knows its format."""
    return extension(name) in LOADERS


def loader_version(name: str) -> str:
    """Return what reads this file, as "pdf/2"; "" when nothing does."""
    _, version = LOADERS.get(extension(name), ("", ""))
    return version


def import_loader(name: str) -> ModuleType:
    """Import the loader of a file, which for some formats takes seconds the first time.

    Raises:
        UnsupportedFormatError: no loader knows the extension.
    """
    suffix = extension(name)
    if suffix not in LOADERS:
        readable = " ".join(sorted(known for known, (kind, _) in LOADERS.items() if kind != "code"))
        raise UnsupportedFormatError(
            f"{suffix} files cannot be read yet; these can: {readable.strip()} and source code"
        )
    module, _ = LOADERS[suffix]
    return import_module(f"ingest.loaders.{module}")


def load_bytes(data: bytes, name: str, limits: ParseLimits) -> LoadedText:
    """Read the text of one file; `name` gives its extension. No bytes give no text.

    Raises:
        LoadError: why the file cannot be read, for its owner. What a library raises on damaged
            input beyond what its loader foresees comes through as it is.
    """
    loader = import_loader(name)
    if not data:
        return LoadedText("")
    suffix = extension(name)
    module, _ = LOADERS[suffix]
    if module not in _BINARY_FORMATS:
        check_is_text(data, suffix)
    loaded: LoadedText = loader.load(data, limits)
    return screen(loaded)
