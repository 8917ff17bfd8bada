"""The system under test of `kb eval`: a corpus in a knowledge base, through the real path.

Corpora go into a data folder of their own, ``$KB_HOME/eval``: as Markdown files below
``corpora/``, one per document with its title as heading, and from there into a knowledge base by
an ordinary sync. The next run finds them there and embeds nothing.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kb.cli.edge import Edge
from kb.errors import KnowledgeBaseNotFoundError
from kb.evaluation.evaluate import Target
from kb.evaluation.question_sets import CorpusDocument, QuestionSet

if TYPE_CHECKING:
    from kb.records import Answer, Hit, KnowledgeBase
    from kb.wiring import Services

_ALL = 2**31 - 1  # documents


@contextmanager
def eval_services(edge: Edge) -> "Iterator[Services]":
    """Open services on ``$KB_HOME/eval`` with the embedder and answerer of the real ones."""
    from kb.wiring import Services

    settings = edge.settings.model_copy(update={"home": edge.settings.home / "eval"})
    real = edge.services
    with Services.open(settings, embedder=real.embedder, answerer=real.answerer) as services:
        yield services


def target_of(services: "Services", base: "KnowledgeBase", doc_ids: Mapping[str, str]) -> Target:
    """Return the base as what `kb.evaluation.evaluate.run` asks."""
    from sqlalchemy.exc import NoResultFound

    from kb.records import Question
    from kb.storage.documents import version_text

    def search(text: str, top_k: int) -> "Sequence[Hit]":
        return services.retriever.search(Question(text, (base.id,), top_k)).hits

    def ask(text: str) -> "Answer":
        return services.chain.invoke(Question(text, (base.id,), services.settings.top_k))

    def stored_text(version_id: int) -> str | None:
        with services.database.read() as session:
            try:
                return version_text(session, version_id)
            except NoResultFound:
                return None

    return Target(search=search, ask=ask, stored_text=stored_text, doc_ids=doc_ids)


def ingest_set(
    services: "Services", questions: QuestionSet
) -> "tuple[KnowledgeBase, dict[str, str]]":
    """Sync the corpus into its knowledge base; return it and doc_ids by document id."""
    from ingest.sync import SyncOptions, sync_folders
    from kb.storage.documents import list_documents

    base = _open_base(services, questions)
    folder = questions.folder or _write_corpus(services.settings.home / "corpora", questions)
    click.echo(f"{questions.name}: ingesting {str(folder)!r}", err=True)
    sync_folders(services.sync_parts, base, [folder], SyncOptions(yes=True))
    _drop_outdated(services, questions, keep=base)
    with services.database.read() as session:
        documents, _ = list_documents(session, base.id, offset=0, limit=_ALL)
    if questions.folder:
        return base, {d.id: f"{questions.folder.name}/{d.path}" for d in documents}
    doc_id_of = dict(zip(_file_names(questions.documents), questions.documents, strict=True))
    return base, {document.id: doc_id_of[document.path].doc_id for document in documents}


def _open_base(services: "Services", questions: QuestionSet) -> "KnowledgeBase":
    """Return the corpus's base as this version would create it; its name tells the versions."""
    from ingest.splitter import SPLITTER
    from kb.refusal.support import DEFAULT_SUPPORT_THRESHOLD
    from kb.storage.bases import change_base, find_base
    from kb.text.terms import FULLTEXT

    versions = "\n".join((services.embedder.spec.identity, SPLITTER, FULLTEXT))
    digest = hashlib.sha256(versions.encode()).hexdigest()[:8]
    name = f"{_base_prefix(questions)}{digest}"
    try:
        with services.database.read() as session:
            base = find_base(session, name)
    except KnowledgeBaseNotFoundError:
        return services.create_base(name)
    with services.database.write() as session:
        return change_base(session, base, support_threshold=DEFAULT_SUPPORT_THRESHOLD)


def _drop_outdated(services: "Services", questions: QuestionSet, keep: "KnowledgeBase") -> None:
    """Delete the corpus's bases of other versions, now that their vectors have been reused."""
    from kb.storage.bases import list_bases

    with services.database.read() as session:
        bases = list_bases(session)
    for base in bases:
        if base.name.startswith(_base_prefix(questions)) and base.id != keep.id:
            services.delete_base(base)


def _base_prefix(questions: QuestionSet) -> str:
    return f"corpus {questions.corpus_hash} "


def _write_corpus(parent: Path, questions: QuestionSet) -> Path:
    """Write the corpus as Markdown files unless it is there; whole or not at all."""
    folder = parent / questions.corpus_hash
    if folder.is_dir():
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=parent))
    try:
        for name, document in zip(
            _file_names(questions.documents), questions.documents, strict=True
        ):
            title = " ".join(document.title.split())
            heading = f"# {title}\n\n" if title else ""
            (part / name).write_text(heading + document.text, encoding="utf-8", newline="\n")
        os.replace(part, folder)
    except BaseException:  # also Ctrl-C: a half-written folder must not stay
        shutil.rmtree(part, ignore_errors=True)
        raise
    return folder


def _file_names(documents: Sequence[CorpusDocument]) -> list[str]:
    """Name files by position: a doc_id may hold anything."""
    return [f"{position:06}.md" for position in range(len(documents))]
