"""Look up safety sheets (`urabrask.bsds`) by blueprint, as of a time."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa

from gnn.join.asof import AsOf
from gnn.join.rows import Ints, Rows

_EXTRAS: Final = "urza"
_STREAM_ORDER: Final = ("issued", "bsds")


class Sheets:
    """The sheets of Urabrask's stream, and those in Urza's extras, which are used if the stream has none for a blueprint.

    `rows` are the sheets, `codes_of` the code of each blueprint id.
    """

    def __init__(self, table: pa.Table, codes_of: Mapping[str, int]) -> None:
        """Index the rows of `urabrask.bsds`."""
        self.rows = Rows(table)
        self.codes_of = codes_of
        owner = self.rows.labels("blueprint_id").translate(codes_of)[:-1]
        issued, source = self.rows.times("issued_at_ns"), self.rows.labels("source")
        extra = source.translate({_EXTRAS: 0})[:-1] == 0
        order = source.translate({word: rank for rank, word in enumerate(_STREAM_ORDER)})[:-1]
        self._stream = AsOf(np.where(extra, -1, owner), issued, order)
        self._extras = AsOf(np.where(extra, owner, -1), issued)

    def newest(self, blueprints: Ints, times: Ints) -> Ints:
        """Return each blueprint's newest row (int64 [n]) as of each time, from the stream, else from Urza's extras.

        `blueprints` int64 [n] are codes, `times` int64 [n] are in ns; -1 if there is no such row.
        """
        stream = self._stream.newest(blueprints, times)
        return np.where(stream >= 0, stream, self._extras.newest(blueprints, times))
