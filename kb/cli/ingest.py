"""`kb ingest`: sync folders or files into a knowledge base, with progress by bytes.

With `--watch` it stays and syncs again what changes, until Ctrl-C (exit 130) or SIGTERM (exit 0).
"""

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kb.cli.edge import Edge, json_option, kb_option, pass_edge, print_json, shown, yes_option
from kb.cli.running_job import running_job
from kb.errors import (
    AlreadyExistsError,
    KBError,
    KnowledgeBaseDeletedError,
    KnowledgeBaseNotFoundError,
    StorageError,
)
from kb.records import IngestReport, KnowledgeBase

if TYPE_CHECKING:
    from ingest.sync import Progress, SyncOptions
    from kb.storage.jobs import JobProgress
    from kb.wiring import Services

# Paths shown of each kind; the rest is counted.
SHOWN_PATHS = 20


@click.command(epilog="Example:  kb ingest ./docs --kb handbook --dry-run")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@kb_option("Knowledge base; created if there is none of this name.")
@click.option("--dry-run", is_flag=True, help="Print the plan and change nothing.")
@click.option("--no-prune", is_flag=True, help="Keep documents whose files are gone.")
@click.option("--retry-failed", is_flag=True, help="Parse files again that failed before.")
@click.option("--watch", is_flag=True, help="Stay, and sync again whenever files change.")
@yes_option
@json_option
@pass_edge
def ingest(
    edge: Edge,
    paths: tuple[Path, ...],
    kb: str,
    dry_run: bool,
    no_prune: bool,
    retry_failed: bool,
    watch: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Make the documents of PATHS in a knowledge base equal to the folders or files there.

    Unchanged files are not read again, changed ones replace their older text, missing ones are
    removed. Hidden and temporary files are left out, and what a .kbignore names (as .gitignore
    does). Exits with 1 if any file failed; the others are stored all the same.
    """
    from ingest.sync import SyncOptions

    if watch and dry_run:
        raise click.UsageError("--dry-run changes nothing, so there is nothing to --watch")
    for path in paths:
        _refuse_url(path)
    options = SyncOptions(prune=not no_prune, dry_run=dry_run, retry_failed=retry_failed, yes=yes)
    if watch:
        return _watch(edge.services, kb, list(paths), options, as_json)
    report = run_sync(edge.services, kb, list(paths), options)
    if as_json:
        print_json(report.to_dict())
    else:
        _print_report(report, dry_run)
    return 1 if report.failed else 0


def _refuse_url(path: Path) -> None:
    # A Path has lost the second slash of "https://".
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)) and not path.exists():
        raise KBError(
            f"{str(path)!r} is a web address; kb reads files and folders of this machine only: "
            "save the page as a file and ingest that"
        )


def run_sync(
    services: "Services", kb: str, paths: list[Path], options: "SyncOptions"
) -> IngestReport:
    """Sync under a job of its own, with a progress bar on a terminal."""
    from ingest.sync import sync_folders

    base = _find_or_create_base(services, kb, paths, options)
    if options.dry_run:
        return sync_folders(services.sync_parts, base, paths, options)
    return _sync_base(services, base, paths, options)


def _find_or_create_base(
    services: "Services", kb: str, paths: list[Path], options: "SyncOptions"
) -> KnowledgeBase:
    from kb.storage.bases import find_base

    with services.database.read() as session, suppress(KnowledgeBaseNotFoundError):
        return find_base(session, kb)
    if not any(path.exists() for path in paths):
        raise KBError(
            f"there is no file or folder {str(paths[0])!r}, and no knowledge base {kb!r} yet"
        )
    if options.dry_run:
        return services.planned_base(kb)
    try:
        return services.create_base(kb)
    except AlreadyExistsError:  # another process has just done it
        with services.database.read() as session:
            return find_base(session, kb)


def _sync_base(
    services: "Services", base: KnowledgeBase, paths: list[Path], options: "SyncOptions"
) -> IngestReport:
    from ingest.sync import sync_folders

    with running_job(services, base) as job, _progress_bar() as show:

        def note(progress: "Progress") -> None:
            job.progress = _job_progress(progress)
            show(progress)

        report = sync_folders(
            services.sync_parts,
            base,
            paths,
            replace(options, job_id=job.id, progress=note, is_cancelled=job.cancelled.is_set),
        )
        job.report = report.to_dict()
        _save_index(services, base)
    return report


def _watch(
    services: "Services", kb: str, paths: list[Path], options: "SyncOptions", as_json: bool
) -> int:
    from ingest.scope import outermost
    from ingest.watch import watch
    from kb.storage.bases import find_base

    base = _find_or_create_base(services, kb, paths, options)
    options = replace(options, unattended=True)
    given = {path.resolve(): path for path in outermost(paths)}
    last_failed: list[object] = [()]

    def sync(roots: Sequence[Path]) -> None:
        try:
            with services.database.read() as session:
                find_base(session, base.id)
        except KnowledgeBaseNotFoundError as exc:
            raise KnowledgeBaseDeletedError(base.name) from exc
        report = _sync_base(services, base, [given[root] for root in roots], options)
        is_news = report.added or report.changed or report.moved or report.removed
        if as_json:
            print_json(report.to_dict())
        elif is_news or report.failed != last_failed[0]:
            _print_report(report, dry_run=False)
        last_failed[0] = report.failed

    with _sigterm_as_interrupt() as terminated:
        try:
            places = ", ".join(shown(str(path)) for path in given.values())
            click.echo(f"watching {places}; Ctrl-C ends it", err=True)
            watch(list(given), sync, warn=lambda message: click.echo(f"kb: {message}", err=True))
        except KeyboardInterrupt:
            if not terminated.is_set():
                raise
    return 0


@contextmanager
def _sigterm_as_interrupt() -> Iterator[threading.Event]:
    """End on SIGTERM as on Ctrl-C: the parser child and the job end with us. Tells which it was."""
    terminated = threading.Event()

    def interrupt(_signal: int, _frame: object) -> None:
        terminated.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, before)


def _save_index(services: "Services", base: KnowledgeBase) -> None:
    """Write a snapshot if it is worth it; without one the next search only opens slower."""
    try:
        services.retriever.view(base).save_if_worthwhile()
    except StorageError as exc:
        click.echo(f"warning: {exc}", err=True)


def _job_progress(progress: "Progress") -> "JobProgress":
    from kb.storage.jobs import JobProgress

    return JobProgress(
        bytes_done=progress.bytes_done,
        bytes_total=progress.bytes_total,
        files_done=progress.files_done,
        files_total=progress.files_total,
        chunks=progress.chunks,
        seconds_left=progress.seconds_left,
    )


@contextmanager
def _progress_bar() -> "Iterator[Callable[[Progress], None]]":
    """Give a function that shows progress on a terminal; silent where stderr is none."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _progress: None
        return
    columns = (
        TextColumn("{task.fields[files]}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[path]}", markup=False),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("ingest", total=None, files="", path="")
        last = 0.0

        def show(progress: "Progress") -> None:
            nonlocal last
            if time.monotonic() - last < 0.1 and progress.files_done < progress.files_total:
                return
            last = time.monotonic()
            bar.update(
                task,
                total=progress.bytes_total,
                completed=progress.bytes_done,
                files=f"{progress.files_done}/{progress.files_total} files",
                path=shown(progress.path or "")[-60:],
            )

        yield show


def _print_report(report: IngestReport, dry_run: bool) -> None:
    click.echo(
        f"{report.kb}: {report.added} added, {report.changed} changed, {report.moved} moved, "
        f"{report.unchanged} unchanged, {report.removed} removed, {len(report.empty)} empty, "
        f"{len(report.failed)} failed"
    )
    signs = {"added": "+", "changed": "~", "moved": ">", "removed": "-"}
    if dry_run:
        for kind, paths in report.changes.items():
            _print_paths(signs.get(kind, " "), paths)
        click.echo("nothing was changed (--dry-run)")
        return
    click.echo(
        f"{report.chunks_embedded} chunks embedded, {report.chunks_reused} reused, "
        f"{report.chunks_removed} removed in {report.seconds:.1f} s"
    )
    _print_paths("empty:", report.empty, err=True)
    for file in report.notes:
        click.echo(f"note: {shown(file.path)}: {shown(file.note)}", err=True)
    for failed in report.failed:
        click.echo(f"failed: {shown(failed.path)}: {shown(failed.error)}", err=True)


def _print_paths(sign: str, paths: tuple[str, ...], *, err: bool = False) -> None:
    for path in paths[:SHOWN_PATHS]:
        click.echo(f"{sign} {shown(path)}", err=err)
    if len(paths) > SHOWN_PATHS:
        click.echo(f"{sign} … and {len(paths) - SHOWN_PATHS} more", err=err)
