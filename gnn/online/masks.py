"""Which kernels a seed may take: measured, compatible with its site, not quarantined, and only at a DORMANT seed."""

from typing import Final

import torch
from torch import Tensor

from gnn.bundle.read import Bundle
from gnn.graph.batch import GraphBatch
from gnn.online.snapshot import Snapshot
from schemas.features import LAYER, SEED
from schemas.kernels import KERNELS

DORMANT: Final = "DORMANT"
_LAYER_TYPE: Final = [f.name for f in LAYER.categorical].index("layer_type")
_STAGE: Final = [f.name for f in SEED.categorical].index("lifecycle_stage")


class KernelMasks:
    """Masks of one bundle: `measured` bool [32], and by layer type id what was measured at such sites."""

    def __init__(self, bundle: Bundle) -> None:
        policy, types = bundle.manifest.policy, bundle.registries["layer_type"]
        self.measured = torch.tensor([kernel in policy.measured for kernel in KERNELS])
        self._dormant = bundle.registries["lifecycle_stage"].index(DORMANT)
        rows = self.measured.expand(types.capacity, -1).clone()
        for name, kernels in policy.site_kernels.items():
            rows[types.index(name)] = torch.tensor([kernel in kernels for kernel in KERNELS])
        self._by_type = rows & self.measured

    def of(self, batch: GraphBatch, snapshot: Snapshot, at_ns: int) -> Tensor:
        """bool [S, 32] on the CPU: what each seed of the batch may take at that time.

        A site of a layer type that was never measured may take any measured kernel; a seed that monitors nothing, none.
        """
        seeds, layers = batch.edge_index[("seed", "monitors", "layer")].cpu()
        allowed = torch.zeros(batch.num_nodes("seed"), len(KERNELS), dtype=torch.bool)
        types = batch.ids["layer"][:, _LAYER_TYPE].cpu()
        # the first monitored layer is the site; written last, so it wins
        allowed[seeds.flip(0)] = self._by_type[types[layers]].flip(0)
        dormant = batch.ids["seed"][:, _STAGE].cpu() == self._dormant
        free = torch.tensor([not held for held in snapshot.quarantined(KERNELS, at_ns)])
        return allowed & dormant.unsqueeze(1) & free
