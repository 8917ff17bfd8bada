"""`kb why`: where a document fell out on its way to an answer."""

import click

from kb.cli.ask import filter_options
from kb.cli.edge import Edge, json_option, kb_option, pass_edge, print_json, shown
from kb.records import MAX_TOP_K, Channel, Filter, Question


@click.command(epilog="Example:  kb why '年假有几天?' --document docs/手册.md --kb handbook")
@click.argument("question")
@click.option("--document", required=True, help="The document: id, path or name.")
@kb_option()
@click.option("-k", "--top-k", type=click.IntRange(1, MAX_TOP_K), help="How many passages.")
@click.option(
    "--channel",
    type=click.Choice(["hybrid", "dense", "lexical"]),
    default="hybrid",
    show_default=True,
    help="Which retriever.",
)
@filter_options(has_document=False)
@json_option
@pass_edge
def why(
    edge: Edge,
    question: str,
    document: str,
    kb: str,
    top_k: int | None,
    channel: Channel,
    wanted: Filter,
    as_json: bool,
) -> None:
    """Say where a document fell out: not read, no word shared, ranked too low, a duplicate..."""
    from kb.traces.why import why as explain

    services = edge.services
    asked = Question(question, (kb,), top_k or edge.settings.top_k, channel, filter=wanted)
    found = explain(services.database, services.retriever, services.answerer, asked, document)
    if as_json:
        print_json(found.to_dict())
        return
    click.echo(f"{found.verdict}: {shown(found.detail)}")
    if found.missing:
        click.echo(f"words of the question that it lacks: {shown(', '.join(found.missing))}")
    if found.remedy:
        click.echo(f"what would help: {shown(found.remedy)}")
