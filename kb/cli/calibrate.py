"""`kb calibrate`: when a base refuses, fitted on its own text."""

import click

from kb.cli.edge import Edge, json_option, kb_option, pass_edge, print_json, shown
from kb.storage.bases import find_base


@click.command(epilog="Example:  kb calibrate --kb handbook --target-false-refusals 0.05")
@kb_option()
@click.option(
    "--target-false-refusals",
    "target",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0, 0.5),
    help="Share of answerable questions that may be refused.",
)
@json_option
@pass_edge
def calibrate(edge: Edge, kb: str, target: float, as_json: bool) -> None:
    """Fit the support below which questions are refused, on questions made from the base.

    No model is used. The threshold, the weights of dense and lexical search where others are
    clearly better, and the whole curve are stored in the knowledge base.
    """
    from kb.calibrate import calibrate as measure

    services = edge.services
    with services.database.read() as session:
        base = find_base(session, kb)
    result = measure(services.database, services.retriever, base, target=target)
    if as_json:
        print_json({"kb": base.name, **result.to_dict()})
        return
    click.echo(
        f"{shown(base.name)}: threshold {result.before:g} -> {result.threshold:g}, from "
        f"{result.answerable} questions with an answer and {result.unanswerable} without"
    )
    precision = "-" if result.refusal_precision is None else f"{result.refusal_precision:.3f}"
    click.echo(
        f"held-out half: refuses {result.refusal_recall:.3f} of the unanswerable and "
        f"{result.false_refusals:.3f} of the answerable; precision {precision}"
    )
    for channel, mrr in result.channel_mrr.items():
        click.echo(f"{channel}: finds the source with MRR {mrr:.3f}")
    if result.channel_weights:
        click.echo(f"dense now weighs {result.channel_weights['dense']:g} beside lexical 1")
    click.echo("threshold  answerable refused  unanswerable refused")
    for threshold, answerable, unanswerable in result.curve[::5]:
        click.echo(f"{threshold:9.2f}  {answerable:18.3f}  {unanswerable:20.3f}")
