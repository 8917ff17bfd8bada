"""Documents: upload, list, read, remove. An upload is answered at once; a job does the work."""

from typing import Annotated, Any, Literal

import anyio
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from api.content import open_content, pieces
from api.parts import Parts, PathBase, ServerParts
from api.schemas import document_json
from api.uploads import UploadReader, display_path, put_below
from ingest.jobs import UploadOptions
from kb.errors import InvalidInputError
from kb.records import KnowledgeBase
from kb.storage.bases import find_base, list_sources
from kb.storage.documents import (
    find_document,
    find_version,
    list_chunks,
    list_documents,
    remove_documents,
    version_pages,
    version_text,
)
from kb.storage.jobs import Job, create_job

router = APIRouter(prefix="/kb/{kb}/documents", tags=["documents"])

Status = Literal["ready", "empty", "failed", "stale"]


@router.post("", status_code=202)
async def upload(
    request: Request,
    base: PathBase,
    parts: ServerParts,
    prune: bool = False,
    root: str = "",
    yes: bool = False,
) -> dict[str, Any]:
    """Store files and queue a job that ingests them.

    The body is multipart/form-data with a field `files` for each; a file name may be a relative
    path. With `root`, the files are those of the folder ROOT, and with `prune` also the only ones:
    its other documents are removed, which asks for `yes` when it would remove more than half.
    """
    options = _options(root, prune, yes)
    await run_in_threadpool(parts.jobs.check, base)
    reader = UploadReader(request.headers.get("content-type", ""), parts.blobs)
    try:
        async for piece in request.stream():
            if piece:
                await run_in_threadpool(reader.write, piece)
        await run_in_threadpool(reader.finish)
        job = await run_in_threadpool(_queue, parts, base, reader, options)
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(reader.discard)
    parts.jobs.wake()
    return {"job": job.to_dict()}


@router.get("")
def list_some(
    base: PathBase,
    parts: ServerParts,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    status: Status | None = None,
    q: Annotated[str, Query(max_length=1000)] = "",
) -> dict[str, Any]:
    """List documents by path; `q` keeps those whose path holds it."""
    with parts.database.read() as session:
        documents, total = list_documents(
            session, base.id, status=status, name_contains=q, offset=offset, limit=limit
        )
        sources = {source.id: source for source in list_sources(session, base.id)}
    return {
        "documents": [document_json(d, sources[d.source_id]) for d in documents],
        "total": total,
    }


@router.get("/{document}")
def read(document: str, base: PathBase, parts: ServerParts) -> dict[str, Any]:
    """Return one document without its text."""
    with parts.database.read() as session:
        found = find_document(session, base, document)
        sources = {source.id: source for source in list_sources(session, base.id)}
    return document_json(found, sources[found.source_id])


@router.delete("/{document}", status_code=204)
def remove(document: str, base: PathBase, parts: ServerParts) -> Response:
    """Remove a document with all versions; stored answers that hold its text are redacted."""
    with parts.database.write() as session:
        found = find_document(session, base, document)
        remove_documents(session, base.id, [found.id])
    parts.clean_up()
    return Response(status_code=204)


@router.get("/{document}/text")
def text(
    document: str,
    base: PathBase,
    parts: ServerParts,
    version: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
) -> dict[str, Any]:
    """Return the stored text, which citations count their offsets in, and where pages begin.

    `version` asks for the text that a citation was made from; `superseded` says that the document
    has changed since. A version that no stored answer cites is gone: 404.
    """
    with parts.database.read() as session:
        found = find_document(session, base, document)
        version_id = find_version(session, found, version)
        return {
            "text": "" if version_id is None else version_text(session, version_id),
            "pages": [] if version_id is None else list(version_pages(session, version_id)),
            "version_id": version_id,
            "superseded": version_id != found.version_id,
        }


@router.get("/{document}/chunks")
def chunks(document: str, base: PathBase, parts: ServerParts) -> dict[str, Any]:
    """Return the document's chunks in order."""
    with parts.database.read() as session:
        found = list_chunks(session, find_document(session, base, document))
    return {
        "chunks": [
            {
                "position": chunk.position,
                "start": chunk.start,
                "end": chunk.end,
                "page": chunk.page,
                "heading": chunk.heading,
                "text": chunk.text,
            }
            for chunk in found
        ]
    }


@router.get("/{document}/content")
def content(document: str, base: PathBase, parts: ServerParts) -> StreamingResponse:
    """Return the original bytes, as a file to save; 409 when the file has changed since."""
    opened = open_content(parts.database, parts.blobs, base, document)
    return StreamingResponse(
        pieces(opened.file), media_type="application/octet-stream", headers=opened.headers()
    )


def _options(root: str, prune: bool, yes: bool) -> UploadOptions:
    folder = display_path(root)
    if root and not folder:
        raise InvalidInputError("root", "is not the name of a folder")
    if prune and not folder:
        raise InvalidInputError("prune", "needs `root`, the folder whose other documents may go")
    return UploadOptions(root=folder, prune=prune, yes=yes)


def _queue(parts: Parts, base: KnowledgeBase, reader: UploadReader, options: UploadOptions) -> Job:
    files = put_below(options.root, reader.files)
    parts.blobs.sync(reader.staged)
    with parts.database.write() as session:
        find_base(session, base.id)  # it may have been deleted while the files came in
        parts.blobs.adopt(reader.staged)
        return create_job(session, base.id, "upload", options=options.to_dict(), files=files)
