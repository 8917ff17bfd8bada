"""The web page and its files, as they are in the package `webui`."""

import mimetypes
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

from api.errors import HTTPError
from webui import STATIC

router = APIRouter(include_in_schema=False)

INDEX = "index.html"
# Some systems have no or other types for these; with `nosniff` a browser then refuses the file.
TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}


@router.get("/")
@router.head("/")
def page() -> FileResponse:
    path = STATIC / INDEX
    if not path.is_file():
        raise HTTPError(404, "NotFoundError", "the page is not part of this installation")
    return FileResponse(path, media_type="text/html; charset=utf-8")


def static_files(folder: Path = STATIC) -> StaticFiles:
    """Return the application that serves the page's files, and no others."""
    for ending, type_ in TYPES.items():
        mimetypes.add_type(type_, ending)
    return StaticFiles(directory=folder, check_dir=False)
