"""Instrumented PyTorch training that speaks the upstream contracts: a reference producer for every system.

`recorder.watch(model, optimizer)` records any module while it trains; `recorder.record(RecordPlan(...))` trains hosts, grafts
kernels, measures them against controls and writes everything as exports. Imports schemas, and nothing else of this project.
"""

from recorder.faults import WatchWarning
from recorder.observation import Observation
from recorder.plan import RecordPlan
from recorder.record import Progress, record
from recorder.watch import Watch, watch

__all__ = ["Observation", "Progress", "RecordPlan", "Watch", "WatchWarning", "record", "watch"]
