"""How surprise feeds back into the modulators."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from neuromodd.core.anomaly import Moment
from neuromodd.core.brain import UNCERTAIN_ACETYLCHOLINE, UNCERTAIN_CORTISOL, Brain, BrainParameters, Phasic
from neuromodd.core.frame import TelemetryFrame
from neuromodd.core.surprise import SurpriseParameters

FRAME = TelemetryFrame(time_utc=datetime(2026, 1, 1, tzinfo=UTC))


def lived(surprise: float | None, monkeypatch: pytest.MonkeyPatch, *, feedback: bool = True) -> Phasic:
    """What is left of a tick of so much surprise."""
    brain = Brain(BrainParameters(surprise=SurpriseParameters(feedback=feedback)))
    monkeypatch.setattr(brain, "_look", lambda *_: Moment(surprise, surprise, (), None, None))
    return brain.step(FRAME).phasic


def test_full_surprise_raises_acetylcholine_and_cortisol(monkeypatch: pytest.MonkeyPatch) -> None:
    phasic = lived(1.0, monkeypatch)
    assert (phasic.acetylcholine, phasic.cortisol) == (UNCERTAIN_ACETYLCHOLINE, UNCERTAIN_CORTISOL)
    assert phasic.dopamine == 0.0


def test_half_of_what_is_beyond_the_usual_raises_half(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lived(0.65, monkeypatch).cortisol == pytest.approx(UNCERTAIN_CORTISOL / 2.0)


@pytest.mark.parametrize("surprise", [None, 0.0, 0.3])
def test_the_usual_uncertainty_raises_nothing(
    surprise: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lived(surprise, monkeypatch) == Phasic()


def test_the_feedback_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lived(1.0, monkeypatch, feedback=False) == Phasic()


def test_levels_that_are_higher_already_stay() -> None:
    before = Phasic(acetylcholine=0.9, cortisol=0.8)
    assert before.unsettled(1.0) == before
