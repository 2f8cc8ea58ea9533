"""Our commands before the receiver that verifies them: accepted once, and refused if anything in them was changed."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from gnn.online.config import ServingConfig
from gnn.online.policy import TamiyoPolicy
from gnn.online.snapshot import Snapshot
from schemas.leyline import leyline_pb2 as pb
from tamiyo.live import bus
from tests.compatibility.peer import VERIFIERS
from tests.gnn.online.conftest import bundle, bundle_path, metadata_tables, published, trained  # noqa: F401 - fixtures
from tests.gnn.online.conftest import packet as state

SECRET = b"shared"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=sorted(VERIFIERS))
def verifier(request: pytest.FixtureRequest, clock: Clock) -> Any:
    return VERIFIERS[request.param](SECRET, clock)


@pytest.fixture
def command(bundle_path: Any) -> pb.AdaptationCommand:  # noqa: F811
    """One that the policy makes of a packet, with all of its annotations."""
    policy = TamiyoPolicy.load(bundle_path, ServingConfig(min_value=-9.0, max_harm=1.0))
    found = policy.decide(state(), Snapshot.of(policy.bundle, metadata_tables(), time.time_ns()))
    assert found.command.annotations["feature_coverage"]
    return found.command


def data(command: pb.AdaptationCommand, secret: bytes | None = SECRET) -> bytes:
    """As it is published."""
    return bus.signed_command(command, secret).SerializeToString(deterministic=True)


def test_a_command_is_accepted_once_within_five_minutes(verifier: Any, clock: Clock, command: pb.AdaptationCommand) -> None:
    sent = data(command)
    assert verifier.verify(sent).accepted
    for later in (0.0, 1.0, 298.0):
        clock.now = 1000.0 + later
        assert (verifier.verify(sent).accepted, verifier.verify(sent).reason) == (False, "nonce_replayed")
    again = data(pb.AdaptationCommand.FromString(sent))
    assert not verifier.verify(again).accepted, "signed anew it has the same id"


def changes(command: pb.AdaptationCommand) -> Iterator[tuple[str, pb.AdaptationCommand]]:
    """The signed command with one thing in it changed: every field that it has, and every annotation."""
    whole = bus.signed_command(command, SECRET)
    for key in whole.annotations:
        for altered in (whole.annotations[key] + "x", whole.annotations[key][:-1]):
            found = pb.AdaptationCommand()
            found.CopyFrom(whole)
            found.annotations[key] = altered
            yield f"annotation {key}", found
    for field, _ in whole.ListFields():
        if field.name != "annotations":
            found = pb.AdaptationCommand()
            found.CopyFrom(whole)
            found.ClearField(field.name)
            yield f"without {field.name}", found
    found = pb.AdaptationCommand()
    found.CopyFrom(whole)
    found.annotations["more"] = ""
    yield "one annotation more", found
    found = pb.AdaptationCommand()
    found.CopyFrom(whole)
    found.target_seed_id = "another"
    yield "another seed", found


def test_a_command_in_which_anything_was_changed_is_refused(verifier: Any, command: pb.AdaptationCommand) -> None:
    tried = 0
    for what, changed in changes(command):
        found = verifier.verify(changed.SerializeToString(deterministic=True))
        assert (found.accepted, found.reason) == (False, "invalid_signature"), what
        tried += 1
    assert tried > 20
    assert verifier.verify(data(command)).accepted


@pytest.mark.parametrize(("secret", "reason"), [(b"another", "invalid_signature"), (None, "missing_signature")])
def test_a_command_of_another_secret_is_refused(
    verifier: Any, command: pb.AdaptationCommand, secret: bytes | None, reason: str
) -> None:
    assert verifier.verify(data(command, secret)).reason == reason


@pytest.mark.parametrize(
    ("age_s", "reason"),
    [(0, "ok"), (50, "ok"), (70, "stale_command"), (-3, "ok"), (-60, "issued_in_future"), (10**8, "stale_command")],
)
def test_a_command_counts_for_a_minute(verifier: Any, command: pb.AdaptationCommand, age_s: int, reason: str) -> None:
    command.issued_at.FromNanoseconds(time.time_ns() - age_s * 10**9)
    assert verifier.verify(data(command)).reason == reason


def test_commands_of_the_process_are_accepted_too(verifier: Any) -> None:
    from gnn.online.command import blank_command

    for number in range(3):
        notes = {"reason": "timeout_inference", "priority": "HIGH", "step": str(number)}
        pause = blank_command(pb.COMMAND_PAUSE, notes, ServingConfig(), time.time_ns())
        assert verifier.verify(data(pause)).reason == "ok"
