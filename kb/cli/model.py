"""`kb model`: language models on this machine. `pull` fetches a checkpoint into the data folder."""

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kb.cli.edge import Edge, json_option, pass_edge, print_json, shown

if TYPE_CHECKING:
    from llm.hub import Progress, Source

CHECKPOINTS = "checkpoints"


@click.group()
def model() -> None:
    """Fetch language models onto this machine."""


@model.command(epilog="Example:  kb model pull chatglm3-6b --source modelscope")
@click.argument("name")
@click.option(
    "--source",
    type=click.Choice(["huggingface", "modelscope"]),
    help="Where to fetch from; default: $KB_HUB.",
)
@click.option("--endpoint", help="A mirror of the source; default: $KB_HUB_ENDPOINT.")
@json_option
@pass_edge
def pull(
    edge: Edge, name: str, source: "Source | None", endpoint: str | None, as_json: bool
) -> None:
    """Fetch the checkpoint NAME, or ORG/NAME of the source, into the data folder.

    What arrived stays when this is interrupted, and the same command continues.
    """
    from llm.hub import ENDPOINTS, KNOWN_MODELS, find_repo
    from llm.hub import pull as pull_checkpoint

    settings = edge.settings
    source = source or settings.hub
    is_configured = source == settings.hub
    endpoint = endpoint or (settings.hub_endpoint if is_configured else "")
    # The token is for the hub that it was configured with, and no other may see it.
    is_configured = is_configured and endpoint == settings.hub_endpoint
    token = settings.hub_token if is_configured else None
    name, repo = find_repo(name, source)
    folder = checkpoint_folder(settings.home, name)

    size = f"about {KNOWN_MODELS[name].size_bytes / 1e9:.1f} GB, " if name in KNOWN_MODELS else ""
    click.echo(f"{name}: {size}{repo} at {endpoint or ENDPOINTS[source]}", err=True)
    with _progress_bar() as show:
        pull_checkpoint(
            name,
            folder,
            source=source,
            endpoint=endpoint or None,
            token=token.get_secret_value() if token else None,
            progress=show,
        )
    if as_json:
        print_json({"name": name, "repo": repo, "source": source, "path": str(folder)})
        return
    click.echo(f"fetched {name} into {folder}")
    click.echo(f"next: kb model add {shlex.quote(str(folder))} --bits 4")


def checkpoint_folder(home: Path, name: str) -> Path:
    """Return where the checkpoint `name` lives; ORG/NAME becomes one folder."""
    return home / CHECKPOINTS / name.replace("/", "--")


@contextmanager
def _progress_bar() -> "Iterator[Progress | None]":
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
