"""Which text of a page nobody sees: by its own attributes and the page's own plain rules.

What a page says of an element in ``style``, ``hidden``, ``color`` and ``bgcolor`` and in its own
``<style>`` counts; a rule of several elements ("div p"), of a state (":hover") or of a medium
("@media") does not, nor does any style sheet elsewhere. Where a page has such a sheet, text in
the colour of the page is not called invisible, since the background may come from there.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

HIDDEN = "text hidden by its style"
TINY = "text in a tiny font"
SAME_COLOUR = "text in the colour of its background"

_MAX_RULES = 100  # for one class, id or tag
_MAX_STYLE_CHARS = 2_000_000
_MAX_SELECTOR_CHARS = 200
_MAX_VALUE_CHARS = 200
_FAR_PX = 500  # beyond the left or upper edge
_TINY_PX = 1.0
_FAINT = 0.05  # opacity
_NEAR = 10  # of 255 in each of red, green and blue: nobody sees the difference
_SELECTOR = re.compile(r"([a-z][a-z0-9]*|\*)?((?:[.#][\w-]+)*)")
_NUMBER = re.compile(
    r"([-+]?(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9}))(px|pt|em|rem|ex|ch|vw|vh|%|in|cm|mm)?$"
)
_PX = {"": 1.0, "px": 1.0, "pt": 1.333, "in": 96.0, "cm": 37.8, "mm": 3.78}
_CLIPPED = re.compile(
    r"rect\((?:\s*,?\s*[01](?:px)?){4}\s*\)|inset\(\s*(?:[5-9]\d|100)(?:\.\d+)?%\s*\)|circle\(\s*0"
)
_FUNCTION = re.compile(
    r"rgba?\(\s*(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})(?:[\s,/]+([\d.]{1,8}%?))?\s*\)"
)
_HEX = re.compile(r"#([0-9a-f]{8}|[0-9a-f]{6}|[0-9a-f]{3,4})\b")
_NAMES = {
    "white": (255, 255, 255), "snow": (255, 250, 250), "ivory": (255, 255, 240),
    "whitesmoke": (245, 245, 245), "ghostwhite": (248, 248, 255), "black": (0, 0, 0),
    "red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0),
    "gray": (128, 128, 128), "grey": (128, 128, 128), "silver": (192, 192, 192),
    "navy": (0, 0, 128), "orange": (255, 165, 0), "purple": (128, 0, 128),
}  # fmt: skip
_WHITE = (255, 255, 255)
_READ = {
    *("display", "visibility", "opacity", "font-size", "font", "color", "clip", "clip-path"),
    *("background", "background-color", "background-image", "text-indent", "margin-left"),
    *("position", "left", "top", "right", "bottom", "overflow", "transform"),
    *("width", "height", "max-width", "max-height"),
}

_HIDING = ("display", "visibility", "opacity", "overflow", "transform")

_Colour = tuple[int, int, int]
Styles = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Look:
    """How an element shows its text; `background` and `colour` are None where unknown.

    `is_gone` is what no element inside can undo.
    """

    is_gone: bool = False
    is_invisible: bool = False
    is_tiny: bool = False
    colour: _Colour | None = None
    background: _Colour | None = _WHITE

    @property
    def hidden(self) -> str:
        """Why its text is not seen; "" if it is."""
        if self.is_gone or self.is_invisible:
            return HIDDEN
        if self.is_tiny:
            return TINY
        if self.colour and self.background and _is_near(self.colour, self.background):
            return SAME_COLOUR
        return ""


class StyleSheet:
    """The rules of a page's own ``<style>`` elements that name a single element."""

    def __init__(self, source: str) -> None:
        self.is_complete = True  # nothing is said elsewhere
        self._rules: defaultdict[str, dict[frozenset[str], _Rule]] = defaultdict(dict)
        self._n_rules = 0
        lowered = source.lower()
        for tag in _tags(lowered, "<link"):
            if "stylesheet" in tag:
                self.is_complete = False
        for css in _style_elements(lowered):
            if "@import" in css:
                self.is_complete = False
            for selectors, declarations in _css_rules(css):
                self._add(selectors, declarations)

    def first_look(self) -> Look:
        return Look(background=_WHITE if self.is_complete else None)

    def look(self, tag: str, attributes: Mapping[str, str], outside: Look) -> Look:
        """Return how an element looks inside another; mostly that very one."""
        styles = self._styles(tag, attributes)
        if "hidden" in attributes and attributes["hidden"] != "until-found":
            styles.setdefault("display", "none")
        for name, style in (("bgcolor", "background-color"), ("text", "color"), ("color", "color")):
            if name in attributes and (name != "color" or tag == "font"):
                styles.setdefault(style, attributes[name].strip().lower())
        if "background" in attributes:
            styles.setdefault("background-image", "url")
        if tag in ("html", "body"):  # hidden as a whole until a script runs
            for name in _HIDING:
                styles.pop(name, None)
        return _changed(outside, styles) if styles else outside

    def _styles(self, tag: str, attributes: Mapping[str, str]) -> dict[str, str]:
        styles: dict[str, str] = {}
        if self._rules:
            classes = dict.fromkeys(attributes.get("class", "").lower().split())
            names = [f".{name}" for name in classes]
            if "id" in attributes:
                names.append(f"#{attributes['id'].strip().lower()}")
            known = {tag, *names}
            matching = [
                rule
                for key in (tag, "*", *names)
                for rule in self._rules.get(key, {}).values()
                if rule.names <= known
            ]
            for rule in sorted(matching, key=lambda rule: (rule.weight, rule.number)):
                styles.update(rule.styles)
        if "style" in attributes:
            styles.update(_declarations(attributes["style"].lower()))
        return styles

    def _add(self, selectors: str, declarations: str) -> None:
        styles = dict(_declarations(declarations))
        if not styles:
            return
        for selector in selectors.split(","):
            selector = selector.strip()
            match = _SELECTOR.fullmatch(selector) if len(selector) <= _MAX_SELECTOR_CHARS else None
            if not match or not selector:
                continue
            names = re.findall(r"[.#][\w-]+", match[2])
            tag = match[1] or "*"
            needed = frozenset([*names, *([tag] if tag != "*" else [])])
            weight = 100 * sum(name[0] == "#" for name in names) + 10 * len(names) + (tag != "*")
            self._n_rules += 1
            rules = self._rules[names[-1] if names else tag]
            if needed in rules:
                rules[needed] = _Rule(needed, rules[needed].styles | styles, weight, self._n_rules)
            elif len(rules) < _MAX_RULES:
                rules[needed] = _Rule(needed, styles, weight, self._n_rules)


@dataclass(frozen=True, slots=True)
class _Rule:
    """`names` are the tag, classes and id that an element must have."""

    names: frozenset[str]
    styles: dict[str, str]
    weight: int
    number: int


def _changed(outside: Look, styles: Styles) -> Look:
    look = outside
    if _is_gone(styles):
        return replace(look, is_gone=True)
    if "visibility" in styles:
        look = replace(look, is_invisible=styles["visibility"] in ("hidden", "collapse"))
    size = styles.get("font-size") or next(iter(re.findall(r"\d\S*", styles.get("font", ""))), "")
    if size:
        look = replace(look, is_tiny=_is_tiny(size.partition("/")[0], look.is_tiny))
    if "color" in styles:
        look = replace(look, colour=_colour(styles["color"]))
        if styles["color"] == "transparent" or _is_clear(styles["color"]):
            return replace(look, is_invisible=True)
    for name in ("background", "background-color", "background-image"):
        value = styles.get(name, "")
        if "url" in value or "gradient" in value or "var(" in value:
            look = replace(look, background=None)
        elif value and name != "background-image" and not _is_clear(value):
            look = replace(look, background=_colour(value))
    return look


def _is_gone(styles: Styles) -> bool:
    position = styles.get("position", "")
    is_out = any(
        _px(styles.get(name, "")) <= -_FAR_PX
        for name in ("left", "top", "right", "bottom")
        if position in ("absolute", "fixed", "relative")
    ) or any(_px(styles.get(name, "")) <= -_FAR_PX for name in ("text-indent", "margin-left"))
    is_flat = styles.get("overflow", "").startswith(("hidden", "clip")) and any(
        _NUMBER.match(value) and 0 <= _px(value) <= 1
        for name in ("width", "height", "max-width", "max-height")
        if (value := styles.get(name, ""))
    )
    opacity = _NUMBER.match(styles.get("opacity", ""))
    is_faint = opacity is not None and float(opacity[1]) <= (5 if opacity[2] else _FAINT)
    return (
        styles.get("display") == "none"
        or is_out
        or is_flat
        or is_faint
        or _CLIPPED.search(styles.get("clip", "") + styles.get("clip-path", "")) is not None
        or styles.get("transform", "").startswith(("scale(0)", "scale(0,"))
    )


def _is_tiny(size: str, was_tiny: bool) -> bool:
    match = _NUMBER.match(size)
    if not match:
        return was_tiny and size in ("inherit", "smaller", "larger")
    if match[2] in ("em", "%", "ex", "ch"):
        return was_tiny or float(match[1]) == 0
    return float(match[1]) * _PX.get(match[2] or "", 16.0) <= _TINY_PX


def _px(value: str) -> float:
    """Return a length in pixels, about; those that depend on the window as if it had 1000."""
    match = _NUMBER.match(value)
    if not match:
        return 0.0
    return float(match[1]) * _PX.get(
        match[2] or "", 10.0 if match[2] in ("%", "vw", "vh") else 16.0
    )


def _colour(value: str) -> _Colour | None:
    """Return the colour in a declaration, None if it is not understood."""
    if match := _HEX.search(value):
        digits = match[1] if len(match[1]) > 4 else "".join(2 * digit for digit in match[1])
        return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)
    if match := _FUNCTION.search(value):
        return int(match[1]), int(match[2]), int(match[3])
    return next((_NAMES[word] for word in value.split() if word in _NAMES), None)


def _is_clear(value: str) -> bool:
    """Tell whether a colour lets everything through."""
    match = _FUNCTION.search(value)
    if match and match[4]:
        return match[4].strip("0.%") == ""
    is_hex = _HEX.search(value)
    if is_hex and len(is_hex[1]) in (4, 8):
        return set(is_hex[1][3 if len(is_hex[1]) == 4 else 6 :]) == {"0"}
    return value in ("transparent", "none", "inherit", "initial", "unset")


def _is_near(one: _Colour, other: _Colour) -> bool:
    return all(abs(a - b) <= _NEAR for a, b in zip(one, other, strict=True))


def _declarations(css: str) -> Iterator[tuple[str, str]]:
    for declaration in css.split(";"):
        name, _, value = declaration.partition(":")
        if (name := name.strip()) in _READ:
            yield name, value[:_MAX_VALUE_CHARS].replace("!important", "").strip()


def _style_elements(source: str) -> Iterator[str]:
    position = left = 0
    while (start := source.find("<style", position)) >= 0 and left < _MAX_STYLE_CHARS:
        start = source.find(">", start) + 1
        end = source.find("</style", start)
        if not start or end < 0:
            return
        left += end - start
        yield source[start:end]
        position = end


def _tags(source: str, opening: str) -> Iterator[str]:
    position = 0
    while (start := source.find(opening, position)) >= 0:
        end = source.find(">", start)
        if end < 0:
            return
        yield source[start:end]
        position = end


def _css_rules(css: str) -> Iterator[tuple[str, str]]:
    """Yield ``(selectors, declarations)``; what stands inside an @-rule is passed over."""
    pieces = css.split("/*")
    css = pieces[0] + " ".join(piece.partition("*/")[2] for piece in pieces[1:])
    depth = selectors = start = 0
    head = ""
    for match in re.finditer("[{};]", css):
        mark = match[0]
        if mark == "{":
            depth += 1
            if depth == 1:
                head, start = css[selectors : match.start()].strip(), match.end()
        elif mark == "}":
            if depth == 1:
                if not head.startswith("@"):
                    yield head, css[start : match.start()]
                selectors = match.end()
            depth = max(depth - 1, 0)
        elif depth == 0:
            selectors = match.end()  # "@import ...;"
