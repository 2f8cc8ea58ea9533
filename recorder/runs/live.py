"""Train a host while somebody listens: packet by packet, its records handed out, and commands obeyed in between."""

from collections.abc import Mapping
from contextlib import ExitStack

from recorder.exports import Records
from recorder.hosts.spec import HostSpec
from recorder.runs.hostrun import begin, tell_packet, train, warm_up
from recorder.runs.lifecycle import decide, end_diverged
from recorder.runs.orders import carry_out, refusal
from recorder.runs.plan import RecordPlan
from recorder.speech.clock import Clock
from recorder.speech.uplift import Outcome
from recorder.watch.watcher import watch
from schemas.leyline import leyline_pb2 as pb


class LiveHost:
    """A host after its warm-up. Its first records are Urza's record, its sheet, its compile status and its health."""

    def __init__(self, plan: RecordPlan, spec: HostSpec, risks: Mapping[str, float], clock: Clock) -> None:
        """Warm up; nothing of the recorder's own is tried or grafted in the run, whatever the plan says."""
        obedient = plan.model_copy(update={"states": (), "graft_steps": ()})
        self.run = begin(obedient, spec, risks, clock)
        self.run.obeys = True
        self._open = ExitStack()
        model, optimizer = self.run.host.model, self.run.host.optimizer
        self._seen = self._open.enter_context(watch(model, optimizer, every=plan.every, detailed=True, follow=False))
        warm_up(self.run, self._seen)

    @property
    def is_over(self) -> bool:
        """Whether it trained to its last step, or diverged."""
        return self.run.step >= self.run.plan.total_steps or not self.run.losses_finite

    def go_on(self) -> None:
        """Train to the next packet; a host that was told to pause stays as it is, once."""
        run = self.run
        if run.paused:
            run.paused = False
            return
        while not self.is_over:
            observation = train(run, self._seen)
            if observation is not None:
                decide(run, tell_packet(run, observation))
                break
        if not run.losses_finite:
            end_diverged(run)

    def obey(self, order: pb.AdaptationCommand) -> tuple[str | None, tuple[Outcome, ...]]:
        """Carry out a command, or refuse it; return the reason of a refusal, and the outcomes of a graft."""
        reason = refusal(self.run, order)
        return (reason, ()) if reason is not None else (None, carry_out(self.run, order))

    def take(self) -> Records:
        """Return the records since the last call, by folder."""
        found, self.run.records = self.run.records, {}
        return found

    def close(self) -> None:
        """Take the watch off the network."""
        self._open.close()
