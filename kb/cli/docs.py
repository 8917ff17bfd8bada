"""`kb docs list`, `show` and `remove`."""

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from kb.wiring import Services

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


@docs.command(epilog="Example:  kb docs remove docs/old.md --kb handbook --prove --yes")
@click.argument("documents", metavar="DOC...", nargs=-1)
@kb_option()
@click.option("--prove", is_flag=True, help="Clear every trace, search all files, print a receipt.")
@yes_option
@json_option
@pass_edge
def remove(
    edge: Edge, documents: tuple[str, ...], kb: str, prove: bool, yes: bool, as_json: bool
) -> int:
    """Remove DOC... (ids, paths or names) with all versions; stored answers are redacted.

    A file that is still in an ingested folder comes back with the next `kb ingest`.

    With --prove bytes are erased as well: the database is rewritten, old index files, backups and
    uploaded files go, and every file of the data folder is searched for strings cut from the text.
    Exits with 1 if anything was found, or if too little of the text was unique to tell. Without
    DOC it clears what earlier removals left behind.
    """
    if not documents and not prove:
        raise click.UsageError("name at least one document")
    services = edge.services
    with services.database.read() as session:
        base = find_base(session, kb) if documents else None
        named = [find_document(session, base, name) for name in documents] if base else []
    found = list({document.id: document for document in named}.values())
    if found and not yes:
        confirm(f"remove {', '.join(repr(document.name) for document in found)}?")
    if prove:
        return _prove(services, found, as_json)
    with services.database.write() as session:
        counts = [remove_documents(session, d.kb_id, [d.id]) for d in found]
    services.clean_up()
    rows: list[dict[str, object]] = [
        {"id": d.id, "name": d.name, "chunks": n} for d, n in zip(found, counts, strict=True)
    ]
    if as_json:
        print_json((rows[0] if len(rows) == 1 else {}) | {"documents": rows})
    else:
        for row in rows:
            click.echo(f"removed {shown_name(str(row['name']))} ({row['chunks']} chunks)")
    return 0


def _prove(services: "Services", documents: list[Document], as_json: bool) -> int:
    from kb.upkeep.erase import erase

    receipt = erase(services.database, services.retriever, services.blobs, documents)
    if as_json:
        print_json(receipt.to_dict())
        return 0 if receipt.proven else 1
    for erased in receipt.documents:
        click.echo(
            f"removed {shown_name(erased.name)} ({erased.chunks} chunks), "
            f"searched for by {erased.strings} strings of its text"
        )
    for place in receipt.places:
        verdict = "; ".join(place.found[:5]) if place.found else "nothing found"
        click.echo(f"  {place.place}: {shown(place.checked)}: {shown(verdict)}")
    for name in receipt.skipped:
        click.echo(f"  not searched: {name}")
    for note in receipt.notes:
        click.echo(f"note: {shown(note)}")
    for reason in receipt.weak:
        click.echo(f"weak: {shown(reason)}")
    if receipt.found:
        click.echo(f"NOT ERASED: {len(receipt.found)} findings")
    elif receipt.weak:
        click.echo("removed, but not proven: too few strings to look for")
    elif receipt.documents:
        click.echo(f"erased: nothing was found of {len(receipt.documents)} documents")
    else:
        click.echo("cleared what earlier removals left behind; no document to search for")
    return 0 if receipt.proven else 1


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
