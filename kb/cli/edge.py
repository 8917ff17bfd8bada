"""What every command shares: settings, services opened when needed, and how to print."""

import json
import logging
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from kb.errors import KBError

if TYPE_CHECKING:
    from kb.config import Settings
    from kb.wiring import Services

DEFAULT_KB = "default"


class Edge:
    """Opens settings and services once, at the first use. Tests hand over services of theirs."""

    def __init__(self, flags: Mapping[str, Any], services: "Services | None" = None) -> None:
        self._flags = flags
        if services is not None:
            self.__dict__["services"] = services
            self.__dict__["loaded"] = (services.settings, {})

    @cached_property
    def loaded(self) -> "tuple[Settings, dict[str, str]]":
        from kb.config import load_settings

        settings, origins = load_settings(self._flags)
        logging.basicConfig(
            level=settings.log_level,
            format="%(levelname)s %(name)s: %(message)s",
            stream=sys.stderr,
        )
        return settings, origins

    @property
    def settings(self) -> "Settings":
        return self.loaded[0]

    @cached_property
    def services(self) -> "Services":
        from kb.wiring import Services

        return Services.open(self.settings)

    def close(self) -> None:
        if "services" in self.__dict__:
            self.services.close()


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

pass_edge: Decorator = click.make_pass_decorator(Edge)


def kb_option(help_text: str = "Knowledge base (name or id).") -> Decorator:
    return click.option("--kb", default=DEFAULT_KB, show_default=True, help=help_text)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask; do it.")


def print_json(value: Any) -> None:
    """Print one JSON value on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=None))


def shown(text: str) -> str:
    """Return text safe for a terminal: control characters are replaced."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def shown_name(name: str) -> str:
    """Return a document's name safe for one line of a terminal."""
    return " ".join(shown(name).split("\n"))


def confirm(question: str) -> None:
    """Ask before something is lost.

    Raises:
        KBError: the answer was no.
    """
    if not click.confirm(question, err=True):
        raise KBError("not confirmed; nothing was changed")
