"""Knowledge bases: list, create, read, change, delete. No model is used here."""

from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from api.parts import PathBase, ServerParts
from api.schemas import ChangeBaseBody, CreateBaseBody, base_json
from kb.records import KnowledgeBase
from kb.storage.bases import change_base, count_base, list_bases

router = APIRouter(tags=["knowledge bases"])


@router.get("/kb")
def list_all(parts: ServerParts) -> dict[str, Any]:
    """List all knowledge bases by name, with what each holds."""
    with parts.database.read() as session:
        return {"kbs": [_json(session, base) for base in list_bases(session)]}


@router.post("/kb", status_code=201)
def create(body: CreateBaseBody, parts: ServerParts) -> dict[str, Any]:
    """Create an empty knowledge base; 409 when the name is taken."""
    base = parts.create_base(body.name)
    with parts.database.read() as session:
        return _json(session, base)


@router.get("/kb/{kb}")
def read(base: PathBase, parts: ServerParts) -> dict[str, Any]:
    """Return one knowledge base by id or name."""
    with parts.database.read() as session:
        return _json(session, base)


@router.patch("/kb/{kb}")
def change(base: PathBase, body: ChangeBaseBody, parts: ServerParts) -> dict[str, Any]:
    """Rename a knowledge base or set the support below which questions are refused."""
    with parts.database.write() as session:
        changed = change_base(
            session, base, name=body.name, support_threshold=body.support_threshold
        )
        return _json(session, changed)


@router.delete("/kb/{kb}", status_code=204)
def delete(base: PathBase, parts: ServerParts) -> Response:
    """Delete a knowledge base with everything in it; stored answers that used it are redacted."""
    parts.delete_base(base)
    return Response(status_code=204)


def _json(session: Session, base: KnowledgeBase) -> dict[str, Any]:
    return base_json(base, count_base(session, base.id))
