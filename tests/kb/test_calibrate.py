"""Calibration fits a base's threshold on questions made from it, and changes nothing else."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from kb.errors import InvalidInputError
from kb.records import KnowledgeBase, Question
from kb.refusal.calibrate import BOUNDS, _chosen, calibrate, left_out
from kb.storage.bases import calibration_report, change_base, find_base
from kb.wiring import Services
from tests.building import add_document, make_base, open_services
from tests.kb.test_cli import Shell

SUBJECTS = ["水泵", "阀门", "锅炉", "电机", "风扇", "滤网", "轴承", "齿轮", "皮带", "仪表"]
PLACES = ["南厂", "北厂", "东楼", "西楼", "仓库", "码头", "实验室", "车库"]
ENGLISH = ["turbine", "kiln", "lathe", "crane", "boiler", "press", "furnace", "dryer"]


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with open_services(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def base(services: Services) -> KnowledgeBase:
    base = make_base(services.database)
    rng = random.Random(1)
    for n in range(60):
        subject, place = rng.choice(SUBJECTS), rng.choice(PLACES)
        machine, hours = rng.choice(ENGLISH), rng.randrange(100, 9000)
        text = (
            f"{place}的{subject}由第{n}班组负责维护，每隔{hours}小时检查一次润滑情况。"
            f"The {machine} number {n} in hall {hours} was delivered by team {place} last winter."
        )
        add_document(services.database, base, f"{n}.txt", [text])
    return base


def test_the_measured_threshold_and_its_curve_are_stored(
    services: Services, base: KnowledgeBase, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = Shell(services, capsys).json("calibrate", "--kb", "test")

    with services.database.read() as session:
        stored, report = find_base(session, "test"), calibration_report(session, base.id)
    assert report == {key: value for key, value in printed.items() if key != "kb"}
    assert stored.support_threshold == printed["threshold"]
    assert BOUNDS[0] <= printed["threshold"] <= BOUNDS[1]
    assert stored.channel_weights == printed["channel_weights"]
    assert printed["questions"]["unanswerable"] == 2 * printed["questions"]["answerable"]
    answerable = [point[1] for point in printed["curve"]]
    assert answerable == sorted(answerable)
    assert printed["held_out"]["refusal_recall"] > printed["held_out"]["false_refusals"]


def test_the_last_measurement_can_be_shown_again(
    services: Services, base: KnowledgeBase, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(services, capsys)
    never, _ = shell("calibrate", "--kb", "test", "--show")
    hint = shell.err
    measured = shell.json("calibrate", "--kb", "test")

    assert never == 1
    assert "kb calibrate --kb test" in hint
    assert shell.json("calibrate", "--kb", "test", "--show") == measured
    _, printed = shell("calibrate", "--kb", "test", "--show")
    assert f"-> {measured['threshold']:g}" in printed
    assert measured["measured_at"] in printed


def test_the_same_base_gives_the_same_figures_wherever_its_threshold_was(
    services: Services, base: KnowledgeBase
) -> None:
    first = calibrate(services.database, services.retriever, base)
    with services.database.write() as session:
        moved = change_base(session, base, support_threshold=0.99)

    second = calibrate(services.database, services.retriever, moved)

    assert (first.threshold, second.before, second.threshold) == (
        first.threshold,
        0.99,
        first.threshold,
    )


def test_a_smaller_target_never_refuses_more(services: Services, base: KnowledgeBase) -> None:
    strict = calibrate(services.database, services.retriever, base, target=0.3)
    lenient = calibrate(services.database, services.retriever, base, target=0.0)

    assert lenient.threshold <= strict.threshold


def test_the_threshold_lies_between_the_two_kinds() -> None:
    assert 0.4 < _chosen([0.5, 0.6, 0.9], [0.1, 0.2, 0.4], 0.1, 0.3) <= 0.5
    assert 0.2 < _chosen([0.25, 0.3, 0.9], [0.1, 0.2, 0.2], 0.1, 0.3) <= 0.26
    assert _chosen([0.01] * 10, [0.01] * 10, 0.1, 0.3) == BOUNDS[0]


def test_a_threshold_that_does_as_well_stays() -> None:
    assert _chosen([0.5, 0.6, 0.9], [0.1, 0.2, 0.2], 0.1, 0.3) == 0.3


def test_a_document_is_left_out_of_hits_and_frequencies(
    services: Services, base: KnowledgeBase
) -> None:
    found = services.retriever.search(Question("turbine number 7 in hall", (base.id,), 5))
    document = found.hits[0].chunk.document_id

    hits, stats = left_out(found.hits, found.stats, document)

    assert document not in {hit.chunk.document_id for hit in hits}
    assert stats.n_chunks == found.stats.n_chunks - 1
    assert stats.frequencies["number"] == found.stats.frequencies["number"] - 1


def test_too_little_text_is_refused_and_changes_nothing(
    services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    small = make_base(services.database, "small")
    add_document(services.database, small, "a.txt", ["只有一句话的知识库。"])
    kb = Shell(services, capsys)

    code, _ = kb("calibrate", "--kb", "small")

    assert code == 1
    assert "has 1 chunks; calibrating needs at least 30" in kb.err
    with services.database.read() as session:
        assert find_base(session, "small") == small
    with pytest.raises(InvalidInputError, match="must lie between"):
        calibrate(services.database, services.retriever, small, target=0.9)
