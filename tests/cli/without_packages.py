"""A program: commands of `pontryagin`, one after the other, in a process in which some packages cannot be
imported.

    python without_packages.py matplotlib,scipy '[["train"], ["reproduce", "sine"]]'

Prints a JSON list with an exit status, what was printed and what was complained of, for each.
"""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout

if __name__ == "__main__":
    sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))  # None: Python takes the package for absent
    from pontryagin.cli import main

    results = []
    for command in json.loads(sys.argv[2]):
        with redirect_stdout(io.StringIO()) as printed, redirect_stderr(io.StringIO()) as complained:
            try:
                main(command)
            except SystemExit as ended:
                results.append([int(ended.code or 0), printed.getvalue(), complained.getvalue()])
    print(json.dumps(results))
