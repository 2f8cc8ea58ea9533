"""Report what one refresh of the contract tables did."""

from dataclasses import dataclass, field

from lake.exports.folders import Unplaced


@dataclass
class IngestReport:
    """What one refresh did.

    `exports`: new exports by folder. `versions`: tables that got a new version. `runs`: training runs touched, by table.
    `unknown_fields`: how often an undeclared field was seen, by folder and field. `suspicious`: rows with an event time before
    2000, by table. `vanished`: files that changed or disappeared while they were read. `failed`: files that could not be read,
    and why; the next refresh tries them again. `rebuilt`: damaged tables that were built again, and what was wrong.
    """

    exports: dict[str, int] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    runs: dict[str, set[str]] = field(default_factory=dict)
    unknown_fields: dict[str, int] = field(default_factory=dict)
    unplaced: tuple[Unplaced, ...] = ()
    vanished: list[str] = field(default_factory=list)
    suspicious: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    rebuilt: dict[str, str] = field(default_factory=dict)

    @property
    def wrote(self) -> bool:
        """Whether any table changed."""
        return bool(self.versions)
