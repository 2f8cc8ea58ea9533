"""A fault injector: it stops a publisher before or after the n-th change of the file system, as a kill would."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CHANGES = ("open", "write", "ftruncate", "fsync", "replace", "rename", "mkdir", "link", "symlink", "unlink", "rmdir")


class Killed(BaseException):
    """The process would have ended here."""


class Faults:
    """Counts changes of the file system; raises `Killed` before or after change number `stop`."""

    def __init__(self, stop: int | None, *, after: bool) -> None:
        self.stop = stop
        self.after = after
        self.seen: list[str] = []
        self.dead = False

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*args: Any, **how: Any) -> Any:
            if self.dead:
                raise Killed(name)
            if name == "open" and not args[1] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
                return call(*args, **how)
            self.seen.append(name)
            here = self.stop == len(self.seen)
            if here and not self.after:
                self._die(name)
            # a kill loses nothing that was written: waiting for the disk would only make the test slow
            result = None if name == "fsync" else call(*args, **how)
            if here:
                if name == "open":
                    os.close(result)
                self._die(name)
            return result

        return changed

    def _die(self, name: str) -> None:
        # a dead process cleans nothing up: no `finally` and no `except` of the publisher may change anything any more
        self.dead = True
        raise Killed(name)


@contextmanager
def faults(stop: int | None, *, after: bool = False) -> Iterator[Faults]:
    """Stop the code inside before (or after) its change number `stop`; None only counts."""
    injector = Faults(stop, after=after)
    old = {name: getattr(os, name) for name in CHANGES}
    try:
        for name, call in old.items():
            setattr(os, name, injector.wrap(name, call))
        yield injector
    finally:
        for name, call in old.items():
            setattr(os, name, call)


@contextmanager
def no_waiting() -> Iterator[None]:
    """Let fsync return at once."""
    old = os.fsync
    os.fsync = lambda descriptor: None
    try:
        yield
    finally:
        os.fsync = old


def every_fault(publish: Callable[[], None], prepare: Callable[[], None], check: Callable[[], None]) -> int:
    """Run `publish` once per fault, each time after `prepare`, and `check` what is left; how many faults there were."""
    with no_waiting():
        return _every_fault(publish, prepare, check)


def _every_fault(publish: Callable[[], None], prepare: Callable[[], None], check: Callable[[], None]) -> int:
    prepare()
    with faults(None) as counted:
        publish()
    runs = 0
    for stop in range(1, len(counted.seen) + 1):
        for after in (False, True):
            prepare()
            try:
                with faults(stop, after=after):
                    publish()
            except Killed:
                runs += 1
            check()
    return runs
