"""`kb eval`: quality on question sets, through the real path (`kb.cli.eval_target`)."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kb.cli.edge import Edge, json_option, pass_edge, print_json
from kb.cli.eval_target import eval_services, ingest_set, target_of
from kb.cli.machine import machine_line, print_machine
from kb.errors import InvalidInputError
from kb.evaluation.compare_runs import Difference, compare, read_run
from kb.evaluation.eval_report import html_report
from kb.evaluation.evaluate import Outcome, details, figures, refusal_curve, run
from kb.evaluation.question_sets import QuestionSet, find_sets, load_set, sample

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
    ("AUROC", "auroc"),
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
@click.option(
    "--compare",
    "stored",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A stored --json run: print what differs; exit 1 if a figure is worse beyond noise.",
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Also write a report with plots to this file.",
)
@json_option
@pass_edge
def evaluate(
    edge: Edge,
    folder: str,
    documents: Path | None,
    sets: str | None,
    limit: int | None,
    stored: Path | None,
    html: Path | None,
    as_json: bool,
) -> int:
    """Measure retrieval, answers, refusals and citations on the question sets in DIR.

    DIR is one set (corpus.jsonl and questions.jsonl), a folder of sets, or a file of questions
    about --documents. Corpora are ingested into $KB_HOME/eval and kept there for the next run.
    """
    chosen = _chosen(find_sets(Path(folder)), sets)
    before = read_run(stored) if stored else None
    print_machine()
    measured: dict[str, dict[str, Any]] = {}
    if not as_json:
        click.echo(_row("set", [heading for heading, _ in COLUMNS]))
    with eval_services(edge) as services:
        for path in chosen:
            questions = load_set(path, documents)
            measured[questions.name] = _measure(services, questions, limit)
            if not as_json:
                cells = [_cell(measured[questions.name][figure]) for _, figure in COLUMNS]
                click.echo(_row(questions.name, cells))
    if html:
        _write_report(html, measured)
    differences = compare(before, measured) if before is not None else []
    if as_json:
        result: dict[str, Any] = {"sets": measured}
        if before is not None:
            result["comparison"] = [difference.to_dict() for difference in differences]
        print_json(result)
    elif before is not None:
        _print_differences(differences)
    worse = [d for d in differences if d.verdict == "worse"]
    if worse:
        names = ", ".join(f"{d.set_name} {d.figure}" for d in worse)
        click.echo(f"kb: worse than the stored run beyond noise: {names}", err=True)
    return 1 if worse else 0


def _write_report(path: Path, measured: Mapping[str, Mapping[str, Any]]) -> None:
    from kb.refusal.support import DEFAULT_SUPPORT_THRESHOLD

    report = html_report(measured, machine=machine_line(), threshold=DEFAULT_SUPPORT_THRESHOLD)
    try:
        path.write_text(report, encoding="utf-8")
    except OSError as exc:
        raise InvalidInputError("--html", f"cannot write {str(path)!r} ({exc.strerror})") from exc
    click.echo(f"report: {path}", err=True)


def _print_differences(differences: Sequence[Difference]) -> None:
    """Print what changed, worst news first; figures that are the same are counted only."""
    order = {"worse": 0, "better": 1, "same": 2, "not judged": 3}
    changed = [d for d in differences if d.before != d.after]
    click.echo("")
    for d in sorted(changed, key=lambda d: order[d.verdict]):
        bounds = "" if d.low is None else f"  [{d.low:+.3f}, {d.high:+.3f}]"
        click.echo(
            f"{d.verdict:11}{d.set_name:18}{d.figure:22}{_cell(d.before):>8} -> "
            f"{_cell(d.after):<8}{d.after - d.before:+.3f}{bounds}"
        )
    click.echo(f"{len(differences) - len(changed)} figures are exactly as before")


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


def _measure(services: "Services", questions: QuestionSet, limit: int | None) -> dict[str, Any]:
    base, doc_ids = ingest_set(services, questions)
    _check_gold(questions, set(doc_ids.values()))
    asked = sample(questions.questions, limit)
    target = target_of(services, base, doc_ids)
    outcomes: list[Outcome] = []
    with click.progressbar(length=len(asked), label=questions.name, file=sys.stderr) as bar:
        for outcome in run(asked, target):
            outcomes.append(outcome)
            bar.update(1)
    return {
        **figures(outcomes),
        "refusal_curve": [point.to_list() for point in refusal_curve(outcomes)],
        "details": details(outcomes),
    }


def _check_gold(questions: QuestionSet, there: set[str]) -> None:
    """Refuse documents among which no question could find its own: most likely another folder."""
    gold = sorted({id_ for question in questions.questions for id_ in question.gold_doc_ids})
    if questions.folder and gold and there.isdisjoint(gold):
        raise InvalidInputError(
            "--documents",
            f"{str(questions.folder)!r} holds none of the files that the questions name, such as "
            f"{gold[0]!r}; give the folder whose name these paths begin with",
        )


def _row(name: str, cells: Sequence[str]) -> str:
    return f"{name:18}" + "".join(f"{cell:>10}" for cell in cells)


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    return (
        str(value) if isinstance(value, int) else f"{value:.3f}" if value <= 1 else f"{value:.0f}"
    )
