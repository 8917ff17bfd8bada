"""What users think of answers: a thumb up or down, with a comment."""

from fastapi import APIRouter, Response

from api.parts import ServerParts
from api.schemas import FeedbackBody
from kb.storage.bases import now
from kb.storage.feedback import forget_rating, rate_answer

router = APIRouter(prefix="/traces/{trace}/feedback", tags=["questions"])


@router.put("", status_code=204)
def rate(trace: str, body: FeedbackBody, parts: ServerParts) -> Response:
    """Rate an answer by the `trace_id` that came with it; a second rating replaces the first.

    Costs one small transaction, no model. `kb feedback export` makes a question set of ratings.
    """
    with parts.database.write() as session:
        rate_answer(session, trace, body.rating, body.comment, created_at=now())
    return Response(status_code=204)


@router.delete("", status_code=204)
def take_back(trace: str, parts: ServerParts) -> Response:
    """Take a rating back; also where there is none."""
    with parts.database.write() as session:
        forget_rating(session, trace)
    return Response(status_code=204)
