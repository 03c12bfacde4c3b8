"""Write the README's badge from the repository's address in `_config.yml`, or take it out.

.venv/bin/python -m crane_lab.cli.badge
"""

from __future__ import annotations

import sys

from crane_lab.runs.repository import read_address, with_badge
from crane_lab.store import ROOT
from crane_lab.store.files import write_text


def main() -> int:
    """Rewrite README.md; return the exit status, 1 if the address is none."""
    try:
        address = read_address(ROOT)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    path = ROOT / "README.md"
    write_text(path, with_badge(path.read_text(encoding="utf-8"), address))
    print(f"README.md: badge of {address}" if address else "README.md: no badge, no address")
    return 0


if __name__ == "__main__":
    sys.exit(main())
