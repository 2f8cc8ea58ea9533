"""Try torch.compile at load, keep the outcome per build and device, and run eagerly if it fails.

Every graph runs together with a small companion graph, so that no dimension is ever 0 or 1, for which the compiler would
specialise: the shapes tried at load then cover all later ones. Compiled code is called in a mode that forbids compilation; if
it would have to compile again, or fails, the network runs eagerly.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, cast

import torch
from torch import Tensor
from torch.fx.experimental import _config as shapes

from gnn.bundle.golden import TOLERANCE
from gnn.bundle.layout import batch_from
from gnn.bundle.read import Bundle
from gnn.graph.batch import GraphBatch, joined
from gnn.graph.scale import scale
from gnn.model.network import TamiyoGNN
from gnn.model.outputs import OUTPUT_SHAPES, Outputs
from gnn.online.config import ServingConfig
from lake.durable.publish import lock, publish_file
from schemas.errors import COMPILER_FAULTS
from schemas.features import NODE_TYPES, RELATIONS

_LOG = logging.getLogger(__name__)
COMPILE_STATUS = "compile_status.json"
Status = Literal["COMPILED", "EAGER_FALLBACK", "EAGER"]
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]+")
_COMPILER = threading.Lock()  # torch's compiler and its stance are process-wide: one caller at a time
_COMPANIONS: Final = (2, 3)  # nodes per type of the companion graphs that are tried


@dataclass(frozen=True)
class Outcome:
    """How a network runs now: `error` is why it is not compiled, `warm_ms` how long the attempt at load took."""

    status: Status
    error: str | None = None
    warm_ms: float = 0.0


class Compiled:
    """The network of one bundle, compiled if that works; thread-safe."""

    def __init__(
        self,
        network: TamiyoGNN,
        bundle: Bundle,
        config: ServingConfig,
        device: torch.device,
        home: Path | None,
        told: Callable[[Outcome], None],
    ) -> None:
        """Try to compile, if `config` asks for it.

        `told` is called with the outcome of the attempt if it is new for `home`, and with a later failure. If `home` is None,
        outcomes are not kept, and each is new.
        """
        self._eager, self._home, self._told = network, home, told
        self._key = (bundle.build_id, f"{device.type}/{config.precision}/{config.compile_backend}")
        self._autocast = (device.type, config.precision == "bfloat16")
        self._module: Callable[..., Outputs] | None = None
        self._companion = companion(_COMPANIONS[0]).to(device)
        self.fallbacks = 0
        self.outcome = Outcome("EAGER")
        if config.compile:
            started = time.perf_counter()
            error = self._attempt(bundle, config, device)
            warm_ms = (time.perf_counter() - started) * 1e3
            self._settle(Outcome("COMPILED" if error is None else "EAGER_FALLBACK", error, warm_ms))

    def __call__(self, batch: GraphBatch, mask: Tensor) -> Outputs:
        """Return the outputs for a batch of one graph with `mask` bool [S, 32]; this never compiles."""
        module = self._module
        if module is None:
            return self._answer(self._eager, batch, mask)
        if not _COMPILER.acquire(blocking=False):
            # another bundle is being compiled, or another thread is calling: running eagerly is faster than waiting
            return self._answer(self._eager, batch, mask)
        try:
            with torch.compiler.set_stance("fail_on_recompile"):
                return self._together(module, self._companion, batch, mask)
        except COMPILER_FAULTS as error:
            self._fall_back(error)
        finally:
            _COMPILER.release()
        return self._answer(self._eager, batch, mask)

    def _attempt(self, bundle: Bundle, config: ServingConfig, device: torch.device) -> str | None:
        """Compile on the golden graphs with companions of several sizes; return why that failed, or None."""
        graphs = []
        for number in (0, 1):
            prefix = f"input.{number}."
            inputs = {k.removeprefix(prefix): v for k, v in bundle.golden.items() if k.startswith(prefix)}
            graphs.append(scale(batch_from(inputs, 1), bundle.norms.priors).to(device))
        calls = [(graph, companion(nodes).to(device)) for nodes in _COMPANIONS for graph in (*graphs, self._companion)]
        try:
            # sizes that are equal by chance must not be treated as the same size
            with _COMPILER, torch.inference_mode(), cast(Any, shapes).patch(use_duck_shape=False):
                module = cast(Callable[..., Outputs], torch.compile(self._eager, dynamic=True, backend=config.compile_backend))
                for graph, beside in calls:
                    self._together(module, beside, graph, _every_kernel(graph))
                with torch.compiler.set_stance("fail_on_recompile"):
                    for graph, beside in calls:
                        self._compare(self._together(module, beside, graph, _every_kernel(graph)), graph)
        except COMPILER_FAULTS as error:
            return _text(error)
        self._module = module
        return None

    def _compare(self, found: Outputs, graph: GraphBatch) -> None:
        """Raise ValueError if compiled and eager answers differ by more than golden outputs may, or 2 % in bfloat16."""
        expected = self._answer(self._eager, graph, _every_kernel(graph)).tensors()
        limit = 0.02 if self._autocast[1] else 10 * TOLERANCE
        for name, tensor in found.tensors().items():
            worst = (
                float(((tensor - expected[name]).abs() / expected[name].abs().clamp(min=1.0)).max()) if tensor.numel() else 0.0
            )
            if not worst <= limit:
                raise ValueError(f"output {name}: expected the eager answer within {limit}, found a difference of {worst:.3g}")

    def _together(self, module: Callable[..., Outputs], beside: GraphBatch, batch: GraphBatch, mask: Tensor) -> Outputs:
        """Return the outputs for `batch`, computed in one batch with the companion `beside`."""
        sizes = {"G": 1, "S": batch.num_nodes("seed"), "B": batch.num_nodes("blueprint")}
        outputs = self._answer(module, joined([batch, beside]), torch.cat([mask, _every_kernel(beside)]))
        return Outputs(**{name: tensor[: sizes[str(OUTPUT_SHAPES[name][0])]] for name, tensor in outputs.tensors().items()})

    def _answer(self, module: Callable[..., Outputs], batch: GraphBatch, mask: Tensor) -> Outputs:
        kind, enabled = self._autocast
        with torch.autocast(kind, torch.bfloat16, enabled=enabled):
            return module(batch, mask)

    def _fall_back(self, error: Exception) -> None:
        """Run eagerly from now on, and report it once."""
        self.fallbacks += 1
        self._module = None
        self._settle(Outcome("EAGER_FALLBACK", _text(error), self.outcome.warm_ms), later=True)

    def _settle(self, outcome: Outcome, *, later: bool = False) -> None:
        self.fallbacks += outcome.error is not None and not later
        self.outcome = outcome
        # a decision does no I/O, so a failure inside one is recorded by a separate thread
        if later:
            threading.Thread(target=self._tell, args=(outcome,), name="tamiyo-compile-status").start()
        else:
            self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        if _record(self._home, self._key, outcome):
            if outcome.error is not None:
                _LOG.warning("torch.compile of build %s failed, serving goes on eager: %s", self._key[0], outcome.error)
            self._told(outcome)


def companion(nodes: int) -> GraphBatch:
    """Return a graph with `nodes` nodes of each type and as many edges of each relation, all features missing."""
    rows, ptr = torch.arange(nodes), torch.tensor([0, nodes])
    return GraphBatch(
        num_graphs=1,
        x={node.name: torch.zeros(nodes, node.width) for node in NODE_TYPES},
        ids={node.name: torch.zeros(nodes, len(node.categorical), dtype=torch.int64) for node in NODE_TYPES},
        ptr={node.name: ptr for node in NODE_TYPES},
        edge_index={r.triple: torch.stack([rows, rows]) for r in RELATIONS},
        edge_attr={r.triple: torch.zeros(nodes, r.width) for r in RELATIONS},
        edge_ids={r.triple: torch.zeros(nodes, len(r.categorical), dtype=torch.int64) for r in RELATIONS},
        edge_ptr={r.triple: ptr for r in RELATIONS},
    )


def _every_kernel(batch: GraphBatch) -> Tensor:
    return torch.ones(
        batch.num_nodes("seed"), int(OUTPUT_SHAPES["seed_value"][1]), dtype=torch.bool, device=batch.x["seed"].device
    )


def _text(error: Exception) -> str:
    return _ADDRESS.sub("0x…", f"{type(error).__name__}: {error}")[:500]


def _record(home: Path | None, key: tuple[str, str], outcome: Outcome) -> bool:
    """Record the outcome, and return whether to report it: the first of its key, and each failure unlike the one before."""
    if home is None:
        return True
    build_id, how = key
    with lock(home / f".{COMPILE_STATUS}.lock"):
        known = compile_status(home)
        ours = known.setdefault(build_id, {})
        entry = {"status": outcome.status, "error": outcome.error, "torch": torch.__version__}
        before = ours.get(how)
        if before is not None and {name: before.get(name) for name in entry} == entry:
            return False
        ours[how] = entry | {"at": datetime.now(UTC).isoformat(), "warm_ms": round(outcome.warm_ms, 1)}
        publish_file(home / COMPILE_STATUS, (json.dumps(known, sort_keys=True, indent=1) + "\n").encode("utf-8"))
    return before is None or outcome.error is not None


def compile_status(home: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the outcomes by build id, then by `<device>/<precision>/<backend>`; empty if the file is absent or damaged.

    A damaged file does no harm, because the outcomes are recorded again.
    """
    try:
        found = json.loads((home / COMPILE_STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        build: ways
        for build, ways in found.items()
        if isinstance(ways, dict) and all(isinstance(w, dict) for w in ways.values())
    }
