"""`kb feedback`: what users thought of answers."""

from pathlib import Path

import click

from kb.cli.edge import Edge, json_option, kb_option, pass_edge, print_json
from kb.evaluation.feedback_set import export_feedback
from kb.storage.bases import find_base


@click.group()
def feedback() -> None:
    """Use the thumbs that users gave answers on the page."""


@feedback.command(epilog="Example:  kb feedback export ./rated --kb handbook && kb eval ./rated")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@kb_option("Knowledge base (name or id) whose answers were rated.")
@json_option
@pass_edge
def export(edge: Edge, folder: Path, kb: str, as_json: bool) -> None:
    """Write rated answers to DIR as a question set that `kb eval DIR` runs.

    Thumbs up give questions with the cited documents as right ones; thumbs down are listed in
    unjudged.jsonl. DIR then holds the documents' text.
    """
    with edge.services.database.read() as session:
        base = find_base(session, kb)
    written = export_feedback(edge.services.database, base, folder)
    if as_json:
        print_json(
            {
                "kb": base.name,
                "folder": str(folder),
                "documents": written.documents,
                "questions": written.questions,
                "unjudged": written.unjudged,
            }
        )
        return
    click.echo(
        f"wrote {written.questions} questions, {written.unjudged} unjudged, and "
        f"{written.documents} documents to {folder}"
    )
