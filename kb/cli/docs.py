"""`kb docs list`, `show` and `remove`."""

import click

from kb.cli.edge import (
    Edge,
    confirm,
    json_option,
    kb_option,
    pass_edge,
    print_json,
    shown,
    shown_name,
    yes_option,
)
from kb.records import Document
from kb.storage.bases import find_base
from kb.storage.documents import (
    find_document,
    find_version,
    list_chunks,
    list_documents,
    remove_documents,
    version_text,
)

PAGE = 1000


@click.group()
def docs() -> None:
    """List, show and remove documents."""


@docs.command("list", epilog="Example:  kb docs list --kb handbook --status failed")
@kb_option()
@click.option(
    "--status",
    type=click.Choice(["ready", "empty", "failed", "stale"]),
    help="Only documents in this state.",
)
@json_option
@pass_edge
def list_(edge: Edge, kb: str, status: str | None, as_json: bool) -> None:
    """List a knowledge base's documents and their state."""
    with edge.services.database.read() as session:
        base = find_base(session, kb)
        found: list[Document] = []
        while True:
            page, total = list_documents(
                session, base.id, status=status, offset=len(found), limit=PAGE
            )
            found += page
            if len(found) >= total or not page:
                break
    if as_json:
        print_json([_as_dict(document) for document in found])
        return
    for document in found:
        state = "stale" if document.is_stale else document.status
        reason = f"  {shown(document.error)}" if document.error else ""
        click.echo(f"{state:<7}{document.n_chunks:>6}  {shown_name(document.name)}{reason}")
        for flag in document.flags:
            click.echo(f"{'':<15}flag: {shown(flag.detail)}")


@docs.command(epilog="Example:  kb docs show docs/手册.md --kb handbook")
@click.argument("document")
@kb_option()
@click.option("--chunks", is_flag=True, help="Show where the document is split.")
@click.option(
    "--version",
    type=click.IntRange(1, 2**63 - 1),
    help="An older text: the `version_id` of a citation in `kb ask --json`.",
)
@json_option
@pass_edge
def show(
    edge: Edge, document: str, kb: str, chunks: bool, version: int | None, as_json: bool
) -> None:
    """Print the stored text of DOCUMENT (id, path or name).

    When a document changes, its older text is kept as long as a stored answer cites it.
    """
    if chunks and version is not None:
        raise click.UsageError("--chunks shows the current version; leave out --version")
    with edge.services.database.read() as session:
        base = find_base(session, kb)
        found = find_document(session, base, document)
        version_id = find_version(session, found, version)
        text = "" if version_id is None else version_text(session, version_id)
        parts = list_chunks(session, found) if chunks else []
    if as_json:
        spans = [
            {"start": c.start, "end": c.end, "page": c.page, "heading": c.heading} for c in parts
        ]
        shown_version = {
            "text": text,
            "version_id": version_id,
            "superseded": version_id != found.version_id,
        }
        print_json(_as_dict(found) | shown_version | ({"spans": spans} if chunks else {}))
    elif chunks:
        for chunk in parts:
            click.echo(f"--- {chunk.start}-{chunk.end}  {shown(chunk.heading)}")
            click.echo(shown(chunk.text))
    else:
        if version_id != found.version_id:
            click.echo("superseded: the document has changed since", err=True)
        for flag in found.flags:
            click.echo(f"flag: {shown(flag.detail)}", err=True)
        click.echo(shown(text))


@docs.command(epilog="Example:  kb docs remove docs/old.md --kb handbook --yes")
@click.argument("document")
@kb_option()
@yes_option
@json_option
@pass_edge
def remove(edge: Edge, document: str, kb: str, yes: bool, as_json: bool) -> None:
    """Remove DOCUMENT (id, path or name) with all its versions; stored answers are redacted.

    A file that is still in an ingested folder comes back with the next `kb ingest`.
    """
    services = edge.services
    with services.database.read() as session:
        base = find_base(session, kb)
        found = find_document(session, base, document)
    if not yes:
        confirm(f"remove {found.name!r}?")
    with services.database.write() as session:
        n_chunks = remove_documents(session, base.id, [found.id])
    services.clean_up()
    if as_json:
        print_json({"id": found.id, "name": found.name, "chunks": n_chunks})
    else:
        click.echo(f"removed {shown_name(found.name)} ({n_chunks} chunks)")


def _as_dict(document: Document) -> dict[str, object]:
    return {
        "id": document.id,
        "path": document.path,
        "name": document.name,
        "status": document.status,
        "stale": document.is_stale,
        "error": document.error,
        "size_bytes": document.size_bytes,
        "chunks": document.n_chunks,
        "encoding": document.encoding,
        "encoding_guessed": document.encoding_guessed,
        "updated_at": document.updated_at,
        "flags": [flag.to_dict() for flag in document.flags],
    }
