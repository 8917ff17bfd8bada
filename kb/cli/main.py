"""The `kb` command: its table of commands, global options, and what an error looks like.

Commands are imported when they run, so that `kb --help` is fast and loads no model.
"""

import errno
import logging
import os
import sys
from importlib import import_module
from typing import Any

import click

from kb.cli.edge import Edge
from kb.errors import KBError
from llm.errors import LlmError

logger = logging.getLogger(__name__)

# name -> (module, attribute, help line)
COMMANDS = {
    "ingest": ("kb.cli.ingest", "ingest", "Make a knowledge base equal to folders or files."),
    "search": ("kb.cli.ask", "search", "Print the passages that best match a question."),
    "ask": ("kb.cli.ask", "ask", "Answer a question, with citations."),
    "why": ("kb.cli.why", "why", "Say where a document fell out for a question."),
    "replay": ("kb.cli.replay", "replay", "Make a stored answer again, or with a change."),
    "create": ("kb.cli.bases", "create", "Create an empty knowledge base."),
    "list": ("kb.cli.bases", "list_", "List knowledge bases."),
    "delete": ("kb.cli.bases", "delete", "Delete a knowledge base."),
    "docs": ("kb.cli.docs", "docs", "List, show and remove documents."),
    "serve": ("kb.cli.serve", "serve", "Serve the HTTP API and the web page."),
    "model": ("kb.cli.model", "model", "Fetch, convert and choose models."),
    "reembed": ("kb.cli.reembed", "reembed", "Move a knowledge base to another embedder."),
    "verify": ("kb.cli.verify", "verify", "Prove that indexes and database agree."),
    "doctor": ("kb.cli.doctor", "doctor", "Explain this machine and what would run on it."),
    "config": ("kb.cli.doctor", "config", "Print each setting and where it came from."),
    "calibrate": ("kb.cli.calibrate", "calibrate", "Fit when a base refuses, on its own text."),
    "feedback": ("kb.cli.feedback", "feedback", "Export the thumbs of users as a question set."),
    "eval": ("kb.cli.evaluate", "evaluate", "Measure quality on question sets."),
    "bench": ("kb.cli.bench", "bench", "Measure speed on this machine."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    epilog="Example:  kb ingest ./docs && kb ask '年假有几天?'",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--home", type=click.Path(file_okay=False), help="Data folder; default: $KB_HOME.")
@click.version_option(package_name="local-kb", prog_name="kb")
@click.pass_context
def cli(ctx: click.Context, home: str | None) -> None:
    """A local knowledge base: documents in, answers with provable citations out."""
    if ctx.obj is None:
        ctx.obj = Edge({"home": home})
    ctx.call_on_close(ctx.obj.close)


def run(arguments: list[str] | None = None, edge: Any = None) -> int:
    """Run one command and return its exit code; `edge` replaces the real services in tests."""
    try:
        result = cli.main(arguments, prog_name="kb", standalone_mode=False, obj=edge)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("interrupted; what was stored so far stays", err=True)
        return 130
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except (KBError, LlmError) as exc:
        logger.debug("the command failed", exc_info=True)
        click.echo(f"kb: {exc}", err=True)
        return 1
    except BrokenPipeError:
        # The reader of our output left, as `| head` does. Nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as exc:
        if exc.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        click.echo(f"kb: the output cannot be written ({exc.strerror})", err=True)
        return 1
    return result if isinstance(result, int) else 0


def main() -> None:
    """Entry point of the `kb` command."""
    sys.exit(run())
