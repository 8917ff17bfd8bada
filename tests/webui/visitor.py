"""A server and a visitor of its page: a browser window that does what a person does.

The visitor notes every error that the page logs and every request to somewhere else.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import BrowserContext, Locator, Page, expect

from api.app import create_app
from ingest.fake import FakeEmbedder
from kb.config import Settings
from kb.wiring import Services

# A busy machine is no failure; an assertion that holds at once takes none of this.
WAIT_MS = 30_000


@contextmanager
def serve(home: Path, chat_model: Any = None, **settings: Any) -> Iterator[str]:
    """Run the application on a free port; yields its address, with a slash at the end."""
    configured = Settings(home=home, **settings)
    with Services.open(configured, embedder=FakeEmbedder(), chat_model=chat_model) as services:
        config = uvicorn.Config(
            create_app(services), host="127.0.0.1", port=0, log_level="warning", ws="none"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, name="test-server", daemon=True)
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server did not start in 30 s"
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive(), "the server did not stop"


class Visitor:
    """One browser window. Its methods do what a person does; `page` is for everything else."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.context = context
        self.address = address
        self.page: Page = context.new_page()
        self.errors: list[str] = []
        self.strangers: list[str] = []
        self._devtools = context.new_cdp_session(self.page)
        self.page.set_default_timeout(WAIT_MS)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._heard)
        self.page.on("request", self._requested)

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _requested(self, request: Any) -> None:
        if not request.url.startswith((self.address, "blob:", "data:")):
            self.strangers.append(request.url)

    def forgive(self, pattern: str) -> None:
        """Forget logged errors that the test has caused on purpose."""
        self.errors = [error for error in self.errors if not re.search(pattern, error)]

    def open(self, fragment: str = "") -> None:
        self.page.goto(self.address + fragment)
        expect(self.page.locator("#bases, #welcome-create").first).to_be_attached()

    def find(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def create_base(self, name: str) -> None:
        """Open the page if it is not, and create a knowledge base by its dialog."""
        if not self.page.url.startswith(self.address):
            self.open()
        self.page.evaluate("document.querySelector('#create-base').click()")  # a drawer on phones
        self.find("dialog input").fill(name)
        self.page.keyboard.press("Enter")
        expect(self.find("#base-name")).to_have_text(name)
        expect(self.find("#view-documents")).to_be_visible()

    def drop(self, *paths: Path) -> None:
        """Drop files or folders onto the page, as the system does it."""
        content = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for step in ("dragEnter", "dragOver", "drop"):
            self._devtools.send(
                "Input.dispatchDragEvent", {"type": step, "x": 150, "y": 150, "data": content}
            )

    def upload(self, *paths: Path) -> dict[str, int]:
        """Drop and wait for the newest card's report; returns its counts by kind."""
        cards = self.find(".upload")
        before = cards.count()
        self.drop(*paths)
        expect(cards).to_have_count(before + 1)
        return self.report()

    def report(self) -> dict[str, int]:
        """Return the counts of the newest upload, by kind, once it is done."""
        kinds = self.find(".upload").first.locator(".kind")
        expect(kinds.first).to_be_visible()
        names = [kind.get_attribute("class").split()[-1] for kind in kinds.all()]
        counts = [int(count) for count in kinds.locator(".kind-count").all_inner_texts()]
        return dict(zip(names, counts, strict=True))

    def show(self, view: str) -> None:
        """Switch to the view `ask`, `documents` or `search`."""
        self.find(f"#tabs [data-tab={view}]").click()
        expect(self.find(f"#view-{view}")).to_be_visible()

    def ask(self, question: str) -> Locator:
        """Ask and return the new turn, which may still be streaming."""
        if self.find("#view-ask").is_hidden():
            self.show("ask")
        turns = self.find(".turn")
        before = turns.count()
        self.find("#question").fill(question)
        self.find("#question").press("Enter")
        expect(turns).to_have_count(before + 1)
        return turns.last

    def run(self, script: str, argument: Any = None) -> Any:
        """Run an async function body in the page; `argument` is its only name."""
        return self.page.evaluate(f"async (argument) => {{ {script} }}", argument)


# What the fixture `visit` gives: opens a window; keywords are those of Playwright's new_context.
Visit = Callable[..., Visitor]
