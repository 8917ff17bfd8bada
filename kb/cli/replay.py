"""`kb replay`: make a stored answer again."""

import click

from kb.cli.edge import Edge, json_option, pass_edge, print_json, shown


@click.command(epilog="Example:  kb replay 5f0c... --with top_k=8 --with channel=lexical")
@click.argument("trace")
@click.option(
    "--with",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="A change: top_k, channel, kb, question, seed, document, folder, type, since, until.",
)
@json_option
@pass_edge
def replay(edge: Edge, trace: str, changes: tuple[str, ...], as_json: bool) -> int:
    """Make the stored answer TRACE again (the `trace_id` of `kb ask --json`).

    Without --with it must come out the same: exits with 1, and shows the difference, where it
    does not. With --with it shows what the change does to passages and text.
    """
    from kb.storage.trace_reads import read_trace
    from kb.traces.replay import parse_changes
    from kb.traces.replay import replay as run

    changed = parse_changes(changes)
    with edge.services.database.read() as session:
        stored = read_trace(session, trace)
    result = run(edge.services.chain, stored, changed)
    code = 0 if result.is_same or changed else 1
    if as_json:
        print_json(result.to_dict())
        return code
    if result.is_same:
        click.echo(shown(result.after))
        click.echo("the same text" if not changed else "the change makes no difference", err=True)
    for sign, spans in (("-", result.removed), ("+", result.added)):
        for span in spans:
            click.echo(f"{sign} passage {shown(span)}")
    if not result.is_same:
        for line in result.difference:
            click.echo(shown(line))
    for reason in result.reasons:
        click.echo(f"note: {shown(reason)}", err=True)
    if code:
        click.echo("not the same text", err=True)
    return code
