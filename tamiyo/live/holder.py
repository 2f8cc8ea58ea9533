"""Hold what serves: the policy of `current`, swapped when the link moves, and the home's metadata, renewed meanwhile."""

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa

from gnn.bundle.promote import CURRENT
from gnn.bundle.read import resolve_once
from gnn.online.config import ServingConfig
from gnn.online.policy import TamiyoPolicy
from gnn.online.snapshot import SnapshotCache
from lake.durable.publish import publish_file
from lake.store.table_store import TableStore
from schemas.errors import BundleRejected, FeatureError, StorageError, TamiyoError
from tamiyo.live.decider import Serving
from tamiyo.live.limits import Breaker

_LOG = logging.getLogger(__name__)
STATES: Final = Path("serving") / "run_states.json"
METADATA_TABLES: Final = (
    "urza.blueprint",
    "urza.layer",
    "urza.activation",
    "urza.parameter",
    "urza.connection",
    "urza.activation_parameter",
    "urabrask.bsds",
    "tezzeret.kernel",
    "weatherlight.health",
    "telemetry.metric",
)

Announce = Callable[[str, str | None, str | None], None]
"""Called with a bundle's name, the build id that serves now (None: refused) and the reason of a refusal."""


class MetadataTables:
    """The contract tables of a home that a decision looks at, read again only if one of them has changed."""

    def __init__(self, home: Path) -> None:
        self._store = TableStore(home)
        self._versions: dict[str, tuple[int | None, int]] | None = None
        self._tables: Mapping[str, pa.Table] = {}

    def __call__(self) -> Mapping[str, pa.Table]:
        """Return the tables by name; the same object as before if nothing changed. Raises StorageError if one can't be read."""
        from deltalake.exceptions import DeltaError

        try:
            versions = {name: self._version(name) for name in METADATA_TABLES}
            if versions != self._versions:
                self._tables = {name: self._store.read(name) for name in METADATA_TABLES}
                self._versions = versions
        except DeltaError as error:
            raise StorageError(f"metadata of {self._store.home}: expected tables that can be read, found: {error}") from error
        return self._tables

    def _version(self, name: str) -> tuple[int | None, int]:
        # a table that was removed and built again starts at version 0, in another directory
        path = self._store.path(name)
        return (self._store.version(name), path.stat().st_ino) if self._store.exists(name) else (None, 0)


class Holder:
    """Holds the serving policy of a home and its metadata."""

    def __init__(self, home: Path, config: ServingConfig, announce: Announce) -> None:
        """Prepare to hold; nothing is loaded before `start`. `announce` is called in a thread of the holder."""
        self.home, self._config, self._announce = home, config, announce
        self.breaker = Breaker(config.breaker_faults, config.breaker_open_s)
        self._serving: tuple[TamiyoPolicy, SnapshotCache] | None = None
        self._refused: str | None = None
        self._why = "the serving bundle is being loaded"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tamiyo-swap", daemon=True)

    def start(self) -> None:
        """Load what serves and begin to watch `current`."""
        self._thread.start()

    def serving(self) -> Serving | None:
        """Return the policy and the metadata to decide with now."""
        found = self._serving
        return None if found is None else (found[0], found[1].current)

    @property
    def policy(self) -> TamiyoPolicy | None:
        """The policy that serves, None if there is none."""
        found = self._serving
        return None if found is None else found[0]

    @property
    def why_not(self) -> str | None:
        """Why nothing serves; None if something does."""
        return None if self._serving is not None else self._why

    @property
    def refused(self) -> str | None:
        """Why the bundle that `current` names does not serve; None if it does."""
        return self._refused

    def close(self) -> None:
        """Stop watching and reading, and keep the states of the runs for the next process."""
        self._stop.set()
        found = self._serving
        if found is not None:
            policy, cache = found
            cache.close()
            states = policy.save()
            if states:
                publish_file(self.home / STATES, states)

    def _watch(self) -> None:
        tried: Path | None = None
        while not self._stop.is_set():
            target = self._target()
            taken = target is None or target == tried or self._take(target)
            tried = target if taken and target is not None else tried
            # a bundle takes long to read: what failed is not tried again at once
            self._stop.wait(self._config.swap_s if taken else max(self._config.swap_s, self._config.metadata_s))

    def _target(self) -> Path | None:
        link = self.home / CURRENT
        if link.is_symlink():
            return resolve_once(link)
        if self._serving is None:
            self._why = f"no bundle serves: {link} is missing; run `tamiyo run` or `tamiyo promote`"
        return None

    def _take(self, target: Path) -> bool:
        """Serve the bundle at `target`; False if it is to be tried again, as when metadata could not be read."""
        try:
            if self._serving is None:
                policy = TamiyoPolicy.load(target, self._config, home=self.home)
                cache = SnapshotCache(policy.bundle, MetadataTables(self.home), self._config.metadata_s, self._metadata_told)
                self._restore(policy)
                self._serving = (policy, cache)
            elif target.name != self._serving[0].bundle.build_id:
                self._serving[0].swap(target)
        except BundleRejected as error:
            return self._refuse(target, str(error))
        except (TamiyoError, OSError, RuntimeError, pa.ArrowException) as error:  # RuntimeError: a device out of memory
            self._why = f"bundle {target.name} can't be served yet: {error}"
            _LOG.warning("%s", self._why)
            return False
        self._refused = None
        self._announce(target.name, target.name, None)
        return True

    def _refuse(self, target: Path, reason: str) -> bool:
        self._refused = self._why = reason
        _LOG.error("bundle %s is refused: %s", target.name, reason)
        self._announce(target.name, None, reason)
        return True

    def _restore(self, policy: TamiyoPolicy) -> None:
        try:
            policy.restore((self.home / STATES).read_bytes())
        except FileNotFoundError:
            return
        except (FeatureError, OSError) as error:
            _LOG.warning("run states are started afresh: %s", error)

    def _metadata_told(self, fault: Exception | None) -> None:
        if fault is None:
            self.breaker.succeeded()
        elif self.breaker.allows():
            self.breaker.failed()
