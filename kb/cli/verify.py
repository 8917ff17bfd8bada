"""`kb verify`: prove that indexes and database agree, and repair what can be repaired."""

import click

from kb.cli.edge import Edge, json_option, pass_edge, print_json, shown


@click.command(epilog="Example:  kb verify --repair")
@click.option("--repair", is_flag=True, help="Make again what can be made from the database.")
@json_option
@pass_edge
def verify(edge: Edge, repair: bool, as_json: bool) -> int:
    """Check database, full text, vector index, offsets and files against each other.

    Exits with 1 if anything disagrees (after the repair, with --repair).
    """
    from dataclasses import replace

    from ingest.resplit import resplit
    from ingest.splitter import SPLITTER
    from kb import verify as verification

    services = edge.services
    report = verification.verify(
        services.database, services.retriever, services.blobs, splitter=SPLITTER
    )
    done: list[str] = []
    if repair:
        done += resplit(services.sync_parts)
        done += verification.repair(services.database, services.retriever, report.problems)
        report = replace(
            verification.verify(
                services.database, services.retriever, services.blobs, splitter=SPLITTER
            ),
            repaired=tuple(done),
        )
    if as_json:
        print_json(report.to_dict())
        return 0 if report.ok else 1
    for line in done:
        click.echo(f"repaired: {shown(line)}")
    for problem in report.problems:
        click.echo(f"{problem.kind}: {shown(problem.detail)}")
    verdict = "sound" if report.ok else f"{len(report.problems)} problems"
    hint = "" if report.ok or repair else "; `kb verify --repair` mends what can be mended"
    click.echo(f"{report.documents} documents, {report.chunks} chunks: {verdict}{hint}")
    return 0 if report.ok else 1
