"""`kb verify`: prove that indexes and database agree, and repair what can be repaired."""

import click

from kb.cli.edge import Edge, json_option, pass_edge, print_json, shown


@click.command(epilog="Example:  kb verify --repair")
@click.option("--repair", is_flag=True, help="Make again what can be made from the database.")
@json_option
@pass_edge
def verify(edge: Edge, repair: bool, as_json: bool) -> int:
    """Check database, full text, vector index, offsets and files against each other.

    Exits with 1 if anything disagrees (after the repair, with --repair). What killed processes
    left behind is listed and, with --repair, removed; it is harmless.
    """
    from ingest.resplit import resplit, resplit_documents
    from ingest.splitter import SPLITTER
    from kb.upkeep.repair import verify_and_repair
    from kb.upkeep.verify import verify as check

    services = edge.services
    parts = services.database, services.retriever, services.blobs
    if repair:
        report = verify_and_repair(
            *parts,
            splitter=SPLITTER,
            resplit_old=lambda: resplit(services.sync_parts),
            resplit_documents=lambda ids: resplit_documents(services.sync_parts, ids),
        )
    else:
        report = check(*parts, splitter=SPLITTER)
    if as_json:
        print_json(report.to_dict())
        return 0 if report.ok else 1
    for line in report.repaired:
        click.echo(f"repaired: {shown(line)}")
    for leftover in report.leftovers:
        click.echo(f"left over by a killed process: {shown(leftover)}")
    for problem in report.problems:
        click.echo(f"{problem.kind}: {shown(problem.detail)}")
    verdict = "sound" if report.ok else f"{len(report.problems)} problems"
    hint = "" if report.ok or repair else "; `kb verify --repair` mends what can be mended"
    click.echo(f"{report.documents} documents, {report.chunks} chunks: {verdict}{hint}")
    return 0 if report.ok else 1
