"""Starting this package's test programs with torchrun."""

import os
import subprocess
import sys
from pathlib import Path

PATIENCE = 30.0
"""Seconds that torchrun gives the others to end before it kills them."""


def torchrun(ranks: int, program: Path, *arguments: str, options: tuple[str, ...] = (), limit: float = 120
             ) -> subprocess.CompletedProcess[str]:
    """The finished run, output captured."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1",
                   "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}",
               *options, str(program)]
    return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True,
                          timeout=limit)
