"""Runs of a Word document that nobody sees: hidden ones, white ones, tiny ones.

They are taken out of the document before it is read. A white run is invisible only where nothing
gives it another background: no shading or highlight of its own, its paragraph, style, cell or
table, no background of the page and no text box.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from docx.oxml.ns import qn

from ingest.loaders.whitespace import n_visible

HIDDEN = "hidden text"
WHITE = "white text"
TINY = "text in a tiny font"

_OFF = ("0", "false", "off", "none")
_TINY_HALF_POINTS = 2
_WHITE_FROM = 0xF5  # of 255, in each of red, green and blue
_NO_SHADE = (None, "auto", "FFFFFF", "ffffff")
_MAX_STYLES = 20  # styles may be based on each other in a circle
_PARTS = ("document", "header", "footer")
_TEXT = (qn("w:t"), qn("w:tab"), qn("w:br"))


def remove_hidden(document: Any) -> Counter[str]:
    """Take invisible runs out of a python-docx document; return how much of what that was."""
    removed: Counter[str] = Counter()
    styles = {style.style_id: style.element for style in document.styles}
    chains = {name: tuple(_chain(name, styles)) for name in styles}
    for part in document.part.package.iter_parts():
        root = getattr(part, "element", None)
        if root is None or not str(part.partname).rpartition("/")[2].startswith(_PARTS):
            continue
        page = root.find(qn("w:background"))
        is_dark = page is not None and page.get(qn("w:color")) not in _NO_SHADE
        for run in list(root.iter(qn("w:r"))):
            if why := _why_hidden(run, chains, is_dark=is_dark):
                texts = [element for element in run if element.tag in _TEXT]
                removed[why] += sum(n_visible(element.text or "") for element in texts)
                for element in texts:
                    run.remove(element)
    return +removed


def _chain(name: str, styles: dict[str, Any]) -> Iterator[Any]:
    """Yield the properties of a style and of those that it is based on."""
    for _ in range(_MAX_STYLES):
        style = styles.get(name)
        if style is None:
            return
        yield style
        based_on = style.find(qn("w:basedOn"))
        name = "" if based_on is None else based_on.get(qn("w:val"), "")


def _why_hidden(run: Any, chains: dict[str, tuple[Any, ...]], *, is_dark: bool) -> str:
    paragraph = next(run.iterancestors(qn("w:p")), None)
    own = run.find(qn("w:rPr"))
    holders = [] if own is None else [own]
    for element, path in ((own, "w:rStyle"), (paragraph, "w:pPr/w:pStyle")):
        style = None if element is None else element.find("/".join(map(qn, path.split("/"))))
        if style is not None:
            found = chains.get(style.get(qn("w:val"), ""), ())
            holders += [p for p in (e.find(qn("w:rPr")) for e in found) if p is not None]
    if not holders:
        return ""
    vanish = _first(holders, "w:vanish")
    if vanish is not None and vanish.get(qn("w:val")) not in _OFF:
        return HIDDEN
    size = _first(holders, "w:sz")
    half_points = "" if size is None else size.get(qn("w:val"), "")
    if half_points.isdecimal() and int(half_points) <= _TINY_HALF_POINTS:
        return TINY
    colour = _first(holders, "w:color")
    if colour is None or not _is_white(colour.get(qn("w:val"), "")) or is_dark:
        return ""
    return "" if _has_background(run, holders, chains) else WHITE


def _first(holders: list[Any], name: str) -> Any:
    return next((found for h in holders if (found := h.find(qn(name))) is not None), None)


def _is_white(value: str) -> bool:
    try:
        return len(value) == 6 and all(byte >= _WHITE_FROM for byte in bytes.fromhex(value))
    except ValueError:
        return False


def _has_background(run: Any, holders: list[Any], chains: dict[str, tuple[Any, ...]]) -> bool:
    if any(_is_shaded(holder) for holder in holders):
        return True
    for element in run.iterancestors():
        if element.tag in (qn("w:txbxContent"), qn("w:sdtPr")):
            return True
        properties = element.find(f"{element.tag}Pr")
        if properties is None:
            continue
        if _is_shaded(properties):
            return True
        for style in (properties.find(qn("w:tblStyle")), properties.find(qn("w:pStyle"))):
            name = "" if style is None else style.get(qn("w:val"), "")
            if any(_is_shaded(e) for link in chains.get(name, ()) for e in link.iter()):
                return True
    return False


def _is_shaded(properties: Any) -> bool:
    shade = properties.find(qn("w:shd"))
    highlight = properties.find(qn("w:highlight"))
    return (
        shade is not None
        and (
            shade.get(qn("w:fill")) not in _NO_SHADE
            or shade.get(qn("w:val"), "clear") not in ("clear", "nil")
        )
    ) or (highlight is not None and highlight.get(qn("w:val")) not in ("none", "white", None))
