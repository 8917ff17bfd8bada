"""`kb config` and `kb doctor`: where settings come from, what this machine is."""

import os
import platform
import shutil
import sqlite3

import click

from kb.cli.edge import Edge, json_option, pass_edge, print_json


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

    settings = edge.settings
    services = edge.services
    with services.database.read() as session:
        names = [base.name for base in list_bases(session)]
    memory = psutil.virtual_memory()
    free_gb = shutil.disk_usage(settings.home).free / 2**30
    spec = services.embedder.spec
    return {
        "kb": __version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "cores": str(os.cpu_count()),
        "memory": f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GB free",
        "data folder": f"{settings.home} ({free_gb:.1f} GB free)",
        "knowledge bases": ", ".join(names) or "none yet; run `kb ingest FOLDER`",
        "embedder": (
            f"{spec.name} on the CPU ({spec.identity}); knows {', '.join(sorted(spec.scripts))}, "
            "other scripts are found by full text"
        ),
        "answerer": _answerer_note(settings.answerer, settings.openai_base_url),
    }


def _answerer_note(answerer: str, base_url: str) -> str:
    if answerer == "openai":
        return f"openai: a chat model at {base_url}"
    return (
        "extractive: cited sentences of the documents, no language model; for one set "
        "KB_ANSWERER=openai, KB_OPENAI_BASE_URL and KB_OPENAI_MODEL"
    )
