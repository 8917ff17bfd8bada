"""`kb eval`: quality on question sets, through the real path (`kb.cli.eval_target`)."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kb.cli.edge import Edge, json_option, pass_edge, print_json
from kb.cli.eval_target import eval_services, ingest_set, target_of
from kb.cli.machine import print_machine
from kb.errors import InvalidInputError
from kb.evaluate import (
    Figures,
    Outcome,
    QuestionSet,
    figures,
    find_sets,
    load_set,
    run,
    sample,
)

if TYPE_CHECKING:
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
    with eval_services(edge) as services:
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


def _measure(services: "Services", questions: QuestionSet, limit: int | None) -> Figures:
    base, doc_ids = ingest_set(services, questions)
    asked = sample(questions.questions, limit)
    target = target_of(services, base, doc_ids)
    outcomes: list[Outcome] = []
    with click.progressbar(length=len(asked), label=questions.name, file=sys.stderr) as bar:
        for outcome in run(asked, target):
            outcomes.append(outcome)
            bar.update(1)
    return figures(outcomes)


def _row(name: str, cells: Sequence[str]) -> str:
    return f"{name:18}" + "".join(f"{cell:>10}" for cell in cells)


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    return (
        str(value) if isinstance(value, int) else f"{value:.3f}" if value <= 1 else f"{value:.0f}"
    )
