"""Sort the layers of a graph topologically: producers before consumers, then by index."""

import heapq
from collections.abc import Sequence

import numpy as np

from gnn.join.rows import Ints


def topological_positions(ptr: Ints, source: Ints, target: Ints, edge_ptr: Ints) -> Ints:
    """Assign to the nodes of each of G graphs their topological position: int64 [N], from 0 in each graph.

    `ptr` int64 [G + 1] bounds the nodes of each graph and `edge_ptr` int64 [G + 1] its edges; `source` and `target` int64 [E]
    are node numbers that run through all graphs. Of the nodes whose predecessors are all placed, the one with the lowest
    number comes next; if there is none, a cycle is broken at the lowest number that is left. Self-loops are ignored.
    """
    counts = np.diff(ptr)
    found = np.arange(ptr[-1]) - np.repeat(ptr[:-1], counts)
    # equal graphs (the packets of one host) are ordered once
    known: dict[tuple[int, bytes, bytes], Ints] = {}
    for graph in np.flatnonzero(np.diff(edge_ptr)).tolist():
        first, edges = int(ptr[graph]), slice(int(edge_ptr[graph]), int(edge_ptr[graph + 1]))
        ends = source[edges] - first, target[edges] - first
        key = (int(counts[graph]), ends[0].tobytes(), ends[1].tobytes())
        if key not in known:
            known[key] = _positions(key[0], ends[0].tolist(), ends[1].tolist())
        found[first : first + key[0]] = known[key]
    return found


def _positions(size: int, source: Sequence[int], target: Sequence[int]) -> Ints:
    """Return the place of each of `size` nodes in the order of one graph: int64 [size]."""
    after: list[list[int]] = [[] for _ in range(size)]
    waits = [0] * size
    for one, other in set(zip(source, target, strict=True)):
        if one != other:
            after[one].append(other)
            waits[other] += 1
    ready = [node for node in range(size) if not waits[node]]
    position = [-1] * size
    lowest = 0
    for place in range(size):
        if not ready:
            while position[lowest] >= 0:
                lowest += 1
            ready.append(lowest)
        node = heapq.heappop(ready)
        position[node] = place
        for other in after[node]:
            waits[other] -= 1
            if not waits[other] and position[other] < 0:
                heapq.heappush(ready, other)
    return np.array(position, dtype=np.int64)
