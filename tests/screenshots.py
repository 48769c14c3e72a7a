"""Pictures of reports, to be looked at: `python tests/screenshots.py FOLDER REPORT.html ...`, with chromium
on PATH.

Every page 1280 and 390 pixels wide, light and dark. Narrow ones stand in a frame of a wider window, for a
browser's windows have a least width.
"""

import subprocess
import sys
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

WIDTHS, SCHEMES, HEIGHT = (1280, 390), {"light": 1, "dark": 0}, 16000
"""Pixels; what chromium calls the schemes; pixels, more than most pages have."""


def main(folder: Path, pages: list[Path]) -> None:
    """Every page in every way."""
    folder.mkdir(parents=True, exist_ok=True)
    for page in pages:
        for width in WIDTHS:
            for scheme, number in SCHEMES.items():
                name = folder / f"{page.resolve().parent.name}-{width}-{scheme}.png"
                take(page, name, width, number)
                print(name)


def take(page: Path, name: Path, width: int, scheme: int) -> None:
    """One picture, without the empty space below the page."""
    with TemporaryDirectory() as frames:
        frame = Path(frames) / "frame.html"
        frame.write_text(
            '<meta name="color-scheme" content="light dark"><body style="margin:0"><iframe style="border:0" '
            f'width="{width}" height="{HEIGHT}" src="{escape(page.resolve().as_uri())}"></iframe>')
        subprocess.run(["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                        f"--blink-settings=preferredColorScheme={scheme}",
                        f"--user-data-dir={frames}/profile", f"--window-size={max(width, 500)},{HEIGHT}",
                        f"--screenshot={name}", frame.as_uri()],
                       check=True, capture_output=True, timeout=120)
    picture = Image.open(name).convert("RGB").crop((0, 0, width, HEIGHT))
    rows = np.asarray(picture)
    filled = np.flatnonzero((rows != rows[-1:, :, :]).any(axis=(1, 2)))
    picture.crop((0, 0, width, int(filled[-1]) + 20 if filled.size else 20)).save(name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(page) for page in sys.argv[2:]])
