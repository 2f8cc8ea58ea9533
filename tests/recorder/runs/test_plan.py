"""What a plan asks for: how many pairs, replicates and states, by default and on request."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from recorder.runs.plan import RecordPlan, describe, state_steps

HOSTS = range(200)


def plan(**asked: object) -> RecordPlan:
    return RecordPlan.model_validate({"exports": Path("exports"), **asked})


def test_the_usual_grid_is_fourteen_pairs_once_and_twice_on_every_fifth_host() -> None:
    usual = plan()
    assert {usual.grid_of(index).kernels for index in HOSTS} == {14}
    replicates = [usual.grid_of(index).replicates for index in HOSTS]
    assert (replicates.count(1), replicates.count(2)) == (160, 40)
    assert {usual.sites_of(index) for index in HOSTS} == {2, 3, 4}
    # every data set and architecture is among those that say how far a label can be trusted
    twice = {usual.host(index).experiment for index in HOSTS if usual.replicates_of(index) == 2}
    assert twice == {usual.host(index).experiment for index in HOSTS}


@pytest.mark.parametrize("replicates", [1, 3])
def test_asked_for_replicates_hold_for_every_host(replicates: int) -> None:
    asked = plan(replicates=replicates)
    assert {asked.replicates_of(index) for index in HOSTS} == {replicates}
    assert f"{replicates} replicate(s)" in "\n".join(describe(asked))


@pytest.mark.parametrize("count", range(1, 13))
def test_states_lie_at_packets_within_the_run(count: int) -> None:
    steps, whole = state_steps(count), plan()
    assert len(set(steps)) == count
    assert steps[0] == 60
    assert all(step % whole.every == 0 and step < whole.total_steps for step in steps)


@pytest.mark.parametrize("asked", [{"replicates": 0}, {"kernels": 1}, {"sites": 5}])
def test_what_makes_no_grid_is_refused(asked: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        plan(**asked)
