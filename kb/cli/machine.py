"""One line that says on what a figure was measured."""

import os
import platform
from importlib.metadata import version

import click

from kb import __version__


def machine_line() -> str:
    """Return processor, cores, memory and the versions that matter for speed."""
    import psutil

    memory_gb = psutil.virtual_memory().total / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "faiss-cpu", "sqlalchemy"))
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory_gb:.0f} GB; "
        f"kb {__version__}, Python {platform.python_version()}, {versions}"
    )


def print_machine() -> None:
    """Print that line on stderr."""
    click.echo(machine_line(), err=True)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
