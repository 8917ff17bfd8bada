"""Progress bars on stderr; nothing where that is no terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kb.cli.edge import shown

if TYPE_CHECKING:
    from llm.hub import Progress
    from llm.store import Progress as StepProgress


@contextmanager
def steps_bar() -> "Iterator[StepProgress]":
    """Give a function that shows which tensor is being converted, on a terminal."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("converting", total=None)
        yield lambda done, total, name: bar.update(task, completed=done, total=total)


@contextmanager
def download_bar() -> "Iterator[Progress | None]":
    """Give a function that shows progress on a terminal; nothing where stderr is none."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[file]}", markup=False),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("pull", total=None, file="")
        last = 0.0

        def show(done: int, total: int, file: str) -> None:
            nonlocal last
            if time.monotonic() - last < 0.1 and done < total:
                return
            last = time.monotonic()
            bar.update(task, total=total, completed=done, file=shown(file)[-60:])

        yield show
