"""How the server is: up, ready, how much it has done, and who answers."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse
from sqlalchemy import func, select

from api.errors import RETRY_AFTER_S, error_body
from api.metrics import CONTENT_TYPE
from api.parts import ServerParts
from kb import __version__
from kb.storage.jobs import count_jobs
from kb.storage.tables import ChunkRow, DocumentRow, KnowledgeBaseRow

router = APIRouter(tags=["status"])

# What the page and scripts say about each kind of answerer.
NOTES = {
    "extractive": (
        "未安装聊天模型：答案由文档中的原句组成，并注明出处。"
        "要安装模型，请运行 kb model pull chatglm3-6b，完成后按它的提示运行 kb model add。",
        "No chat model is installed: answers are sentences quoted from the documents. To install "
        "one, run kb model pull chatglm3-6b, then kb model add as it says.",
    ),
    "": (
        "答案由聊天模型根据文档生成，并由服务器逐句核对出处。",
        "Answers are written by a chat model from the documents; the server checks the citations.",
    ),
}


@router.get("/health")
async def health() -> dict[str, str]:
    """Say that the process is up; touches nothing."""
    return {"status": "ok"}


@router.get("/ready", response_model=None)
async def ready(parts: ServerParts) -> JSONResponse:
    """Say whether models and indexes are loaded; 503 until then."""
    if parts.readiness.is_ready:
        return JSONResponse({"status": "ready"})
    problem = parts.readiness.problem or "models and indexes are being loaded"
    wait = RETRY_AFTER_S if parts.readiness.problem else 2
    return JSONResponse(error_body("NotReadyError", problem), 503, {"Retry-After": str(wait)})


@router.get("/metrics")
def metrics(parts: ServerParts) -> PlainTextResponse:
    """Return counters for Prometheus."""
    with parts.database.read() as session:
        n_bases, n_documents, n_chunks = (
            session.scalar(select(func.count()).select_from(table)) or 0
            for table in (KnowledgeBaseRow, DocumentRow, ChunkRow)
        )
        jobs = count_jobs(session)
    gauges: dict[str, tuple[str, float]] = {
        "kb_knowledge_bases": ("Knowledge bases.", n_bases),
        "kb_documents": ("Documents, failed ones included.", n_documents),
        "kb_chunks": ("Chunks that can be found.", n_chunks),
        "kb_jobs_waiting": ("Jobs queued.", jobs.get("queued", 0)),
        "kb_jobs_running": ("Jobs running.", jobs.get("running", 0)),
    }
    return PlainTextResponse(parts.metrics.render(gauges), media_type=CONTENT_TYPE)


@router.get("/info")
def info(parts: ServerParts) -> dict[str, Any]:
    """Return the version, who writes the answers, and how much one upload may hold."""
    model = parts.chain.answerer.model
    note_zh, note_en = NOTES.get(model, NOTES[""])
    return {
        "version": __version__,
        "answerer": {"model": model, "note_zh": note_zh, "note_en": note_en},
        "max_upload_bytes": parts.settings.max_upload_mb * 2**20,
    }
