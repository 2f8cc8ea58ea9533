"""Join as of a time: per group, find the newest row that is not newer than the time asked for."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class AsOf:
    """Rows with a group code and a time, sorted once for any number of lookups.

    Rows of group -1 are never found. Among rows of one group and time, the one with the highest `ranks` counts, and without
    ranks the first.
    """

    def __init__(self, groups: Ints, times: Ints, *ranks: Ints) -> None:
        """Sort rows by `groups`, `times` and `ranks` (the first is the most significant): int64 [n] each."""
        ties = [-np.arange(len(groups)), *reversed(ranks)]
        order = np.lexsort((*ties, times, groups))
        self._rows = order[groups[order] >= 0]
        self._groups = groups[self._rows]
        ordered = times[self._rows]
        self._times = np.unique(ordered)
        self._span = len(self._times) + 1
        self._keys = self._groups * self._span + np.searchsorted(self._times, ordered, side="right")
        self._when = ordered

    def newest(self, groups: Ints, times: Ints) -> Ints:
        """Return the row number (int64 [m]) of the newest row of each group not newer than each time; -1 if there is none."""
        return self._find(groups, times, exact=False)

    def exact(self, groups: Ints, times: Ints) -> Ints:
        """Return the row number (int64 [m]) of the row of each group at exactly each time; -1 if there is none."""
        return self._find(groups, times, exact=True)

    def _find(self, groups: Ints, times: Ints, *, exact: bool) -> Ints:
        if not len(self._rows) or not len(groups):
            return np.full(len(groups), -1, dtype=np.int64)
        keys = groups * self._span + self._times.searchsorted(times, side="right")
        place = self._keys.searchsorted(keys, side="right") - 1
        found = (place >= 0) & (groups >= 0) & (self._groups[place] == groups)
        if exact:
            found &= self._when[place] == times
        return np.where(found, self._rows[place], -1)
