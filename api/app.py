"""The application: parts, routes and layers put together. The only file here that knows wiring.

Observe ── headers, counts, bugs become a 500 with an id
  Guard ── Host, Origin, key
    BodyLimit ── 413
      routes
"""

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool

from api.errors import install_error_handlers
from api.limits import BodyLimit, Slots
from api.observe import Observe
from api.parts import Parts, Readiness
from api.routes import ask, bases, chatglm, documents, feedback, jobs, openai, page, status, traces
from api.security import AccessRules, Guard
from ingest.jobs import JobRunner
from kb.config import Settings
from kb.errors import KBError
from kb.records import KnowledgeBase
from kb.storage.bases import list_bases
from kb.text.terms import query_terms
from kb.wiring import Services

logger = logging.getLogger(__name__)

# Questions answered at once. The server has 40 worker threads; the rest stay free for reading.
MAX_ANSWERS = 16

ROUTERS = tuple(
    module.router
    for module in (status, bases, documents, jobs, ask, feedback, traces, openai, chatglm, page)
)


def create_app(services: Services, settings: Settings | None = None) -> FastAPI:
    """Return the application over open services, which stay the caller's to close.

    While it runs it works on upload jobs, those of an earlier run first.

    Args:
        services: the data folder and what works on it.
        settings: in place of the services' own, where flags of the command line changed some.

    Raises:
        ConfigError: the settings name a chat model that cannot be used.
    """
    settings = settings or services.settings
    parts = _parts(services, settings)
    app = FastAPI(
        title="Local knowledge base",
        lifespan=lambda _app: _running(services, parts),
        # A redirect would answer a name such as "..%2F" with another address.
        redirect_slashes=False,
        # FastAPI's own pages load scripts from elsewhere. /openapi.json stays.
        docs_url=None,
        redoc_url=None,
        # Newer versions can export traces when the environment asks for it; we never do.
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
    )
    app.state.parts = parts
    install_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", page.static_files(), name="static")
    # Added from the inside out.
    app.add_middleware(BodyLimit, max_upload_bytes=settings.max_upload_mb * 2**20)
    app.add_middleware(Guard, rules=AccessRules.of(settings))
    app.add_middleware(Observe, metrics=parts.metrics)
    return app


def _parts(services: Services, settings: Settings) -> Parts:
    def after_job(base: KnowledgeBase) -> None:
        services.retriever.view(base).save_if_worthwhile()
        services.clean_up()

    return Parts(
        settings=settings,
        database=services.database,
        blobs=services.blobs,
        chain=services.chain,
        jobs=JobRunner(
            services.database, services.blobs, lambda: services.sync_parts, after_job=after_job
        ),
        create_base=services.create_base,
        delete_base=services.delete_base,
        clean_up=services.clean_up,
        slots=Slots(MAX_ANSWERS),
    )


@asynccontextmanager
async def _running(services: Services, parts: Parts) -> AsyncIterator[None]:
    """What happens besides requests: upload jobs are worked on, models and indexes loaded."""
    parts.jobs.start()
    threading.Thread(
        target=_warm, args=(services, parts.readiness), name="warm-up", daemon=True
    ).start()
    try:
        yield
    finally:
        await run_in_threadpool(parts.jobs.stop)


def _warm(services: Services, readiness: Readiness) -> None:
    """Load what answers need, so that the first question does not wait for it."""
    try:
        query_terms("知识库就绪")  # the dictionary of Chinese words
        with services.database.read() as session:
            bases = list_bases(session)
        for base in bases:
            services.retriever.open(base)
            embedder = services.embedder.matching(base.embedder)
            if embedder is not None:  # else it is searched by full text, and each answer says so
                embedder.embed_query("ready")
        if not bases:
            services.embedder.embed_query("ready")
    except KBError as exc:
        logger.warning("not ready: %s", exc)
        readiness.finish(str(exc))
    except Exception:  # a thread of its own: libraries of models raise anything, /ready says so
        logger.exception("not ready")
        readiness.finish("models or indexes cannot be loaded; the server's log says more")
    else:
        readiness.finish()
