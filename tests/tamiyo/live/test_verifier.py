"""What a receiver of commands checks: signature, age, clock, replays."""

import pytest

from schemas.leyline import leyline_pb2 as pb
from tamiyo.live import bus
from tamiyo.live.verifier import REASONS, Verifier

SECRET = b"secret"


def command(at_s: float, name: str = "c") -> pb.AdaptationCommand:
    found = pb.AdaptationCommand(command_id=name, command_type=pb.COMMAND_PAUSE, annotations={"reason": "r"})
    found.issued_at.FromNanoseconds(int(at_s * 1e9))
    return bus.signed_command(found, SECRET)


@pytest.mark.parametrize(
    ("age", "expected"), [(0.0, None), (59.9, None), (60.1, "stale"), (-4.9, None), (-5.1, "from_the_future")]
)
def test_age(age: float, expected: str | None) -> None:
    assert Verifier(SECRET, lambda: 1000.0).refusal(command(1000.0 - age)) == expected


def test_a_change_anywhere_breaks_the_signature() -> None:
    verifier, sound = Verifier(SECRET, lambda: 1000.0), command(1000.0)
    unsigned, other, longer, kind = (pb.AdaptationCommand.FromString(sound.SerializeToString()) for _ in range(4))
    unsigned.annotations.pop("signature")
    other.annotations["reason"] = "another"
    longer.annotations["more"] = "1"
    kind.command_type = pb.COMMAND_EMERGENCY
    for wrong in (unsigned, other, longer, kind, bus.signed_command(sound, b"another secret")):
        assert verifier.refusal(wrong) == "bad_signature"
    assert verifier.refusal(sound) is None
    assert verifier.refusal(sound) == "replayed"


def test_ids_are_remembered_for_five_minutes_and_no_longer() -> None:
    now = [1000.0]
    verifier = Verifier(SECRET, lambda: now[0])
    assert verifier.refusal(command(1000.0, "c-0")) is None
    for number in range(1, 400):
        now[0] += 1.0
        assert verifier.refusal(command(now[0], f"c-{number}")) is None
        assert verifier.refusal(command(now[0], f"c-{max(0, number - 300)}")) == "replayed"
    assert len(verifier._seen) == 301


def test_reasons_are_documented() -> None:
    assert {"bad_signature", "stale", "from_the_future", "replayed", "undecodable"} == set(REASONS)
