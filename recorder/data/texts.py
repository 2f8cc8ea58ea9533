"""Load texts as tokens: Python's help topics, and the names of Unicode's characters. Both come with the interpreter."""

import sys
import unicodedata
from collections import Counter
from functools import cache
from pydoc_data.topics import topics
from typing import Final

import torch

from recorder.data.base import DataSet, Examples, Kind

_WINDOW: Final = 12  # characters before the one to predict
_COMMON: Final = 40  # most frequent characters, each a token; all others share one more
_NAME_LENGTH: Final = 16
_CATEGORIES: Final = ("Lu", "Ll", "Lo", "Lm", "Mn", "Nd", "No", "So", "Sm", "Po")
_LETTERS: Final = " ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
_PER_CATEGORY: Final = 600


@cache
def _topics() -> Examples:
    text = "\n".join(topics[key] for key in sorted(topics))
    common = [character for character, _ in Counter(text).most_common(_COMMON)]
    index = {character: position for position, character in enumerate(common)}
    codes = torch.tensor([index.get(character, _COMMON) for character in text], dtype=torch.int64)
    windows = codes.unfold(0, _WINDOW + 1, 61)  # 61 is coprime to the lines' width, so windows start anywhere
    return Examples(windows[:, :_WINDOW].contiguous(), windows[:, _WINDOW].contiguous())


@cache
def _names() -> Examples:
    """Return every k-th character of each category, at most 600, so that categories weigh alike and scripts mix."""
    rows, targets = [], []
    for number, category in enumerate(_CATEGORIES):
        found = [chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) == category]
        names = [name for character in found if (name := unicodedata.name(character, ""))]
        for name in names[:: max(1, len(names) // _PER_CATEGORY)][:_PER_CATEGORY]:
            padded = name[-_NAME_LENGTH:].rjust(_NAME_LENGTH)
            rows.append([_LETTERS.index(letter) if letter in _LETTERS else 0 for letter in padded])
            targets.append(number)
    return Examples(torch.tensor(rows, dtype=torch.int64), torch.tensor(targets, dtype=torch.int64))


DATA_SETS: Final = (
    DataSet(
        name="topics",
        kind=Kind.TOKENS,
        classes=_COMMON + 1,
        task="the next character after 12 characters of the interpreter's help topics",
        licence="PSF-2.0 (Python Software Foundation)",
        source="the standard library, pydoc_data.topics",
        load=_topics,
        vocabulary=_COMMON + 1,
    ),
    DataSet(
        name="names",
        kind=Kind.TOKENS,
        classes=len(_CATEGORIES),
        task="the general category of a Unicode character from the last 16 letters of its name",
        licence="Unicode-3.0 (Unicode, Inc.)",
        source="the standard library, unicodedata",
        load=_names,
        vocabulary=len(_LETTERS),
    ),
)
