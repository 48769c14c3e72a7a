"""Make .venv and install this project into it with the pinned versions, unless that has been done already.

    python3 bootstrap.py [--into FOLDER] [EXTRA ...]     e.g. `python3 bootstrap.py dev`; `core`: no extra

Standard library only. A stamp in the environment records what was installed from which files, so that a
second call returns at once. PONTRYAGIN_TORCH=any lifts the pin of torch (for GPU machines); any other value
is a version to install.
"""

import argparse
import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def constraints() -> str:
    """The pinned versions, torch's as PONTRYAGIN_TORCH says. Of Python 3.10 torch's alone: for it the others
    have no releases any more."""
    wanted = os.environ.get("PONTRYAGIN_TORCH", "")
    lines = []
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if wanted and line.startswith("torch=="):
            line = "" if wanted == "any" else f"torch=={wanted}"
        elif sys.version_info < (3, 11) and not line.startswith("torch=="):
            line = ""
        lines.append(line)
    return "\n".join(lines) + "\n"


def fingerprint(extras: list[str]) -> str:
    parts = [sys.version, str(ROOT), ",".join(extras), constraints(), (ROOT / "pyproject.toml").read_text()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def install(environment: Path, extras: list[str]) -> None:
    python = environment / "bin" / "python"
    if not python.exists():
        print(f"Making {environment.name} ...", flush=True)
        try:
            venv.create(environment, with_pip=True)
        except subprocess.CalledProcessError as error:
            sys.exit(f"python3 cannot make a virtual environment ({error}); on Debian: apt install "
                     "python3-venv")
    pinned = environment / "constraints.txt"
    pinned.write_text(constraints())
    wanted = f"[{','.join(extras)}]" if extras else ""
    print(f"Installing pontryagin{wanted} into {environment.name}; the first time takes a minute or two ...",
          flush=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint",
           str(pinned)]
    # torch on its own line, before anything can ask for a newer one
    torch = next((line for line in constraints().splitlines() if line.startswith("torch==")), "torch>=2.6")
    for what in ([torch], ["--editable", f"{ROOT}{wanted}"]):
        done = subprocess.run([*pip, *what], check=False)
        if done.returncode:
            sys.exit(f"pip could not install {what[-1]} (exit status {done.returncode}); its message stands "
                     "above")


def main(environment: Path, extras: list[str]) -> None:
    if sys.version_info < (3, 10):  # noqa: UP036 - run by whatever python3 is there
        sys.exit(f"pontryagin needs Python 3.10 or newer, found {sys.version.split()[0]}")
    environment.mkdir(exist_ok=True)
    stamp = environment / "pontryagin-stamp"
    with (environment / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = fingerprint(extras)
        if stamp.exists() and stamp.read_text() == wanted:
            return
        install(environment, extras)
        partial = stamp.with_suffix(".tmp")
        partial.write_text(wanted)
        partial.replace(stamp)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(allow_abbrev=False,
                                     description="Make an environment with the pinned versions.")
    parser.add_argument("--into", default=".venv", metavar="FOLDER",
                        help="of the environment, from here; by default .venv")
    parser.add_argument("extras", nargs="*", metavar="EXTRA",
                        help="by default experiments; core: the core dependencies alone")
    given = parser.parse_args()
    main(ROOT / given.into, sorted({*given.extras} - {"core"}) if given.extras else ["experiments"])
