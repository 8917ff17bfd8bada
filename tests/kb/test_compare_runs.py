"""Runs of `kb eval` are compared question by question; only what is beyond noise alarms."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from kb.errors import InvalidInputError
from kb.evaluation.compare_runs import compare, read_run
from kb.evaluation.eval_report import html_report
from kb.refusal.refusal_curve import auroc, curve


def run_of(hits: list[int], *, with_details: bool = True) -> dict[str, Any]:
    n = len(hits)
    measured: dict[str, Any] = {
        "questions": n,
        "recall@5": sum(hits) / n,
        "citation_valid": 1.0,
        "ms_per_question_p50": 20.0,
    }
    if with_details:
        measured["details"] = {
            "qid": [str(i) for i in range(n)],
            "question": [f"问 <{i}>？" for i in range(n)],
            "answerable": [1] * n,
            "recall@5": [float(hit) for hit in hits],
            "citation_valid": [1.0] * n,
            "support": [0.5] * n,
            "ms": [20.0 + i for i in range(n)],
        }
    return {"some set": measured}


def verdicts(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    return {d.figure: d.verdict for d in compare(before, after)}


def test_a_loss_beyond_noise_is_worse_and_the_same_loss_mixed_with_gains_is_not() -> None:
    before = [1] * 60 + [0] * 40
    lost = [0] * 12 + [1] * 48 + [0] * 40
    mixed = [0] * 12 + [1] * 48 + [1] * 10 + [0] * 30

    assert verdicts(run_of(before), run_of(lost))["recall@5"] == "worse"
    assert verdicts(run_of(lost), run_of(before))["recall@5"] == "better"
    assert verdicts(run_of(before), run_of(mixed))["recall@5"] == "same"
    assert verdicts(run_of(before), run_of(before))["recall@5"] == "same"


def test_runs_without_details_are_compared_with_wider_bounds() -> None:
    before, after = [1] * 60 + [0] * 40, [1] * 48 + [0] * 52

    (paired,) = (d for d in compare(run_of(before), run_of(after)) if d.figure == "recall@5")
    (unpaired,) = (
        d
        for d in compare(run_of(before, with_details=False), run_of(after, with_details=False))
        if d.figure == "recall@5"
    )

    assert paired.low is not None
    assert unpaired.low is not None
    assert unpaired.low < paired.low
    assert (paired.verdict, unpaired.verdict) == ("worse", "same")


def test_any_invalid_citation_is_worse_and_slowness_is_not() -> None:
    before, after = run_of([1] * 100), run_of([1] * 100)
    after["some set"]["citation_valid"] = 0.999
    after["some set"]["details"]["citation_valid"][3] = 0.9
    after["some set"]["ms_per_question_p50"] = 900.0

    found = verdicts(before, after)

    assert found["citation_valid"] == "worse"
    assert found["ms_per_question_p50"] == "not judged"


def test_a_separation_that_falls_to_chance_is_worse() -> None:
    before = run_of([1] * 80)
    details = before["some set"]["details"]
    details["answerable"] = [1] * 40 + [0] * 40
    details["support"] = [0.9] * 40 + [0.1] * 40
    before["some set"]["auroc"] = 1.0
    after = copy.deepcopy(before)
    after["some set"]["auroc"] = 0.5
    after["some set"]["details"]["support"] = [0.4] * 80

    assert verdicts(before, after)["auroc"] == "worse"


@pytest.mark.parametrize("text", ["", "[]", '{"sets": [1]}', '{"sets": {"a": 1}}', "{}"])
def test_a_file_that_is_no_run_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)

    with pytest.raises(InvalidInputError, match="no output of `kb eval --json`"):
        read_run(tmp_path / "run.json")


def test_curve_and_separation() -> None:
    answerable, unanswerable = [0.2, 0.6, 0.8, 0.9], [0.1, 0.2, 0.5]

    assert auroc(answerable, unanswerable) == pytest.approx(10.5 / 12)
    assert auroc([], unanswerable) is None
    at = {p.threshold: p for p in curve(answerable, unanswerable)}
    assert (at[0.5].answerable_refused, at[0.5].unanswerable_refused) == (0.25, 0.6667)


def test_the_report_is_whole_escaped_and_calls_nobody() -> None:
    measured = run_of([1, 0, 1])["some set"]
    measured["recall@1"], measured["recall@10"] = 0.5, 1.0
    measured["refusal_curve"] = [p.to_list() for p in curve([0.5, 0.7], [0.2])]

    report = html_report({"集<b>": measured}, machine="a & b", threshold=0.3)

    assert "集&lt;b&gt;" in report
    assert "<td>问 &lt;2&gt;？</td>" in report
    assert "<b>" not in report
    assert "a &amp; b" in report
    assert report.count("<svg") == report.count("</svg>") == 3
    assert re.findall(r"https?://|src=|<script|url\(", report) == []
    assert "nan" not in report


def test_the_report_takes_a_set_that_shows_nothing() -> None:
    report = html_report({"empty": {"questions": 0, "recall@1": None}}, machine="", threshold=0.3)

    assert "<svg" not in report
    assert json.dumps(report)


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"cannot read .*No such file"):
        read_run(tmp_path / "none.json")


@pytest.mark.parametrize("damage", [{"questions": "a"}, {"details": 5}])
def test_a_stored_run_of_another_form_is_refused(damage: dict[str, object]) -> None:
    after = run_of([1] * 8)
    before = copy.deepcopy(after)
    del before["some set"]["details"]
    before["some set"] |= damage

    with pytest.raises(InvalidInputError, match="can be compared"):
        compare(before, after)
