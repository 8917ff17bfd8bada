"""Puts the parts together, once: settings in, a running knowledge base out.

Only the edge imports this file: the command line, the API's app factory and tests. Nothing
heavy is loaded until it is used: the embedder at the first text, an index at the first search.
"""

import threading
from collections.abc import Callable
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from kb.answers.extractive import ExtractiveAnswerer
from kb.config import Settings
from kb.embedder import Embedder
from kb.errors import ConfigError, InvalidInputError
from kb.failpoints import failpoint
from kb.models import find_model, model_in_use
from kb.protocols import Answerer
from kb.records import KnowledgeBase
from kb.refusal.support import DEFAULT_SUPPORT_THRESHOLD
from kb.retrieval.reranker import Reranker
from kb.retrieval.retrieve import Retriever
from kb.storage.bases import check_name, create_base, delete_base
from kb.storage.blobs import Blobs
from kb.storage.database import Database
from kb.storage.embeddings import sweep_embeddings
from kb.storage.jobs import is_any_job_live
from kb.storage.traces import drop_uncited_versions
from kb.text.terms import FULLTEXT

if TYPE_CHECKING:
    from pathlib import Path

    from ingest.parser import Parser
    from ingest.reembed import ReembedOptions, ReembedReport
    from ingest.sync import SyncParts
    from kb.chain import AskChain


class Services:
    """Owns what lives as long as the process: database, embedder, indexes, parser child."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        embedder: Embedder,
        *,
        chat_model: Any = None,
        answerer: Answerer | None = None,
    ) -> None:
        self.settings = settings
        self.database = database
        self.embedder = embedder
        self._chat_model = chat_model
        self._loading = threading.Lock()
        self._answerer = answerer
        self._close_model: Callable[[], None] | None = None
        self.blobs = Blobs(settings.home)
        self.retriever = Retriever(
            database,
            embedder,
            settings.home / "index",
            reranker=Reranker(settings.reranker, settings.home) if settings.reranker else None,
            rerank_top=settings.rerank_top,
        )

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        embedder: Embedder | None = None,
        chat_model: Any = None,
        answerer: Answerer | None = None,
    ) -> Self:
        """Open the data folder.

        Args:
            settings: where and how.
            embedder: in place of the embedded default.
            chat_model: a LangChain chat model that writes the answers, in place of the
                answerer that the settings name.
            answerer: one that exists already; whoever made it closes its model.

        Raises:
            StorageError: the data folder cannot be used.
        """
        return cls(
            settings,
            Database.open(settings.home),
            embedder or _embedder(settings),
            chat_model=chat_model,
            answerer=answerer,
        )

    def close(self) -> None:
        if "parser" in self.__dict__:
            self.parser.close()
        if self._close_model is not None:
            self._close_model()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @cached_property
    def parser(self) -> "Parser":
        from ingest.parser import ParseLimits, Parser

        return Parser(ParseLimits.of(self.settings), processes=self.settings.parse_processes)

    @cached_property
    def sync_parts(self) -> "SyncParts":
        from ingest.sync import SyncParts

        return SyncParts(database=self.database, embedder=self.embedder, parser=self.parser)

    @cached_property
    def chain(self) -> "AskChain":
        from kb.chain import AskChain

        return AskChain(
            self.database,
            self.retriever,
            self.answerer,
            trace_days=self.settings.trace_days,
            widen_chars=self.settings.widen_chars,
        )

    @property
    def answerer(self) -> Answerer:
        """The one that the settings name, made at the first use.

        Raises:
            ConfigError: the settings name a model that is not there.
            LlmError: the model in use cannot be loaded.
        """
        with self._loading:  # two requests at once must not load a model twice
            if self._answerer is None:
                self._answerer = self._make_answerer()
            return self._answerer

    @property
    def chat_model(self) -> Any:
        """The LangChain chat model that writes the answers, None for the extractive answerer."""
        from kb.answers.chat import ChatAnswerer

        answerer = self.answerer
        return answerer.chat_model if isinstance(answerer, ChatAnswerer) else None

    def _make_answerer(self) -> Answerer:
        settings = self.settings
        if self._chat_model is not None:
            return _chat_answerer(settings, self._chat_model)
        if settings.answerer == "openai":
            return _openai_answerer(settings)
        folder = chatglm_folder(settings)
        if folder is None:
            return ExtractiveAnswerer()
        from llm.chat_model import ChatGLM
        from llm.errors import LlmError, PromptTooLongError

        model = ChatGLM.load(
            folder,
            context_tokens=settings.context_tokens,
            kv_form=settings.kv_cache,
            threads=settings.threads,
            max_new_tokens=settings.max_new_tokens,
        )
        self._close_model = model.close
        return _chat_answerer(
            settings,
            model,
            name=model.model_name,
            context_tokens=model.context_window,
            count_tokens=model.count_tokens,
            clear_errors=(LlmError,),
            input_errors=(PromptTooLongError,),
            takes_seed=True,
        )

    def create_base(self, name: str) -> KnowledgeBase:
        """Create a knowledge base with this process's embedder, splitter and full text.

        Raises:
            InvalidInputError, AlreadyExistsError
        """
        from ingest.splitter import SPLITTER

        with self.database.write() as session:
            return create_base(
                session,
                name,
                embedder=self.embedder.spec,
                splitter=SPLITTER,
                fulltext=FULLTEXT,
                support_threshold=DEFAULT_SUPPORT_THRESHOLD,
            )

    def find_embedder(self, name_or_folder: str) -> Embedder:
        """Return the embedder with this name or in this folder; "" is the one of new bases.

        Raises:
            ConfigError, EmbedderError
        """
        from ingest.installed import InstalledEmbedders

        if not name_or_folder:
            return self.embedder
        if isinstance(self.embedder, InstalledEmbedders):
            return self.embedder.find(name_or_folder)
        return InstalledEmbedders(self.settings).find(name_or_folder)

    def reembed(
        self, base: KnowledgeBase, embedder: Embedder, options: "ReembedOptions"
    ) -> "ReembedReport":
        """Move a base to an embedder while it goes on answering. See `ingest.reembed`."""
        from ingest.reembed import reembed

        report = reembed(self.database, base, embedder, options)
        view = self.retriever.view(base)
        view.delete_files(report.snapshots)
        view.save_if_worthwhile()
        return report

    def planned_base(self, name: str) -> KnowledgeBase:
        """Return what `create_base` would make, without making it: for a dry run."""
        from ingest.splitter import SPLITTER

        return KnowledgeBase(
            id="",
            name=check_name(name),
            embedder_id=0,
            embedder=self.embedder.spec,
            splitter=SPLITTER,
            fulltext=FULLTEXT,
            support_threshold=DEFAULT_SUPPORT_THRESHOLD,
            created_at="",
        )

    def delete_base(self, base: KnowledgeBase) -> None:
        """Delete a knowledge base with its index files, and blobs that nothing else uses."""
        import shutil

        with self.database.write() as session:
            delete_base(session, base)
        self.retriever.forget(base.id)
        shutil.rmtree(self.settings.home / "index" / base.id, ignore_errors=True)
        self.clean_up()

    def clean_up(self) -> None:
        """After a removal: drop blobs and versions that nothing uses, and unless a job may need
        them vectors."""
        with self.database.write() as session:
            drop_uncited_versions(session)
            if not is_any_job_live(session):
                sweep_embeddings(session)
        failpoint("documents.swept")
        with self.database.write() as session:
            self.blobs.drop_unused(session)


def _embedder(settings: Settings) -> Embedder:
    from ingest.installed import InstalledEmbedders

    return InstalledEmbedders(settings)


def chatglm_folder(settings: Settings) -> "Path | None":
    """Return the folder of the ChatGLM model that would answer, None if another answerer would.

    Raises:
        ConfigError: answerer=chatglm, and no model is in use.
        KBError: the setting `model` names one that is not installed.
    """
    if settings.answerer not in ("auto", "chatglm"):
        return None
    name = settings.model or model_in_use(settings.home)
    if name:
        try:
            return find_model(settings.home, name)
        except InvalidInputError as exc:
            raise ConfigError(f"the setting model (KB_MODEL) is no name: {name[:80]!r}") from exc
    if settings.answerer == "chatglm":
        raise ConfigError(
            "answerer=chatglm needs a model: `kb model pull chatglm3-6b`, `kb model add`, "
            "then `kb model use`"
        )
    return None


def _chat_answerer(settings: Settings, model: Any, **options: Any) -> Answerer:
    from kb.answers.chat import ChatAnswerer

    answerer: Answerer = ChatAnswerer(
        model,
        **{
            "context_tokens": settings.context_tokens,
            "max_new_tokens": settings.max_new_tokens,
            **options,
        },
    )
    return answerer


def _openai_answerer(settings: Settings) -> Answerer:
    if not settings.openai_model:
        raise ConfigError("answerer=openai needs the setting openai_model (KB_OPENAI_MODEL)")
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    model = ChatOpenAI(
        model=settings.openai_model,
        base_url=settings.openai_base_url,
        api_key=settings.openai_api_key or SecretStr("none"),
    )
    return _chat_answerer(settings, model, name=settings.openai_model, takes_seed=True)
