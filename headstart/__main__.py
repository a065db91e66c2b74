"""Entry point of `headstart` and `python -m headstart`; sets up signals and streams first."""

import sys

from headstart.cli.process import begin


def main() -> int:
    """Run the command in sys.argv; returns its exit code."""
    begin()
    from headstart.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
