"""Instrumented PyTorch training that speaks the upstream contracts: a reference producer for every system.

`recorder.watch(model, optimizer)` records any module while it trains; `recorder.record(RecordPlan(...))` trains hosts, grafts
kernels, measures them against controls and writes everything as exports. Imports schemas, and nothing else of this project.
"""

from recorder.runs.plan import RecordPlan
from recorder.runs.record import Progress, record
from recorder.watch.faults import WatchWarning
from recorder.watch.observation import Observation
from recorder.watch.watcher import Watch, watch

__all__ = ["Observation", "Progress", "RecordPlan", "Watch", "WatchWarning", "record", "watch"]
