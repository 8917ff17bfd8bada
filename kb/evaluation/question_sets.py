"""Question sets as files: what `kb eval` reads.

A set is a folder with ``corpus.jsonl`` (``doc_id, title, text``) and ``questions.jsonl``
(``qid, question, answers, gold_doc_ids, lang, answerable, meta``). Questions about a folder of
files name them by ``gold_paths``, each the folder's name and the path in it, and need no corpus;
with ``any_gold`` one of them is enough.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kb.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class CorpusDocument:
    doc_id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class SetQuestion:
    """One question; `groups` are the parts of a right answer, alternatives inside each.

    Empty groups: the answer is free-form or there is none, and its text is not judged.
    """

    qid: str
    text: str
    lang: str
    is_answerable: bool
    gold_doc_ids: frozenset[str]
    groups: tuple[tuple[str, ...], ...]
    is_any_gold: bool = False


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """A named set. `corpus_hash` names the corpus: sets with the same one share it.

    A set about a folder of files has that `folder` and no `documents`.
    """

    name: str
    corpus_hash: str
    documents: tuple[CorpusDocument, ...]
    questions: tuple[SetQuestion, ...]
    folder: Path | None = None


def find_sets(folder: Path) -> list[Path]:
    """Return the set folders at or directly below `folder`, by name; a file is a set by itself.

    Raises:
        InvalidInputError: there is none.
    """
    if folder.is_file():
        return [folder]
    candidates = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    found = [path for path in candidates if (path / "questions.jsonl").is_file()]
    if not found:
        raise InvalidInputError(
            "DIR", f"{str(folder)!r} holds no set (a folder with corpus.jsonl and questions.jsonl)"
        )
    return found


def load_set(path: Path, documents: Path | None = None) -> QuestionSet:
    """Read one set.

    Args:
        path: its folder, or a file of questions about `documents`.
        documents: the folder of files that the questions are about, in place of a corpus.

    Raises:
        InvalidInputError: a file is missing or a line is not what the module says.
    """
    questions = path if path.is_file() else path / "questions.jsonl"
    try:
        asked = tuple(_question(row) for row in _rows(questions))
        if documents is not None:
            place = documents.resolve()
            digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:16]
            return QuestionSet(path.stem, digest, (), asked, place)
        corpus = path / "corpus.jsonl"
        digest = hashlib.sha256(corpus.read_bytes()).hexdigest()[:16]
        rows = tuple(
            CorpusDocument(str(row["doc_id"]), str(row.get("title") or ""), str(row["text"]))
            for row in _rows(corpus)
        )
    except OSError as exc:
        raise InvalidInputError(
            "DIR",
            f"cannot read the set {str(path)!r}: {exc}; questions about a folder of files need "
            "--documents FOLDER",
        ) from exc
    except (KeyError, TypeError, ValueError) as exc:
        raise InvalidInputError(
            "DIR", f"the set {str(path)!r} has a line of another form: {exc!r}"
        ) from exc
    return QuestionSet(path.name, digest, rows, asked)


def sample(questions: Sequence[SetQuestion], limit: int | None) -> Sequence[SetQuestion]:
    """Return at most `limit` questions, evenly spread over the set; always the same ones."""
    if limit is None or limit >= len(questions):
        return questions
    return [questions[i * len(questions) // limit] for i in range(limit)]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    # Lines end at "\n" only: some texts hold U+2028, at which str.splitlines would cut too.
    with path.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def _question(row: Mapping[str, Any]) -> SetQuestion:
    return SetQuestion(
        qid=str(row["qid"]),
        text=str(row["question"]),
        lang=str(row.get("lang", "")),
        is_answerable=bool(row["answerable"]),
        gold_doc_ids=frozenset(map(str, row.get("gold_doc_ids") or row.get("gold_paths", ()))),
        groups=_groups(row),
        is_any_gold=bool(row.get("any_gold")),
    )


def _groups(row: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    meta: Mapping[str, Any] = row.get("meta") or {}
    answers = [str(answer) for answer in row.get("answers", ()) if answer]
    if not row["answerable"] or not answers or meta.get("free_form"):
        return ()
    if meta.get("answer_groups"):
        return tuple(tuple(map(str, group)) for group in meta["answer_groups"])
    if meta.get("all_answers_required"):
        parts = meta.get("sub_answers") or [[answer] for answer in answers]
        return tuple(tuple(map(str, part)) for part in parts)
    return (tuple(answers),)
