"""Where Arrow takes its memory from while exports stream through: a setting of the process, given back afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa


@contextmanager
def kept_memory() -> Iterator[None]:
    """Allocate from the system within the block.

    Arrow's own allocator gives the memory of every chunk back to the kernel, which then has to clear it for the next one:
    a sixth of the time of a large ingest.
    """
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)
