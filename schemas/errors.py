"""Define the errors of this project. Each message names the thing, the expected and found values, and what to do."""

import subprocess
from collections.abc import Mapping
from typing import Final

# errors that Dynamo (TorchDynamoException is a RuntimeError), its backends and the host's C++ compiler raise; each caller of
# torch.compile continues without it in all these cases
COMPILER_FAULTS: Final = (
    RuntimeError,
    OSError,
    ImportError,
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
    AssertionError,
    subprocess.SubprocessError,
)


class TamiyoError(Exception):
    """Root of every error that this project raises on purpose."""


class ContractError(TamiyoError):
    """An export, a table or a record does not keep its contract."""


class LimitExceeded(ContractError):
    """An input is larger, deeper or more numerous than the configured bound allows."""


class RegistryError(TamiyoError):
    """A registry file is damaged or breaks a registry rule."""


class RegistryConflict(RegistryError):
    """A Simic snapshot holds a key at another index, or an index with another key."""


class RegistryFull(RegistryError):
    """A registry has no free index left."""


class NormsError(TamiyoError):
    """A normalization file is damaged or not strict JSON."""


class StorageError(TamiyoError):
    """A table, ledger or published file is damaged, missing or of a mixed version."""


class RowsRefused(StorageError):
    """Rows break the declaration of their table; none was committed. `broken`: name of each broken rule -> what breaks it."""

    def __init__(self, message: str, table: str, broken: Mapping[str, str]) -> None:
        super().__init__(message)
        self.table = table
        self.broken = dict(broken)


class FeatureError(TamiyoError):
    """Contract rows can't be turned into features or graphs."""


class TrainingError(TamiyoError):
    """A model can't be trained, resumed or evaluated."""


class BundleRejected(TamiyoError):
    """A checkpoint bundle is damaged, foreign or incompatible; the message lists every mismatch."""


class PromotionRefused(TamiyoError):
    """A bundle failed preflight or a quality gate; the serving bundle stays."""


class RecordingError(TamiyoError):
    """A recording can't be made or continued."""


class ServingError(TamiyoError):
    """The online policy can't serve as configured, or was given what it can't decide on."""
