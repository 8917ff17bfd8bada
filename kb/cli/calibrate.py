"""`kb calibrate`: when a base refuses, fitted on its own text."""

from collections.abc import Mapping
from typing import Any

import click

from kb.cli.edge import Edge, json_option, kb_option, pass_edge, print_json, shown
from kb.errors import InvalidInputError
from kb.storage.bases import calibration_report, find_base


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
@click.option("--show", is_flag=True, help="Measure nothing; show the last measurement.")
@json_option
@pass_edge
def calibrate(edge: Edge, kb: str, target: float, show: bool, as_json: bool) -> None:
    """Fit the support below which questions are refused, on questions made from the base.

    No model is used. The threshold, the weights of dense and lexical search where others are
    clearly better, and the whole curve are stored in the knowledge base.
    """
    from kb.refusal.calibrate import calibrate as measure

    services = edge.services
    with services.database.read() as session:
        base = find_base(session, kb)
        report = calibration_report(session, base.id) if show else None
    if show and report is None:
        raise InvalidInputError(
            "kb", f"{base.name!r} was never measured; run `kb calibrate --kb {base.name}`"
        )
    if report is None:
        measured = measure(services.database, services.retriever, base, target=target)
        report = measured.to_dict()
    if as_json:
        print_json({"kb": base.name, **report})
        return
    _print(base.name, report)


def _print(name: str, report: Mapping[str, Any]) -> None:
    questions, held_out = report["questions"], report["held_out"]
    click.echo(
        f"{shown(name)}: threshold {report['threshold_before']:g} -> {report['threshold']:g}, from "
        f"{questions['answerable']} questions with an answer and {questions['unanswerable']} "
        f"without, at {report['measured_at']}"
    )
    precision = held_out["refusal_precision"]
    click.echo(
        f"held-out half: refuses {held_out['refusal_recall']:.3f} of the unanswerable and "
        f"{held_out['false_refusals']:.3f} of the answerable; precision "
        f"{'-' if precision is None else format(precision, '.3f')}, AUROC {held_out['auroc']:.3f}"
    )
    for channel, mrr in report["channel_mrr"].items():
        click.echo(f"{channel}: finds the source with MRR {mrr:.3f}")
    if weights := report["channel_weights"]:
        click.echo(f"dense now weighs {weights['dense']:g} beside lexical 1")
    click.echo("threshold  answerable refused  unanswerable refused")
    for threshold, answerable, unanswerable in report["curve"][::5]:
        click.echo(f"{threshold:9.2f}  {answerable:18.3f}  {unanswerable:20.3f}")
