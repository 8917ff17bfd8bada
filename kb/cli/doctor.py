"""`kb config` and `kb doctor`: where settings come from, what this machine is."""

import os
import platform
import shutil
import sqlite3
from typing import TYPE_CHECKING

import click

from kb.cli.edge import Edge, json_option, pass_edge, print_json

if TYPE_CHECKING:
    from kb.config import Settings
    from kb.wiring import Services


@click.command(epilog="Example:  kb config --json")
@json_option
@pass_edge
def config(edge: Edge, as_json: bool) -> None:
    """Print each setting, its value and where it came from. Keys are not shown."""
    settings, origins = edge.loaded
    rows = [
        {"name": name, "value": str(getattr(settings, name)), "origin": origins.get(name, "given")}
        for name in type(settings).model_fields
    ]
    if as_json:
        print_json(rows)
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        click.echo(f"{row['name']:<{width}}  {row['value']:<40}  {row['origin']}")


@click.command(epilog="Example:  kb doctor")
@json_option
@pass_edge
def doctor(edge: Edge, as_json: bool) -> int:
    """Explain this machine: versions, memory, embedder, answerer and the data folder."""
    facts = _facts(edge)
    if as_json:
        print_json(facts)
    else:
        for name, value in facts.items():
            click.echo(f"{name:<18} {value}")
    return 0


def _facts(edge: Edge) -> dict[str, str]:
    import psutil

    from kb import __version__
    from kb.storage.bases import list_bases
    from llm.packed import describe_kernels

    settings = edge.settings
    services = edge.services
    with services.database.read() as session:
        names = [base.name for base in list_bases(session)]
    memory = psutil.virtual_memory()
    free_gb = shutil.disk_usage(settings.home).free / 2**30
    return {
        "kb": __version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "cores": str(os.cpu_count()),
        "memory": f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GB free",
        "data folder": f"{settings.home} ({free_gb:.1f} GB free)",
        "knowledge bases": ", ".join(names) or "none yet; run `kb ingest FOLDER`",
        "embedder": _embedder_note(services),
        "answerer": _answerer_note(settings),
        "kernels": describe_kernels(),
        **_models_that_fit(memory.available),
    }


def _embedder_note(services: "Services") -> str:
    """Say what embeds new bases, and which older ones have lost theirs."""
    from kb.errors import KBError
    from kb.storage.bases import list_bases

    try:
        spec = services.embedder.spec
        note = (
            f"{spec.name} on the CPU ({spec.identity}); knows {', '.join(sorted(spec.scripts))}, "
            "other scripts are found by full text"
        )
    except KBError as exc:
        note = f"none: {exc}"
    with services.database.read() as session:
        bases = list_bases(session)
    lost = [base for base in bases if services.embedder.matching(base.embedder) is None]
    for base in lost:
        note += (
            f"; {base.name} was made with {base.embedder.name}, which is not here: it is searched "
            "by full text alone, until that is installed again or after `kb reembed`"
        )
    return note


def _answerer_note(settings: "Settings") -> str:
    from kb.errors import KBError
    from kb.wiring import chatglm_folder
    from llm.errors import LlmError
    from llm.store import check_memory, read_description

    if settings.answerer == "openai":
        return f"openai: a chat model at {settings.openai_base_url}"
    try:
        folder = chatglm_folder(settings)
    except KBError as exc:
        return str(exc)
    if folder is None:
        return (
            "extractive: cited sentences of the documents, no language model; for one run "
            "`kb model pull chatglm3-6b`"
        )
    try:
        described = read_description(folder)
        context = min(settings.context_tokens, described.config.context_window)
        check_memory(folder, context, settings.kv_cache)
    except LlmError as exc:
        return f"chatglm: {folder.name} cannot be loaded: {exc}"
    return f"chatglm: {folder.name} in this process, {described.bits} bits"


def _models_that_fit(available_bytes: int) -> dict[str, str]:
    """Say for each published shape at which bits and context it fits into free memory."""
    from llm.kv_cache import kv_bytes
    from llm.memory import needed_bytes
    from llm.shapes import SHAPES

    facts = {}
    for name, config in SHAPES.items():
        fits = []
        for bits in (4, 8, 16):
            room = available_bytes - needed_bytes(config, bits, 0)
            tokens = min(room // kv_bytes(config, 1), config.context_window)
            if tokens >= 1024:
                fits.append(f"{bits} bits with {tokens // 1024}K tokens")
        facts[name] = "fits at " + ", ".join(fits) if fits else "does not fit into free memory"
    return facts
