"""Files whose first bytes say that they are no text, whatever their name says."""

from kb.errors import CorruptFileError

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # the container of old Office documents

_SIGNATURES = (
    (b"PK\x03\x04", "a zip archive or Office document"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"%PDF-", "a PDF"),
    (OLE, "an old Office document"),
    (b"\x1f\x8b\x08", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"\x89PNG\r\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF87a", "a GIF picture"),
    (b"GIF89a", "a GIF picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"{\\rtf", "an RTF document"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90\x00", "a program"),
    (b"SQLite format 3\x00", "an SQLite database"),
)


def check_is_text(data: bytes, suffix: str) -> None:
    """Refuse a file of a text format that begins like another format.

    Raises:
        CorruptFileError: it does; the message says what it is.
    """
    for signature, what in _SIGNATURES:
        if data.startswith(signature):
            raise CorruptFileError(
                f"the file is {what} by its content, not {named(suffix)}; "
                "give it the extension of its real format"
            )


def named(suffix: str) -> str:
    """Return how to call a file with this extension."""
    return f"a {suffix} file" if suffix else "text without an extension"
