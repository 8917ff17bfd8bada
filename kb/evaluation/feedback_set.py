"""Rated answers as a question set that `kb eval` reads: what users found right must stay right.

An answer with a thumb up gives a question whose gold documents are those it cites; a refusal with
one gives a question without an answer. Thumbs down tell that an answer is wrong, not what is
right, so they stand apart, unjudged. The corpus is the base's documents.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.exc import NoResultFound

from kb.errors import InvalidInputError
from kb.records import Document, KnowledgeBase
from kb.storage.database import Database
from kb.storage.documents import list_documents, version_text
from kb.storage.feedback import RatedAnswer, rated_answers
from kb.text.terms import has_han

_ALL = 2**31 - 1  # documents


@dataclass(frozen=True, slots=True)
class Exported:
    """How much was written: documents, questions that can be judged, and those that cannot."""

    documents: int
    questions: int
    unjudged: int


def export_feedback(database: Database, base: KnowledgeBase, folder: Path) -> Exported:
    """Write ``corpus.jsonl``, ``questions.jsonl`` and ``unjudged.jsonl`` to a new `folder`.

    Of a question rated twice the last rating counts.

    Raises:
        InvalidInputError: the folder exists and is not empty, cannot be written, or no answer of
            the base has a thumb up.
    """
    with database.read() as session:
        rated = {answer.question: answer for answer in rated_answers(session, base.id)}
        documents = [
            d for d in list_documents(session, base.id, offset=0, limit=_ALL)[0] if d.n_chunks
        ]
    judged = [_judged(answer) for answer in rated.values() if answer.rating == "up"]
    judged = [row for row in judged if row["gold_doc_ids"] or not row["answerable"]]
    unjudged = [_unjudged(answer) for answer in rated.values() if answer.rating == "down"]
    if not judged:
        raise InvalidInputError(
            "kb", f"no answer of {base.name!r} has a thumb up yet; rate answers on the page"
        )

    def corpus() -> Iterator[dict[str, Any]]:
        for document in documents:
            text = _text(database, document)
            if text is None:
                continue
            yield {
                "doc_id": document.id,
                "title": document.path,
                "text": text,
                "lang": _language(text),
            }

    try:
        _write(folder, {"corpus": corpus(), "questions": judged, "unjudged": unjudged})
    except OSError as exc:
        raise InvalidInputError(
            "DIR", f"cannot write {str(folder)!r} ({exc.strerror}); name a new folder"
        ) from exc
    return Exported(len(documents), len(judged), len(unjudged))


def _write(folder: Path, files: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    """Write all files or none: into a folder beside it, renamed at the end."""
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".export-"))
    try:
        for name, rows in files.items():
            with (part / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
                for row in rows:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
        os.replace(part, folder)  # takes the place of an empty folder only
    except BaseException:  # also Ctrl-C: no half-written set
        shutil.rmtree(part, ignore_errors=True)
        raise


def _judged(answer: RatedAnswer) -> dict[str, Any]:
    return {
        "qid": answer.trace_id,
        "question": answer.question,
        "answers": [],
        "gold_doc_ids": [] if answer.refused else list(answer.cited),
        "any_gold": True,
        "lang": _language(answer.question),
        "answerable": not answer.refused,
        "meta": {"type": "feedback", "comment": answer.comment, "rated_at": answer.created_at},
    }


def _unjudged(answer: RatedAnswer) -> dict[str, Any]:
    return {
        "qid": answer.trace_id,
        "question": answer.question,
        "refused": answer.refused,
        "cited_doc_ids": list(answer.cited),
        "shown_doc_ids": list(answer.shown),
        "lang": _language(answer.question),
        "comment": answer.comment,
        "rated_at": answer.created_at,
    }


def _text(database: Database, document: Document) -> str | None:
    """Return the document's text, None if it changed or went since it was listed."""
    with database.read() as session:
        try:
            return version_text(session, document.version_id) if document.version_id else None
        except NoResultFound:
            return None


def _language(text: str) -> str:
    return "zh" if has_han(text[:2000]) else "en"
