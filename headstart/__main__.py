"""`headstart`, and `python -m headstart`: signals and streams are seen to before the rest loads."""

import sys

from headstart.cli.process import begin


def main() -> int:
    """Run the command that the words of the process name; returns its exit code."""
    begin()
    from headstart.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
