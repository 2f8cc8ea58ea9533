"""Where a home may lie: databases and table formats read some characters of a path as parts of a URL or a pattern."""

import re
from pathlib import Path
from typing import Final

from schemas.errors import StorageError

_LONGEST: Final = 400  # bytes; databases take no path beyond 512, and their files lie some folders below a home
_READ_OTHERWISE: Final = re.compile(r"[\[\]?\\\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")


def require_place(home: Path) -> None:
    """Raise StorageError if tables and databases can't lie in a home of this path, before anything is written there."""
    text = str(home)
    found = _READ_OTHERWISE.search(text)
    if found is not None:
        wrong = f"{found[0]!a} in it, which databases and tables read otherwise"
    elif not text.isprintable() and any(0xDC80 <= ord(one) <= 0xDCFF for one in text):
        wrong = "bytes in it that are no UTF-8"
    elif len(text.encode("utf-8", "surrogateescape")) > _LONGEST:
        wrong = f"one of {len(text.encode('utf-8', 'surrogateescape'))} bytes"
    else:
        return
    raise StorageError(
        f"home {text!a}: expected a path without [ ] ? \\ % escapes and control characters, of at most {_LONGEST} bytes, "
        f"found {wrong}; pass --home DIR or set TAMIYO_HOME"
    )
