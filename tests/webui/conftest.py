"""A real server, a real browser, and visitors who watch what the page does.

The server runs in a thread over an empty data folder with the fake embedder; the browser is an
installed Chromium. Every visit ends by checking that the page logged no error and that no request
left the server it came from.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.webui.visitor import WAIT_MS, Visit, Visitor, serve

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for all tests that bring their own knowledge base; its parser stays warm."""
    with serve(tmp_path_factory.mktemp("webui-home")) as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        reason = f"no Chromium is installed (looked for {', '.join(NAMES)})"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Browser, server: str) -> Iterator[Visit]:
    """Open windows; keywords are Playwright's, such as `locale` and `viewport`."""
    visitors: list[Visitor] = []

    def open_(address: str = server, **options: Any) -> Visitor:
        context = browser.new_context(**({"locale": "en-US"} | options))
        visitors.append(Visitor(context, address))
        return visitors[-1]

    yield open_
    for visitor in visitors:
        errors, strangers = visitor.errors, visitor.strangers
        visitor.context.close()
        assert errors == [], "the page logged errors"
        assert strangers == [], "the page asked other servers"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small folder in two languages, with one file that no loader knows."""
    root = tmp_path / "规章制度"
    (root / "plant").mkdir(parents=True)
    (root / "员工手册.md").write_text(
        "# 员工手册 📘\n\n## 年假\n\n正式员工每年享有 15 天带薪年假。\n\n"
        "## 报销\n\n差旅报销应在返回后 10 个工作日内提交。\n",
        encoding="utf-8",
    )
    (root / "plant" / "pump.txt").write_text(
        "The pump must not run dry for more than 20 seconds. Replace the seal every 4000 hours.\n"
    )
    (root / "plant" / "old.txt").write_text("The old pump house was closed in 1998.\n")
    (root / "setup.exe").write_bytes(b"MZ\x90\x00")
    (root / ".DS_Store").write_bytes(b"\x00")
    return root
