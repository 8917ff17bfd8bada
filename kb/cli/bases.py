"""`kb create`, `kb list`, `kb delete`."""

import click

from kb.cli.edge import Edge, confirm, json_option, pass_edge, print_json, shown, yes_option
from kb.storage.bases import count_base, find_base, list_bases


@click.command(epilog="Example:  kb create 员工手册")
@click.argument("name")
@json_option
@pass_edge
def create(edge: Edge, name: str, as_json: bool) -> None:
    """Create an empty knowledge base called NAME."""
    base = edge.services.create_base(name)
    if as_json:
        print_json({"id": base.id, "name": base.name})
    else:
        click.echo(f"created {base.name} ({base.id})")


@click.command("list", epilog="Example:  kb list --json")
@json_option
@pass_edge
def list_(edge: Edge, as_json: bool) -> None:
    """List knowledge bases with the number of their documents and chunks."""
    with edge.services.database.read() as session:
        rows = [(base, count_base(session, base.id)) for base in list_bases(session)]
    if as_json:
        print_json(
            [
                {
                    "id": base.id,
                    "name": base.name,
                    "documents": counts.documents,
                    "failed": counts.failed,
                    "chunks": counts.chunks,
                    "embedder": base.embedder.name,
                }
                for base, counts in rows
            ]
        )
        return
    for base, counts in rows:
        failed = f", {counts.failed} failed" if counts.failed else ""
        click.echo(
            f"{shown(base.name)}  {counts.documents} documents{failed}, {counts.chunks} chunks"
        )
    if not rows:
        click.echo("no knowledge bases yet; make one with `kb ingest FOLDER`", err=True)


@click.command(epilog="Example:  kb delete old-handbook --yes")
@click.argument("name")
@yes_option
@json_option
@pass_edge
def delete(edge: Edge, name: str, yes: bool, as_json: bool) -> None:
    """Delete the knowledge base NAME with everything in it. Files in folders stay."""
    with edge.services.database.read() as session:
        base = find_base(session, name)
        counts = count_base(session, base.id)
    if not yes:
        confirm(f"delete {base.name!r} with {counts.documents} documents?")
    edge.services.delete_base(base)
    if as_json:
        print_json({"id": base.id, "name": base.name, "documents": counts.documents})
    else:
        click.echo(f"deleted {base.name}")
