"""Bytes to text (first version: BOM and strict UTF-8)."""

from kb.errors import UndecodableTextError


def decode(data: bytes, *, declared: str | None = None) -> tuple[str, str, bool]:
    for bom, name in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(bom):
            return _clean(data.decode(name)), name, False
    for name in ("utf-8", "gb18030"):
        try:
            return _clean(data.decode(name)), name, name != "utf-8"
        except UnicodeDecodeError:
            continue
    raise UndecodableTextError("the file is not text in an encoding that can be told")


def _clean(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "")
