"""Train real PyTorch models, measure them, and write the exports that all upstream systems would send.

`recorder.watch(model, optimizer)` measures any module while it trains. `recorder.record(RecordPlan(...))` trains hosts, grafts
kernels into them, compares each graft with a control and writes everything as exports.
"""

from recorder.runs.plan import RecordPlan
from recorder.runs.record import Progress, record
from recorder.watch.faults import WatchWarning
from recorder.watch.observation import Observation
from recorder.watch.watcher import Watch, watch

__all__ = ["Observation", "Progress", "RecordPlan", "Watch", "WatchWarning", "record", "watch"]
