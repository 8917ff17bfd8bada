"""`kb reembed`: move a knowledge base to another embedder while it goes on answering."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from kb.cli.edge import Edge, json_option, kb_option, pass_edge, print_json, shown
from kb.cli.running_job import running_job


@click.command(epilog="Example:  kb reembed --kb handbook --embedder bge-small-zh-v1.5")
@kb_option()
@click.option(
    "--embedder", default="", help="Name or folder of an embedder; default: the setting embedder."
)
@json_option
@pass_edge
def reembed(edge: Edge, kb: str, embedder: str, as_json: bool) -> None:
    """Move a knowledge base to another embedder.

    It is searched as before until all vectors are there, then by the new ones. What was embedded
    stays when this is interrupted, and the same command continues.
    """
    from ingest.reembed import ReembedOptions
    from kb.storage.bases import find_base
    from kb.storage.jobs import JobProgress

    services = edge.services
    with services.database.read() as session:
        base = find_base(session, kb)
    target = services.find_embedder(embedder)
    told = {"reembed": target.spec.name}
    with running_job(services, base, options=told) as job, _progress_bar() as show:

        def note(done: int, total: int) -> None:
            job.progress = JobProgress(files_done=0, files_total=0, chunks=done)
            show(done, total)

        report = services.reembed(base, target, ReembedOptions(job.id, note, job.cancelled.is_set))
        job.report = report.to_dict()
    if as_json:
        print_json(report.to_dict())
    elif base.embedder.identity == target.spec.identity:
        click.echo(f"{shown(report.kb)} has the embedder {report.after} already")
    else:
        click.echo(
            f"{shown(report.kb)}: {report.chunks} chunks moved from {report.before} to "
            f"{report.after}, {report.embedded} strings embedded in {report.seconds:.1f} s"
        )


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows progress on a terminal; silent where stderr is none."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _done, _total: None
        return
    columns = (MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reembed", total=None)
        last = 0.0

        def show(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= 0.1 or done == total:
                last = time.monotonic()
                bar.update(task, completed=done, total=total)

        yield show
