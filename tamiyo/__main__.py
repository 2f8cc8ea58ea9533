"""Run the script `tamiyo` or `python -m tamiyo`; Ctrl-C during imports is reported like any later one."""

import signal
import sys


def main() -> None:
    """Run the command that the arguments name."""
    try:
        from tamiyo.cli import app

        app()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        # the status is decided: Ctrl-C while Python shuts down does not change it
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # `python -m` ends by SIGINT, whatever the status, if the last `exec` of a string, as of a dataclass, was interrupted
        exec("")


if __name__ == "__main__":
    main()
