"""Two command lines of every command, for its help."""

_OWN = "--model my.module:Net --data my.module:load"
_RUNS = ("--quick", "--out runs/mine --seeds 3")


def _two(path: str, options: tuple[str, str] = _RUNS) -> tuple[str, str]:
    first, second = (f"pontryagin {path} {each}".strip() for each in options)
    return first, second


EXAMPLES = {
    "": ("pontryagin train --quick", "pontryagin reproduce sine --quick"),
    "train": _two("train", (f"{_OWN} --epochs 5", "--data digits --model mlp --method adam --lr find")),
    "compare": _two("compare", ("--methods emsa,adam --tune 20", "--model mlp --seeds 3 --tune find")),
    "predict": _two("predict", ("runs/train", "runs/train --predictions predictions.csv")),
    "report": _two("report", ("runs/train", "runs/certificate")),
    "reproduce": _two("reproduce", ("sine --quick", "mnist --quick")),
    "reproduce sine": _two("reproduce sine", ("--quick", "--methods emsa,adam --iterations 500 --seeds 1")),
    "reproduce sine-released": _two("reproduce sine-released", ("--quick", "--methods emsa --seeds 1")),
    "reproduce sine-released-1000": _two("reproduce sine-released-1000", ("--quick", "--regularizer 0")),
    "reproduce saddle": _two("reproduce saddle", ("", "--places 10 --out runs/saddle-coarse")),
    "reproduce plateau": _two("reproduce plateau", ("", "--out runs/plateau-again --overwrite")),
    "reproduce control": _two("reproduce control", ("--problems minimum-time", "--repeats 1")),
    "reproduce certificate": _two("reproduce certificate"),
    "reproduce wall-clock": _two("reproduce wall-clock", ("--quick", "--methods emsa,adam --seeds 3")),
    "bench": _two("bench", ("scaling --quick", "panel --list")),
    "bench optimizers": _two("bench optimizers", ("--task mlp --methods emsa,adam", "--task cnn --seeds 3")),
    "bench panel": _two("bench panel", ("--list", "--subset --seconds 2 --tuning rate --seeds 1")),
    "bench scaling": _two("bench scaling", ("--quick", "--processes 2,4")),
    "data": _two("data", ("", "fetch mnist")),
    "data fetch": _two("data fetch", ("mnist", "mnist,fashion-mnist")),
    "export": _two("export", ("runs/ternary/models/emsa-seed0.pt --out net.packed",
                              "net.packed --unpack --out net.pt")),
    "audit": _two("audit", ("my.module:Net my.module:load --weights net.pt",
                            "mlp digits --sets binary-rows,ternary-rows --predict-only")),
    "completion": ("pontryagin completion bash > ~/.pontryagin-completion",
                   "pontryagin completion zsh > ~/.pontryagin-completion"),
    **{f"reproduce {name}": _two(f"reproduce {name}")
       for name in ("binary", "ternary", "mnist", "fashion-mnist")},
}
