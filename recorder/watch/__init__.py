"""Record any PyTorch module while it trains: `watch(model, optimizer)`."""

from recorder.watch.faults import WatchWarning
from recorder.watch.observation import Observation
from recorder.watch.watcher import Watch, watch

__all__ = ["Observation", "Watch", "WatchWarning", "watch"]
