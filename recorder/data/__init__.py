"""Load real data sets that come inside installed packages, without a network."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from recorder.data import images, texts
from recorder.data.base import DataSet, Examples, Kind, Share, share_of

__all__ = ["DATA_SETS", "DataSet", "Examples", "Kind", "Share", "share_of"]

DATA_SETS: Final[Mapping[str, DataSet]] = MappingProxyType({data.name: data for data in (*images.DATA_SETS, *texts.DATA_SETS)})
