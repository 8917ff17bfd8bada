"""Stored answers: how each was made."""

from typing import Any

from fastapi import APIRouter

from api.parts import ServerParts
from kb.storage.trace_reads import read_trace

router = APIRouter(prefix="/traces", tags=["questions"])


@router.get("/{trace}")
def read(trace: str, parts: ServerParts) -> dict[str, Any]:
    """Return how an answer was made: rewritten question, candidates, prompt, parameters.

    Of an answer that went with its document only the question and the times are left.
    """
    with parts.database.read() as session:
        return read_trace(session, trace).to_dict()
