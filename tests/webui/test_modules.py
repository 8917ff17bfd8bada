"""Single modules of the page, in the browser they are written for."""

import random
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.webui.visitor import Visitor

pytestmark = pytest.mark.browser

HARMLESS = {
    *("p", "strong", "em", "del", "code", "pre", "blockquote", "hr", "br", "ul", "ol", "li"),
    *("div", "table", "thead", "tbody", "tr", "th", "td"),
}


@pytest.fixture(scope="module")
def page(browser: Browser, server: str) -> Iterator[Visitor]:
    """One open page for all: its modules are only called, nothing in it changes."""
    context = browser.new_context()
    visitor = Visitor(context, server)
    visitor.open()
    yield visitor
    context.close()
    assert (visitor.errors, visitor.strangers) == ([], [])


def test_code_point_offsets_become_utf16_offsets(page: Visitor) -> None:
    """The API counts characters as Python does; an emoji is one there and two in the browser."""
    rng = random.Random(7)
    text = "".join(rng.choice("a中😀𠮷\n") for _ in range(500))
    spans = [sorted((rng.randint(0, 500), rng.randint(0, 500))) for _ in range(50)]

    cut = page.run(
        """const { toUnits } = await import('/static/js/text.js');
           const [text, spans] = argument;
           const units = toUnits(text, spans.flat());
           return spans.map((_, i) => text.slice(units[2 * i], units[2 * i + 1]));""",
        [text, spans],
    )

    assert cut == [text[start:end] for start, end in spans]


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7, 1000])
def test_events_are_read_however_the_bytes_arrive(page: Visitor, piece_bytes: int) -> None:
    stream = (
        ": keep-alive\r\n\r\n"
        'event: token\r\ndata: {"text": "年假😀"}\r\n\r\n'
        'event: finished\ndata: {"a":\ndata:  1}\n\n'
        "event: token\ndata: cut off"
    ).encode()

    events = page.run(
        """const { readEvents } = await import('/static/js/sse.js');
           const [bytes, size] = argument;
           const body = new ReadableStream({ start(controller) {
             for (let at = 0; at < bytes.length; at += size)
               controller.enqueue(new Uint8Array(bytes.slice(at, at + size)));
             controller.close();
           }});
           const events = [];
           for await (const { event, data } of readEvents(body)) events.push([event, data]);
           return events;""",
        [list(stream), piece_bytes],
    )

    assert events == [["token", {"text": "年假😀"}], ["finished", {"a": 1}]]


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "![a](http://evil.example/a.png)",
        "[a](javascript:alert(1))",
        "<http://evil.example/>",
        "http://evil.example/",
        "[1]: http://evil.example/\n\n[1]",
        "[![a](http://evil.example/a.png)](http://evil.example/)",
        "<div>\n\n**bold**\n\n</div>",
        "| a | <iframe src=x> |\n|---|---|\n| <svg onload=alert(1)> | `<b>` |",
        "```html\n<script>alert(1)</script>\n```",
        "# <a href=x>heading</a>\n\n- <form action=x>\n\n> <object data=x>",
    ],
)
def test_markdown_makes_only_harmless_elements(page: Visitor, hostile: str) -> None:

    tags, attributes = page.run(
        """const { renderMarkdown } = await import('/static/js/markdown.js');
           const box = document.createElement('div');
           box.append(...renderMarkdown(argument));
           const nodes = [...box.querySelectorAll('*')];
           return [nodes.map((node) => node.localName),
                   nodes.flatMap((node) => node.getAttributeNames())];""",
        hostile,
    )

    assert set(tags) <= HARMLESS
    assert set(attributes) <= {"class", "start", "tabindex", "role"}


def test_a_marker_that_a_document_contains_is_no_citation(page: Visitor) -> None:
    """A quoted paper may say "[1]" itself; the server's marker follows the whole quote."""
    quote = "As shown in [1], seals last 4000 hours."
    citation = {"marker": "[1]", "quote": quote}

    parts = page.run(
        """const { splitVerbatim } = await import('/static/js/citations.js');
           return splitVerbatim(argument[0], argument[1]);""",
        [f"{quote} [1] And so on [2].", [citation]],
    )

    assert parts == [f"{quote} ", citation, " And so on [2]."]


def test_a_quote_is_found_again_in_a_changed_document(page: Visitor) -> None:

    places = page.run(
        """const { locate } = await import('/static/js/text.js');
           return ['abc', 'xxabc', 'xx'].map((text) => locate(text, 0, 1, 'a'));"""
    )

    assert places == [{"start": 0, "end": 1}, {"start": 2, "end": 3}, None]
