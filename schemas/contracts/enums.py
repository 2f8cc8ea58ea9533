"""Give Leyline's enums their short names: `TRAINING` for `SEED_STAGE_TRAINING`, derived from the generated module."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from schemas.leyline import leyline_pb2

_NUMBER: Final = re.compile(r"-?[0-9]{1,10}")


@dataclass(frozen=True)
class EnumSpec:
    """One enum of the wire format: `name` as in leyline.proto, `prefix` of its wire names, `numbers` by short name."""

    name: str
    prefix: str
    numbers: dict[str, int]

    def __hash__(self) -> int:
        """Hash the name alone: `numbers` is a dict, which has no hash."""
        return hash(self.name)

    @cached_property
    def short_names(self) -> dict[int, str]:
        """Short name by number, without the zero value: zero means missing."""
        return {number: name for name, number in self.numbers.items() if number != 0}

    @cached_property
    def spellings(self) -> dict[str, int]:
        """Number by accepted spelling in upper case: the wire name and the short name of each value."""
        return {f"{self.prefix}{name}": number for name, number in self.numbers.items()} | self.numbers

    def number(self, spelling: str) -> int | None:
        """Return the number of a wire name, a short name in any case, or a decimal string; None if it is neither."""
        found = self.spellings.get(spelling.strip().upper())
        return int(spelling) if found is None and _NUMBER.fullmatch(spelling.strip()) else found

    def text(self, number: int) -> str | None:
        """Return what a contract table holds for `number`: None for zero, the short name, else the number in decimal."""
        return None if number == 0 else self.short_names.get(number, str(number))


def _prefix(names: list[str]) -> str:
    """Return the longest common prefix of the wire names that ends in an underscore."""
    shortest = min(names, key=len)
    for end in range(len(shortest), 0, -1):
        if shortest[end - 1] == "_" and all(name.startswith(shortest[:end]) for name in names):
            return shortest[:end]
    return ""


def _spec(descriptor: Any) -> EnumSpec:
    numbers: dict[str, int] = {value.name: value.number for value in descriptor.values}
    prefix = _prefix(list(numbers))
    return EnumSpec(descriptor.name, prefix, {name.removeprefix(prefix): number for name, number in numbers.items()})


ENUMS: Final[dict[str, EnumSpec]] = {
    name: _spec(descriptor) for name, descriptor in sorted(leyline_pb2.DESCRIPTOR.enum_types_by_name.items())
}
