"""Values of a wrong type are refused in words too where shapes and types are not checked at run time."""

import json
import subprocess
import sys

SCRIPT = """
import json, torch
from pontryagin.problem import *
torch.set_num_threads(1)
linear = stage(torch.nn.Linear(3, 2))
x, y, functions = torch.ones(4, 3), torch.ones(4, 2), {}
cases = {
    "a module": lambda: ControlProblem([torch.nn.Linear(3, 2)], SquaredError(), x, y),
    "no tensor": lambda: ControlProblem([linear, stage(lambda x, _: None)], SquaredError(), x, y),
    "integer states": lambda: ControlProblem([linear], SquaredError(), x.long(), y),
    "admissible set": lambda: stage(torch.nn.Linear(3, 2), admissible=3),
    "set of a parameter": lambda: stage(torch.nn.Linear(3, 2), admissible={"weight": 3}),
    "scale": lambda: Ternary("column"),
    "no function": lambda: stage(3),
}
messages = {}
for name, make in cases.items():
    try:
        make()
    except ProblemError as error:
        messages[name] = str(error)
print(json.dumps(messages))
"""
EXPECTED = {
    "a module": "expected a Stage, found Linear: wrap it with stage(...)",
    "no tensor": "stage 1 (<lambda>) must return one state a sample: for 2 samples found NoneType",
    "integer states": "stage 0 (Linear) cannot take states of shape (3,) and dtype torch.int64 from the "
                      "initial state: mat1 and mat2 must have the same dtype, but got Long and Float",
    "admissible set": "Linear: expected an admissible set such as RealSpace(), found 3",
    "set of a parameter": "Linear, weight: expected a set of matrices such as Binary() or Box(-1, 1), found "
                          "3",
    "scale": "Ternary: expected a finite scale > 0, or \"row\" for a scale per row, found 'column'",
    "no function": "expected a torch module or a function g(x, theta), found 3",
}


def test_refused() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120,
                          check=True)
    assert json.loads(done.stdout) == EXPECTED
