"""The web page: static files that talk to the HTTP API, with no build step.

This package holds no logic in Python; `api/` serves `STATIC` and decides the headers.
"""

from pathlib import Path

STATIC: Path = Path(__file__).resolve().parent / "static"
