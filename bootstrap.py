"""Make .venv and install this project into it with the pinned versions, unless that has been done already.

    python3 bootstrap.py EXTRA [EXTRA ...]     e.g. `python3 bootstrap.py dev`

Standard library only. A stamp in .venv records what was installed from which files, so that a second call returns
at once. PONTRYAGIN_TORCH=any lifts the pin of torch (for GPU machines); any other value is a version to install.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
STAMP = ENVIRONMENT / "pontryagin-stamp"


def constraints() -> str:
    """The pinned versions, torch's as PONTRYAGIN_TORCH says."""
    wanted = os.environ.get("PONTRYAGIN_TORCH", "")
    lines = []
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if wanted and line.startswith("torch=="):
            line = "" if wanted == "any" else f"torch=={wanted}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def fingerprint(extras: list[str]) -> str:
    parts = [sys.version, str(ROOT), ",".join(extras), constraints(), (ROOT / "pyproject.toml").read_text()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def install(extras: list[str]) -> None:
    if not PYTHON.exists():
        print("Making .venv ...", flush=True)
        try:
            venv.create(ENVIRONMENT, with_pip=True)
        except subprocess.CalledProcessError as error:
            sys.exit(f"python3 cannot make a virtual environment ({error}); on Debian: apt install python3-venv")
    pinned = ENVIRONMENT / "constraints.txt"
    pinned.write_text(constraints())
    print(f"Installing pontryagin[{','.join(extras)}] into .venv; the first time takes a minute or two ...", flush=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", str(pinned)]
    # torch on its own line, before anything can ask for a newer one
    torch = next((line for line in constraints().splitlines() if line.startswith("torch==")), "torch>=2.6")
    for what in ([torch], ["--editable", f"{ROOT}[{','.join(extras)}]"]):
        done = subprocess.run([*pip, *what], check=False)
        if done.returncode:
            sys.exit(f"pip could not install {what[-1]} (exit status {done.returncode}); its message stands above")


def main(extras: list[str]) -> None:
    if sys.version_info < (3, 10):  # noqa: UP036 - run by whatever python3 is there
        sys.exit(f"pontryagin needs Python 3.10 or newer, found {sys.version.split()[0]}")
    ENVIRONMENT.mkdir(exist_ok=True)
    with (ENVIRONMENT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = fingerprint(extras)
        if STAMP.exists() and STAMP.read_text() == wanted:
            return
        install(extras)
        partial = STAMP.with_suffix(".tmp")
        partial.write_text(wanted)
        partial.replace(STAMP)


if __name__ == "__main__":
    main(sorted(set(sys.argv[1:])) or ["experiments"])
