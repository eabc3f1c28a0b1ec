"""`python -m evalkit` and the command `evalkit`."""

from __future__ import annotations

import sys

from evalkit import interruption


def main() -> None:
    """Run the command line and leave with its exit code."""
    interruption.heed_signals()
    try:
        from evalkit.commands.main import run_command_line

        code = run_command_line(sys.argv[1:])
    except interruption.Interrupted:  # on the way in or out
        interruption.tell()
        code = interruption.exit_code() or 1
    interruption.finish()
    sys.exit(code)


if __name__ == "__main__":
    main()
