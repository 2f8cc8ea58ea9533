"""The existing system's own modules, where its source is found, and what is stated of them where it is not.

`ESPER_LITE` names a checkout of it. Its packages import web and search clients that nothing here needs, so that the modules are
imported without the `__init__` of their packages; what runs is its code as it stands.
"""

import base64
import hashlib
import hmac
import importlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from schemas.leyline import leyline_pb2 as pb

VARIABLE = "ESPER_LITE"
_WITHOUT_INIT = ("nissa", "kasmina", "simic", "tamiyo")


def source() -> Path:
    """Where its source is; the test is skipped if that is not named, or not there."""
    named = os.environ.get(VARIABLE)
    if not named:
        pytest.skip(f"{VARIABLE} is not set: it names a checkout of the existing system, which is no part of this repository")
    found = Path(named) / "src"
    if not (found / "esper" / "leyline").is_dir():
        pytest.skip(f"{VARIABLE}={named}: expected a checkout with src/esper/leyline, found none")
    return found


def module(name: str) -> Any:
    """Its module `esper.<name>`."""
    root = source()
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    for package in _WITHOUT_INIT:
        full = f"esper.{package}"
        if full not in sys.modules:
            bare = ModuleType(full)
            bare.__path__ = [str(root / "esper" / package)]
            sys.modules[full] = bare
    return importlib.import_module(f"esper.{name}")


@dataclass(frozen=True)
class Verdict:
    """What a verifier says of a command."""

    accepted: bool
    reason: str


class StatedVerifier:
    """The receiver by what is stated of it: HMAC over deterministic bytes, ids for 300 s, at most 60 s old and 5 s ahead."""

    def __init__(self, secret: bytes, clock: Callable[[], float]) -> None:
        self._secret, self._clock, self._seen = secret, clock, dict[str, float]()

    def verify(self, data: bytes) -> Verdict:
        """Judge a serialized command, the signature among its annotations."""
        command = pb.AdaptationCommand.FromString(data)
        signature = command.annotations.get("signature", "")
        command.annotations.pop("signature", None)
        expected = hmac.new(self._secret, command.SerializeToString(deterministic=True), hashlib.sha256).digest()
        if not signature:
            return Verdict(False, "missing_signature")
        if not hmac.compare_digest(base64.b64encode(expected).decode(), signature):
            return Verdict(False, "invalid_signature")
        if not command.command_id:
            return Verdict(False, "missing_command_id")
        now = self._clock()
        if self._seen.get(command.command_id, now) > now:
            return Verdict(False, "nonce_replayed")
        self._seen[command.command_id] = now + 300.0
        if not command.HasField("issued_at"):
            return Verdict(False, "missing_timestamp")
        age = time.time() - command.issued_at.ToNanoseconds() / 1e9
        if age < -5.0:
            return Verdict(False, "issued_in_future")
        return Verdict(age <= 60.0, "ok" if age <= 60.0 else "stale_command")


class RealVerifier:
    """Its own `CommandVerifier`, called as its seed manager calls it, on messages of its own protobuf module."""

    def __init__(self, secret: bytes, clock: Callable[[], float]) -> None:
        security, signing = module("kasmina.security"), module("security.signing")
        self._leyline = module("leyline").leyline_pb2
        self._verifier = security.CommandVerifier(
            signing_context=signing.SignatureContext(secret=secret), nonce_ledger=security.NonceLedger(clock=clock)
        )

    def verify(self, data: bytes) -> Verdict:
        """Judge a serialized command, the signature among its annotations."""
        command = self._leyline.AdaptationCommand.FromString(data)
        signature = command.annotations.get("signature", "")
        if signature:
            del command.annotations["signature"]
        found = self._verifier.verify(command, signature)
        return Verdict(found.accepted, found.reason)


VERIFIERS: dict[str, Callable[[bytes, Callable[[], float]], Any]] = {"stated": StatedVerifier, "real": RealVerifier}


class StatedAlerts:
    """The alert rules by what is stated of them: a threshold, held in so many packets one after the other, told once."""

    RULES: ClassVar = {
        "tamiyo_coverage_low": ("tamiyo.gnn.feature_coverage", lambda value: value < 0.7, 3),
        "tamiyo_bsds_critical": ("tamiyo.bsds.hazard_critical_signal", lambda value: value > 0.5, 1),
        "tamiyo_bsds_high": ("tamiyo.bsds.hazard_high_signal", lambda value: value > 0.5, 3),
        "tamiyo_bsds_elevated_risk": ("tamiyo.bsds.elevated_risk_flag", lambda value: value > 0.5, 1),
    }

    def __init__(self) -> None:
        self._held = dict.fromkeys(self.RULES, 0)
        self.fired: list[str] = []

    def evaluate(self, metrics: dict[str, float]) -> None:
        """Take the metrics of one packet."""
        for name, (metric, breaks, times) in self.RULES.items():
            self._held[name] = self._held[name] + 1 if metric in metrics and breaks(metrics[metric]) else 0
            if self._held[name] == times:
                self.fired.append(name)


class RealAlerts:
    """Its own engine with its own rules."""

    def __init__(self) -> None:
        alerts = module("nissa.alerts")
        self._engine = alerts.AlertEngine(alerts.DEFAULT_ALERT_RULES)

    @property
    def fired(self) -> list[str]:
        """Names of the alerts that were dispatched, in order."""
        return [event.name for event in self._engine.router.events()]

    def evaluate(self, metrics: dict[str, float]) -> None:
        """Take the metrics of one packet."""
        self._engine.evaluate(metrics, "tamiyo")


ALERTS: dict[str, Callable[[], Any]] = {"stated": StatedAlerts, "real": RealAlerts}
