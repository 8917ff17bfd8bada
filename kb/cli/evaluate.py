"""`kb eval`: quality on question sets, through the real path.

Corpora go into a data folder of their own, ``$KB_HOME/eval``: as Markdown files below
``corpora/``, one per document with its title as heading, and from there into a knowledge base by
an ordinary sync. The next run finds them there and embeds nothing.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kb.cli.edge import Edge, json_option, pass_edge, print_json
from kb.cli.machine import print_machine
from kb.errors import InvalidInputError, KnowledgeBaseNotFoundError
from kb.evaluate import (
    CorpusDocument,
    Figures,
    Outcome,
    QuestionSet,
    Target,
    figures,
    find_sets,
    load_set,
    run,
    sample,
)

if TYPE_CHECKING:
    from kb.records import Answer, Hit, KnowledgeBase
    from kb.wiring import Services

# Columns of the table for people: heading, figure.
COLUMNS = (
    ("questions", "questions"),
    ("R@1", "recall@1"),
    ("R@5", "recall@5"),
    ("R@10", "recall@10"),
    ("MRR", "mrr@10"),
    ("EM", "answer_em"),
    ("F1", "answer_f1"),
    ("contains", "answer_contains"),
    ("ref.prec", "refusal_precision"),
    ("ref.rec", "refusal_recall"),
    ("false ref", "false_refusals"),
    ("cit.valid", "citation_valid"),
    ("cit.gold", "citation_gold"),
    ("p50 ms", "ms_per_question_p50"),
    ("p95 ms", "ms_per_question_p95"),
)


_ALL = 2**31 - 1  # documents


@click.command(epilog="Example:  kb eval QA_FOLDER --sets zh_cmrc,en_squad")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True))
@click.option(
    "--documents",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of files that the questions are about, in place of a corpus.jsonl.",
)
@click.option("--sets", help="Only these sets, separated by commas.")
@click.option("--limit", type=click.IntRange(1), help="At most this many questions per set.")
@json_option
@pass_edge
def evaluate(
    edge: Edge,
    folder: str,
    documents: Path | None,
    sets: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Measure retrieval, answers, refusals and citations on the question sets in DIR.

    DIR is one set (corpus.jsonl and questions.jsonl), a folder of sets, or a file of questions
    about --documents. Corpora are ingested into $KB_HOME/eval and kept there for the next run.
    """
    chosen = _chosen(find_sets(Path(folder)), sets)
    print_machine()
    measured: dict[str, Figures] = {}
    if not as_json:
        click.echo(_row("set", [heading for heading, _ in COLUMNS]))
    with _services(edge) as services:
        for path in chosen:
            questions = load_set(path, documents)
            measured[questions.name] = _measure(services, questions, limit)
            if not as_json:
                cells = [_cell(measured[questions.name][figure]) for _, figure in COLUMNS]
                click.echo(_row(questions.name, cells))
    if as_json:
        print_json({"sets": measured})


def _chosen(found: Sequence[Path], sets: str | None) -> list[Path]:
    if sets is None:
        return list(found)
    names = [name.strip() for name in sets.split(",") if name.strip()]
    by_name = {path.name: path for path in found}
    unknown = [name for name in names if name not in by_name]
    if unknown or not names:
        missing = ", ".join(unknown) or repr(sets)
        raise InvalidInputError("--sets", f"no set named {missing}; there are {', '.join(by_name)}")
    return [by_name[name] for name in names]


@contextmanager
def _services(edge: Edge) -> "Iterator[Services]":
    """Open services on ``$KB_HOME/eval`` with the embedder and answerer of the real ones."""
    from kb.wiring import Services

    settings = edge.settings.model_copy(update={"home": edge.settings.home / "eval"})
    real = edge.services
    with Services.open(settings, embedder=real.embedder, answerer=real.answerer) as services:
        yield services


def _measure(services: "Services", questions: QuestionSet, limit: int | None) -> Figures:
    base, doc_ids = _ingest(services, questions)
    asked = sample(questions.questions, limit)
    target = _target(services, base, doc_ids)
    outcomes: list[Outcome] = []
    with click.progressbar(length=len(asked), label=questions.name, file=sys.stderr) as bar:
        for outcome in run(asked, target):
            outcomes.append(outcome)
            bar.update(1)
    return figures(outcomes)


def _target(services: "Services", base: "KnowledgeBase", doc_ids: Mapping[str, str]) -> Target:
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


def _ingest(services: "Services", questions: QuestionSet) -> "tuple[KnowledgeBase, dict[str, str]]":
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
    from kb.storage.bases import change_base, find_base
    from kb.support import DEFAULT_SUPPORT_THRESHOLD
    from kb.terms import FULLTEXT

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


def _row(name: str, cells: Sequence[str]) -> str:
    return f"{name:18}" + "".join(f"{cell:>10}" for cell in cells)


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    return (
        str(value) if isinstance(value, int) else f"{value:.3f}" if value <= 1 else f"{value:.0f}"
    )
