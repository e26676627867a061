"""Write tests/cli/surface.txt, the golden file of the command line's surface: run after changing a command.

python tools/update_cli_surface.py
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Write the file, and say whether it changed."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "cli")]
    import surface

    text = surface.surface()
    changed = not surface.GOLDEN.exists() or surface.GOLDEN.read_text(encoding="utf-8") != text
    surface.GOLDEN.write_text(text, encoding="utf-8")
    print(f"{surface.GOLDEN.relative_to(ROOT)}: {'changed; look at its diff' if changed else 'as it was'}")


if __name__ == "__main__":
    main()
