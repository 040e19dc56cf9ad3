"""How findings are told."""

from __future__ import annotations

from neuromodd.doctor.findings import Finding, Verdict, area_text, counted, summary, worst


def found(verdict: Verdict, finding: str = "it is so", remedy: str | None = None) -> Finding:
    return Finding(area="broker", name="login", verdict=verdict, finding=finding, remedy=remedy)


def test_an_area_is_its_name_a_line_each_and_remedies_below() -> None:
    text = area_text([found("ok"), found("failure", "refused", "say who you are")])
    assert text.splitlines() == [
        "broker",
        "  ok       login  it is so",
        "  failure  login  refused",
        "                  -> say who you are",
    ]


def test_what_a_broker_says_can_not_command_the_terminal() -> None:
    assert "\x1b" not in area_text([found("failure", "refused\x1b[2J\nok")])
    assert len(area_text([found("failure", "refused\x1b[2J\nok")]).splitlines()) == 2


def test_the_summary_begins_with_the_worst_and_leaves_out_what_there_is_none_of() -> None:
    assert (
        summary([found("ok"), found("note"), found("note"), found("failure")]) == "1 failure, 2 notes, 1 ok"
    )


def test_the_worst_of_all_counts() -> None:
    assert worst([found("ok"), found("warning"), found("note")]) == "warning"
    assert worst([]) == "ok"


def test_a_verdict_that_nothing_has_is_counted_as_none() -> None:
    assert counted([found("ok")]) == {"failure": 0, "warning": 0, "note": 0, "ok": 1}
