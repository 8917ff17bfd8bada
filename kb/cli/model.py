"""`kb model`: language models on this machine.

`pull` fetches a published checkpoint, `add` converts one (fetched or your own) into a model of
ours, `use` chooses which model answers.
"""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from kb.cli.edge import Edge, confirm, json_option, pass_edge, print_json, shown, yes_option
from kb.cli.progress import download_bar, steps_bar
from kb.errors import KBError
from kb.models import (
    EMBEDDERS,
    checkpoint_folder,
    delete_folder,
    find_model,
    list_models,
    model_folder,
    model_in_use,
    remove_model,
    use_model,
)

if TYPE_CHECKING:
    from llm.config import Generation
    from llm.hub import Source


@click.group()
def model() -> None:
    """Fetch, convert and choose the language model that writes answers."""


@model.command(epilog="Example:  kb model pull chatglm3-6b --source modelscope")
@click.argument("name")
@click.option(
    "--source",
    type=click.Choice(["huggingface", "modelscope"]),
    help="Where to fetch from; default: $KB_HUB.",
)
@click.option("--endpoint", help="A mirror of the source; default: $KB_HUB_ENDPOINT.")
@json_option
@pass_edge
def pull(
    edge: Edge, name: str, source: "Source | None", endpoint: str | None, as_json: bool
) -> None:
    """Fetch the checkpoint NAME, or ORG/NAME of the source, into the data folder.

    NAME may be that of an embedder, such as bge-small-zh-v1.5: that is ready when it is there.
    What arrived stays when this is interrupted, and the same command continues.
    """
    from ingest.embedder_names import KNOWN_EMBEDDERS
    from llm.hub import ENDPOINTS, KNOWN_MODELS, find_repo
    from llm.hub import pull as pull_checkpoint

    settings = edge.settings
    source = source or settings.hub
    is_configured = source == settings.hub
    endpoint = endpoint or (settings.hub_endpoint if is_configured else "")
    # The token is for the hub that it was configured with, and no other may see it.
    is_configured = is_configured and endpoint == settings.hub_endpoint
    token = settings.hub_token if is_configured else None
    embedder = KNOWN_EMBEDDERS.get(name)
    if embedder is not None:
        if source != "huggingface":
            raise KBError(
                f"the embedder {name!r} is known at Hugging Face only; say --source huggingface, "
                "and name a mirror of it with --endpoint, or bring its folder"
            )
        repo, folder = embedder.repo, settings.home / EMBEDDERS / name
    else:
        name, repo = find_repo(name, source)
        folder = checkpoint_folder(settings.home, name)

    size = f"about {KNOWN_MODELS[name].size_bytes / 1e9:.1f} GB, " if name in KNOWN_MODELS else ""
    click.echo(f"{name}: {size}{repo} at {endpoint or ENDPOINTS[source]}", err=True)
    with download_bar() as show:
        pull_checkpoint(
            repo if embedder else name,
            folder,
            source=source,
            endpoint=endpoint or None,
            token=token.get_secret_value() if token else None,
            progress=show,
        )
    if as_json:
        print_json({"name": name, "repo": repo, "source": source, "path": str(folder)})
        return
    click.echo(f"fetched {name} into {folder}")
    if embedder is not None:
        click.echo(f"next: kb reembed --embedder {name}, or KB_EMBEDDER={name} for new bases")
        return
    bits = 8 if name.endswith("-int8") else 4  # what its publisher chose cannot be changed
    click.echo(f"next: kb model add {shlex.quote(str(folder))} --bits {bits}")


@model.command(epilog="Example:  kb model add ./chatglm3-6b --bits 4")
@click.argument(
    "folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option("--bits", type=click.Choice(["4", "8", "16"]), default="4", show_default=True)
@click.option("--name", help="Name of the model; default: that of DIR and the bits.")
@click.option(
    "--group-size",
    type=click.Choice(["32", "64", "128"]),
    default="32",
    show_default=True,
    help="Weights per scale at 4 bits: fewer are more exact, and larger on disk.",
)
@click.option(
    "--generation",
    type=click.Choice(["chatglm", "chatglm2", "chatglm3", "glm4"]),
    help="What the checkpoint is, where its folder does not tell.",
)
@click.option(
    "--embedding",
    type=click.Choice(["bf16", "int8"]),
    default="bf16",
    show_default=True,
    help="How the table of token embeddings is kept.",
)
@click.option("--float-head", is_flag=True, help="Keep the output layer in bf16.")
@click.option("--yes", is_flag=True, help="Replace an installed model of the same name.")
@json_option
@pass_edge
def add(
    edge: Edge,
    folder: Path,
    bits: str,
    name: str | None,
    group_size: str,
    generation: "Generation | None",
    embedding: Literal["bf16", "int8"],
    float_head: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Convert the checkpoint in DIR, once, and install it as a model.

    DIR stays as it is and is not needed afterwards.
    """
    from llm.convert import ConvertOptions, convert
    from llm.store import read_description

    home = edge.settings.home
    name = name or f"{folder.resolve().name}-{'bf16' if bits == '16' else 'int' + bits}"
    target = model_folder(home, name)
    if target.exists() and not yes:
        raise KBError(f"a model {name!r} is installed already; give another --name, or --yes")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise KBError(f"cannot make {str(target.parent)!r}: {exc.strerror}") from exc
    options = ConvertOptions(
        bits=int(bits),
        group_size=int(group_size),
        quantize_head=not float_head,
        embedding=embedding,
    )
    with steps_bar() as show:
        report = convert(folder, target, options, generation=generation, progress=show)
    can_chat = read_description(target).config.is_chat
    is_first = can_chat and not model_in_use(home)
    if is_first:
        use_model(home, name)
    if as_json:
        print_json({"name": name, "path": str(target), "in_use": is_first, "report": report})
        return
    size_gb = _size_bytes(target) / 1e9
    cost = "quantized by its publisher"
    if report["quantized_by"] == "us":
        cost = f"its logits differ by {report['logits']['relative_error']:.1%} from bf16"
    click.echo(f"added {name} ({size_gb:.1f} GB; {cost})")
    if not can_chat:
        click.echo("it is a base model, which continues texts and cannot answer questions")
    else:
        click.echo(f"in use: {name}" if is_first else f"next: kb model use {name}")


@model.command("list", epilog="Example:  kb model list --check")
@click.option("--check", is_flag=True, help="Read all files and compare their checksums.")
@json_option
@pass_edge
def list_(edge: Edge, check: bool, as_json: bool) -> int:
    """List installed models and embedders; `*` marks the model in use, `+` the new bases' embedder.

    Embedders of other folders than the data folder's are listed once they have been used.
    """
    from llm.errors import LlmError
    from llm.store import find_damage, read_description

    home = edge.settings.home
    in_use = model_in_use(home)
    rows = []
    for name in list_models(home):
        folder = model_folder(home, name)
        row: dict[str, Any] = {
            "name": name,
            "kind": "model",
            "in_use": name == in_use,
            "generation": None,
            "bits": None,
            "context_window": None,
            "size_bytes": _size_bytes(folder),
            "source": None,
            "problem": None,
        }
        try:
            described = read_description(folder)
            row |= {
                "generation": described.config.generation,
                "bits": described.bits,
                "context_window": described.config.context_window,
                "source": described.source,
            }
            row["problem"] = find_damage(folder) if check else None
        except LlmError as exc:
            row["problem"] = str(exc)
        rows.append(row)
    embedders = _embedder_rows(edge)
    if as_json:
        print_json([*rows, *embedders])
    elif not rows:
        click.echo("no model is installed; run `kb model pull chatglm3-6b`", err=True)
    for row in [] if as_json else rows:
        mark = "*" if row["in_use"] else " "
        facts = row["problem"] or (
            f"{row['generation']}, {row['bits']} bits, {row['size_bytes'] / 1e9:.1f} GB, "
            f"context {row['context_window']:,}"
        )
        click.echo(f"{mark} {row['name']:<28} {shown(facts)}")
    for row in [] if as_json else embedders:
        mark = "+" if row["in_use"] else " "
        click.echo(f"{mark} {row['name']:<28} embedder, {shown(row['source'])}")
    return 1 if any(row["problem"] for row in rows) else 0


@model.command(epilog="Example:  kb model use chatglm3-6b-int4")
@click.argument("name")
@pass_edge
def use(edge: Edge, name: str) -> None:
    """Let the installed model NAME write answers from now on; a running server after a restart."""
    from llm.store import read_description

    folder = find_model(edge.settings.home, name)
    if not read_description(folder).config.is_chat:
        raise KBError(f"{name!r} is a base model, which cannot answer questions; add a chat model")
    use_model(edge.settings.home, name)
    click.echo(f"in use: {name}")
    if edge.settings.answerer not in ("auto", "chatglm"):
        click.echo(f"but KB_ANSWERER is {edge.settings.answerer!r}; unset it", err=True)


@model.command(epilog="Example:  kb model remove chatglm3-6b-int4 --yes")
@click.argument("name")
@yes_option
@pass_edge
def remove(edge: Edge, name: str, yes: bool) -> None:
    """Delete the installed model or embedder NAME. The checkpoint a model was made from stays.

    An embedder that new or existing knowledge bases use is kept.
    """
    from ingest.embedder_folders import installed_names

    home = edge.settings.home
    is_embedder = name in installed_names(home) and name not in list_models(home)
    if is_embedder:
        _check_unused(edge, name)
    folder = home / EMBEDDERS / name if is_embedder else find_model(home, name)
    if not yes:
        confirm(f"Delete {name} ({_size_bytes(folder) / 1e9:.1f} GB)?")
    if is_embedder:
        delete_folder(folder)
    else:
        remove_model(home, name)
    click.echo(f"removed {name}")


def _check_unused(edge: Edge, name: str) -> None:
    """Refuse to remove an embedder without which knowledge bases would lose their dense search."""
    from ingest.embedder_folders import is_made_by
    from kb.storage.bases import list_bases

    home = edge.settings.home
    if edge.settings.embedder in (name, str(home / EMBEDDERS / name)):
        raise KBError(f"{name!r} is the embedder of new knowledge bases; change KB_EMBEDDER first")
    with edge.services.database.read() as session:
        bases = list_bases(session)
    users = [base.name for base in bases if is_made_by(base.embedder, home, name)]
    if users:
        raise KBError(
            f"{name!r} is the embedder of {', '.join(users)}; `kb reembed --kb NAME` gives such a "
            "knowledge base another one"
        )


def _embedder_rows(edge: Edge) -> list[dict[str, Any]]:
    """Return the embedders of the data folder, the embedded one, and others that were used."""
    from ingest.embedder_folders import BUILT_IN, installed_names, remembered

    home, wanted = edge.settings.home, edge.settings.embedder
    found = {BUILT_IN: "comes with kb"}
    for name in installed_names(home):
        found[name] = str(home / EMBEDDERS / name)
    for known in remembered(home):
        if known.is_there():
            found.setdefault(known.settings.name, known.settings.folder)
    return [
        {
            "name": name,
            "kind": "embedder",
            "in_use": wanted in (name, source),
            "generation": None,
            "bits": None,
            "context_window": None,
            "size_bytes": None,
            "source": source,
            "problem": None,
        }
        for name, source in found.items()
    ]


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
