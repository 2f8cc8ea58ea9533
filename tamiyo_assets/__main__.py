"""The script `tamiyo`, and `python -m tamiyo_assets`: Ctrl-C while modules are imported is told like any later one."""

import sys


def main() -> None:
    """Run the command that the arguments name."""
    try:
        from tamiyo_assets.cli import app

        app()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        # CPython ends by SIGINT itself, whatever the status, if the last `exec` of a string was interrupted, as of a dataclass
        exec("")


if __name__ == "__main__":
    main()
