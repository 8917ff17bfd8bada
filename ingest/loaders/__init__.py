"""Which loader reads which file: the table below, by extension.

A loader is a module of this package with a function ``load(data, limits) -> LoadedText``; it is
imported when first needed, in the parser child. To add a format, write the module and name it
here. Raise a loader's version when its text changes: only then are known files parsed again.
"""

from importlib import import_module
from pathlib import PurePosixPath
from types import ModuleType

from ingest.loaders.base import LoadedText, ParseLimits
from ingest.loaders.signature import check_is_text
from kb.errors import UnsupportedFormatError

# extension -> (module, version)
LOADERS: dict[str, tuple[str, str]] = {
    ".txt": ("text", "text/1"),
    ".text": ("text", "text/1"),
    ".log": ("text", "text/1"),
    ".md": ("markdown", "markdown/1"),
    ".markdown": ("markdown", "markdown/1"),
    ".rst": ("rst", "rst/1"),
    ".html": ("html", "html/1"),
    ".htm": ("html", "html/1"),
    ".xhtml": ("html", "html/1"),
    ".pdf": ("pdf", "pdf/2"),
    ".docx": ("docx", "docx/1"),
    ".doc": ("doc", "doc/1"),
    ".pptx": ("pptx", "pptx/1"),
    ".pptm": ("pptx", "pptx/1"),
    ".ppsx": ("pptx", "pptx/1"),
    ".ppt": ("ppt", "ppt/1"),
    ".xlsx": ("xlsx", "xlsx/1"),
    ".xlsm": ("xlsx", "xlsx/1"),
    ".xls": ("xls", "xls/1"),
    ".csv": ("csv", "csv/1"),
    ".tsv": ("csv", "csv/1"),
    ".odt": ("odt", "odt/1"),
    ".rtf": ("rtf", "rtf/1"),
    ".epub": ("epub", "epub/1"),
    ".eml": ("eml", "eml/1"),
    ".msg": ("msg", "msg/1"),
    ".json": ("json", "json/1"),
    ".jsonl": ("json", "json/1"),
    ".ndjson": ("json", "json/1"),
    ".ipynb": ("ipynb", "ipynb/1"),
    ".png": ("picture", "picture/1"),
    ".jpg": ("picture", "picture/1"),
    ".jpeg": ("picture", "picture/1"),
    ".tif": ("picture", "picture/1"),
    ".tiff": ("picture", "picture/1"),
    ".bmp": ("picture", "picture/1"),
    ".webp": ("picture", "picture/1"),
    ".gif": ("picture", "picture/1"),
    "": ("text", "text/1"),  # README, LICENSE; what is no text is refused by its bytes
}
# Source code and configuration, read as it is.
_CODE = (
    "asm bash bat c cc cfg clj cmake cmd conf cpp cs css cxx dart diff el erl ex exs f90 fish go "
    "gradle graphql groovy h hh hpp hs ini ipp java jl js jsx kt kts less lisp lua m make mjs "
    "mk ml mm org patch php pl pm properties proto ps1 py pyi r rb rs s scala scss sh sol sql "
    "srt st svelte swift tcl tex tf toml ts tsx v vb vhd vhdl vtt vue xml xsd yaml yml zig zsh"
)
LOADERS |= {f".{suffix}": ("code", "code/1") for suffix in _CODE.split()}
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
    """Return what reads this file, as "pdf/1"; "" when nothing does."""
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
    return loaded
