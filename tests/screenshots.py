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

WIDTHS, SCHEMES, HEIGHT, MOST = (1280, 390), {"light": 1, "dark": 0}, 12000, 60000
"""Pixels; what chromium calls the schemes; pixels of one shot, which chromium bounds, and of a page."""


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
    """One picture, of as many shots as the page is long, without the empty space below it."""
    parts: list[np.ndarray] = []
    while len(parts) * HEIGHT < MOST and (not parts or len(filled(parts[-1]))):
        parts.append(shot(page, width, scheme, len(parts) * HEIGHT))
    rows = np.concatenate(parts)
    ends = filled(rows)
    Image.fromarray(rows[:int(ends[-1]) + 20 if ends.size else 20]).save(name)


def filled(rows: np.ndarray) -> np.ndarray:
    """The numbers of the rows that are not like the last one."""
    return np.flatnonzero((rows != rows[-1:, :1, :]).any(axis=(1, 2)))


def shot(page: Path, width: int, scheme: int, top: int) -> np.ndarray:
    """The page from `top` pixels on."""
    with TemporaryDirectory() as frames:
        frame, taken = Path(frames) / "frame.html", Path(frames) / "shot.png"
        frame.write_text(
            '<meta name="color-scheme" content="light dark"><body style="margin:0;overflow:hidden">'
            f'<iframe style="border:0;position:absolute;top:-{top}px" width="{width}" height="{MOST}" '
            f'src="{escape(page.resolve().as_uri())}"></iframe>')
        subprocess.run(["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                        f"--blink-settings=preferredColorScheme={scheme}",
                        f"--user-data-dir={frames}/profile", f"--window-size={max(width, 500)},{HEIGHT}",
                        f"--screenshot={taken}", frame.as_uri()],
                       check=True, capture_output=True, timeout=120)
        return np.asarray(Image.open(taken).convert("RGB"))[:HEIGHT, :width]


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(page) for page in sys.argv[2:]])
