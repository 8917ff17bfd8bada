"""`kb search` and `kb ask`."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from kb.cli.edge import DEFAULT_KB, Edge, json_option, pass_edge, print_json, shown, shown_name
from kb.errors import InvalidInputError, KBError
from kb.records import (
    MAX_TOP_K,
    Answer,
    Channel,
    Failed,
    Filter,
    Finished,
    Notice,
    Question,
    Token,
    Turn,
)

if TYPE_CHECKING:
    from kb.cli.edge import Decorator
    from kb.records import Citation
    from kb.traces.trace import Trace

_kbs_option = click.option(
    "--kb",
    "kbs",
    multiple=True,
    default=(DEFAULT_KB,),
    show_default=True,
    help="Knowledge base; may be repeated.",
)
_top_k_option = click.option(
    "-k", "--top-k", type=click.IntRange(1, MAX_TOP_K), help="How many passages. [default: 5]"
)
_channel_option = click.option(
    "--channel",
    type=click.Choice(["hybrid", "dense", "lexical"]),
    default="hybrid",
    show_default=True,
    help="Which retriever.",
)
QUOTE_CHARS = 160
EXTRACTIVE = "extractive"


def filter_options(*, has_document: bool = True) -> "Decorator":
    """Add the options that limit a question to documents; they arrive as a Filter, `wanted`."""
    options = [
        click.option("--folder", default="", help="Only documents below this folder."),
        click.option("--type", "types", multiple=True, help="Only this file type, such as pdf."),
        click.option("--since", help="Only documents added or changed since this day (UTC)."),
        click.option("--until", help="Only documents added or changed until this day (UTC)."),
    ]
    if has_document:
        text = "Only this document (id, path or name); may be repeated."
        options.insert(0, click.option("--document", "documents", multiple=True, help=text))

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def with_filter(
            *arguments: Any,
            folder: str,
            types: tuple[str, ...],
            since: str | None,
            until: str | None,
            documents: tuple[str, ...] = (),
            **others: Any,
        ) -> Any:
            wanted = Filter(documents, folder, types, since, until)
            return function(*arguments, wanted=wanted, **others)

        for option in reversed(options):
            with_filter = option(with_filter)
        return with_filter

    return decorate


@click.command(epilog="Example:  kb search '年假有几天?' --kb handbook --json | jq '.[0].text'")
@click.argument("question")
@_kbs_option
@_top_k_option
@_channel_option
@filter_options()
@json_option
@pass_edge
def search(
    edge: Edge,
    question: str,
    kbs: tuple[str, ...],
    top_k: int | None,
    channel: Channel,
    wanted: Filter,
    as_json: bool,
) -> None:
    """Print the passages that best match QUESTION. No language model is loaded."""
    asked = Question(question, kbs, top_k or edge.settings.top_k, channel, filter=wanted)
    found = edge.services.retriever.search(asked)
    hits = found.hits
    _print_notices(found.notices)
    if as_json:
        print_json([hit.to_dict() for hit in hits])
        return
    for hit in hits:
        page = f", page {hit.chunk.page}" if hit.chunk.page else ""
        heading = f"  ({shown_name(hit.chunk.heading)})" if hit.chunk.heading else ""
        click.echo(f"[{hit.rank}] {hit.score:.3f}  {shown_name(hit.document)}{page}{heading}")
        if hit.also_in:
            names = ", ".join(each.document for each in hit.also_in)
            click.echo(f"also in {shown_name(names)}")
        click.echo(shown(hit.chunk.text.strip()) + "\n")
    if not hits:
        click.echo("nothing found", err=True)


@click.command(epilog="Example:  kb ask 'How often is the filter changed?' --kb manuals")
@click.argument("question")
@click.option(
    "--kb",
    "kbs",
    multiple=True,
    help=f"Knowledge base; may be repeated. [default: those of --after, else {DEFAULT_KB}]",
)
@_top_k_option
@_channel_option
@filter_options()
@click.option("--after", metavar="TRACE", help="Ask on after this answer (its trace_id).")
@json_option
@pass_edge
def ask(
    edge: Edge,
    question: str,
    kbs: tuple[str, ...],
    top_k: int | None,
    channel: Channel,
    wanted: Filter,
    after: str | None,
    as_json: bool,
) -> None:
    """Answer QUESTION from the documents, then list the citations."""
    history: tuple[Turn, ...] = ()
    if after:
        before = _read_answer(edge, after)
        history = (*before.history, Turn(before.question, before.answer, before.id))
        kbs = kbs or tuple((before.request or {}).get("kbs", ()))
    kbs = kbs or (DEFAULT_KB,)
    asked = Question(question, kbs, top_k or edge.settings.top_k, channel, history, wanted)
    answer: Answer | None = None
    # Sentences of documents are there at once, so they are printed with their markers at the
    # end; what a chat model writes is worth watching.
    is_streamed = not as_json and edge.services.answerer.model != EXTRACTIVE
    for event in edge.services.chain.events(asked):
        if isinstance(event, Token) and is_streamed:
            click.echo(shown(event.text), nl=False)
        elif isinstance(event, Finished):
            answer = event.answer
        elif isinstance(event, Failed):
            raise KBError(event.message)
    if answer is None:
        raise KBError("the answer ended early")
    _print_notices(answer.notices)
    if as_json:
        print_json(answer.to_dict())
        return
    if answer.rewritten:
        click.echo(f"looked up: {shown(answer.rewritten)}", err=True)
    click.echo("\n" if is_streamed else shown(answer.text) + "\n")
    if answer.refused:
        _print_nearest(answer)
    else:
        for citation in answer.citations:
            click.echo(_citation_line(citation))
    if answer.model == EXTRACTIVE:
        click.echo(
            "(extractive: sentences of the documents, no language model; to have one write the "
            "answers run `kb model pull chatglm3-6b`, then `kb model add` as it says)",
            err=True,
        )
    if answer.trace_id:
        click.echo(f"trace: {answer.trace_id}", err=True)


def _read_answer(edge: Edge, trace_id: str) -> "Trace":
    from kb.storage.trace_reads import read_trace

    with edge.services.database.read() as session:
        stored = read_trace(session, trace_id)
    if stored.is_redacted:
        raise InvalidInputError(
            "after", "that answer was removed with its document; ask the whole question"
        )
    return stored


def _print_notices(notices: tuple[Notice, ...]) -> None:
    for notice in notices:
        click.echo(f"warning: {shown(notice.detail)}", err=True)


def _print_nearest(answer: Answer) -> None:
    for passage in sorted(answer.passages, key=lambda each: each.hit.rank):
        hit = passage.hit
        text = " ".join(shown(hit.chunk.text).split())
        click.echo(f"  {hit.rank}. {shown_name(hit.document)}: {_short(text)}")


def _citation_line(citation: "Citation") -> str:
    page = f", page {citation.page}" if citation.page else ""
    doubt = "" if citation.supported else "  (not supported by the passage)"
    quote = _short(" ".join(shown(citation.quote).split()))
    return f"{citation.marker} {shown_name(citation.document)}{page}: “{quote}”{doubt}"


def _short(text: str) -> str:
    return text if len(text) <= QUOTE_CHARS else text[: QUOTE_CHARS - 1] + "…"
