"""What routes work with: the parts of the running server, put together by `api.app`."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from api.limits import Slots
from api.metrics import Metrics
from ingest.jobs import JobRunner
from kb.chain import AskChain
from kb.config import Settings
from kb.records import KnowledgeBase
from kb.storage.bases import check_name, find_base
from kb.storage.blobs import Blobs
from kb.storage.database import Database
from kb.storage.tables import HEX_ID


class Readiness:
    """Whether models and indexes are loaded, so that the first question is as fast as the next."""

    def __init__(self) -> None:
        self._done = threading.Event()
        self.problem = ""

    @property
    def is_ready(self) -> bool:
        return self._done.is_set() and not self.problem

    def finish(self, problem: str = "") -> None:
        self.problem = problem
        self._done.set()


@dataclass(frozen=True, slots=True)
class Parts:
    """One server's parts. The callables are those of `kb.wiring.Services`."""

    settings: Settings
    database: Database
    blobs: Blobs
    chain: AskChain
    jobs: JobRunner
    create_base: Callable[[str], KnowledgeBase]
    delete_base: Callable[[KnowledgeBase], None]
    clean_up: Callable[[], object]
    slots: Slots
    metrics: Metrics = field(default_factory=Metrics)
    readiness: Readiness = field(default_factory=Readiness)


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


ServerParts = Annotated[Parts, Depends(_parts)]


def base_named(parts: Parts, kb: str) -> KnowledgeBase:
    """Find a knowledge base by the id or name that a client sent.

    Raises:
        InvalidInputError: it is neither an id nor a name that a knowledge base can have.
        KnowledgeBaseNotFoundError: naming those that exist.
    """
    if not HEX_ID.fullmatch(kb):
        check_name(kb)
    with parts.database.read() as session:
        return find_base(session, kb)


def _base(kb: str, parts: ServerParts) -> KnowledgeBase:
    return base_named(parts, kb)


PathBase = Annotated[KnowledgeBase, Depends(_base)]
