"""Dataclasses of settings as options, and what was given as values of their fields."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pontryagin.cli import main
from pontryagin.cli.commands import COMMANDS, called, command
from pontryagin.cli.options import options_of
from pontryagin.cli.training import MethodOptions, TaskOptions
from pontryagin.run.errors import ExperimentError
from pontryagin.run.option import option
from pontryagin.run.settings import RunSettings


def values(*arguments: str) -> dict[str, Any]:
    return called(arguments)[1].values


def test_only_fields_with_a_help_text_are_options() -> None:
    @dataclass(frozen=True)
    class Some:
        seen: dict[str, int] = option("is one", {})
        hidden: int = 3

    assert list(options_of(Some)) == ["seen"]
    assert Some().seen == {}
    assert Some().seen is not Some().seen
    assert {"limits", "tune", "find"}.isdisjoint(options_of(RunSettings))


def test_every_command_of_the_list_is_there_and_no_other() -> None:
    for path, (module, _) in COMMANDS.items():
        if module:
            assert all(one.metadata["help"] for one, _ in command(path).options.values())
            assert set(command(path).defaults) | set(command(path).helps) <= set(command(path).options)


def test_lists_paths_and_dicts_are_those_of_the_settings() -> None:
    found = values("compare", "--methods", "emsa, adam", "--rates.adam", "0.002", "--options.emsa.damping",
                   "0.3",
                   "--model-args.width", "8")
    assert found["methods"] == ("emsa", "adam")
    assert found["rates"] == {"adam": 0.002}
    assert found["options"] == {"emsa": {"damping": 0.3}}
    assert found["model_args"] == {"width": 8}
    assert found["out"] == Path("runs/compare")
    assert type(found["options"]) is type(found["options"]["emsa"]) is dict
    assert values("compare", "--methods", "all")["methods"] is None
    assert values("bench", "scaling", "--processes", "2,4")["processes"] == (2, 4)


def test_quick_puts_its_values_in_the_place_of_those_given() -> None:
    assert values("train", "--quick", "--seeds", "5", "--seed", "3")["seeds"] == 1
    found = values("reproduce", "mnist", "--quick", "--tune", "7")
    assert (found["iterations"], found["seeds"], found["paper_iterations"], found["tune"]) == (100, 1, 3, 20)
    assert values("bench", "scaling", "--quick")["rounds"] == 7


def test_what_the_user_gave_is_known_from_the_command_line_and_from_files(tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text("batch_size: 7\noptions:\n  damping: 0.2\n")
    arguments = ["train", "--config", str(tmp_path / "some.yaml"), "--model-args.width", "8", "--resume"]
    path, call = called(arguments)
    assert path == "train"
    assert set(call.given) == {"batch_size", "options", "model_args", "resume"}
    assert call.of(TaskOptions)["model_args"] == {"width": 8}
    assert call.make(MethodOptions, method="adam") == MethodOptions("adam", None, {"damping": 0.2})
    assert call.line == f"pontryagin train --config {tmp_path / 'some.yaml'} --model-args.width 8 --resume"


@pytest.mark.parametrize("arguments", [
    ("compare", "--options.emsa.damping", "0.3", "--rates.adam", "0.1", "--methods", "all", "--quick"),
    ("reproduce", "binary", "--options.li-hao.rho", "0.3", "--width", "8", "--seeds", "4,7"),
    ("bench", "scaling", "--processes", "2,4"), ("reproduce", "fashion-mnist", "--tuning", "scores.json"),
    ("audit", "mlp", "digits", "--sets", "binary,ternary", "--predict-only")])
def test_a_printed_config_says_the_same(arguments: tuple[str, ...], tmp_path: Path,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        called([*arguments, "--print_config"])
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    named = arguments[:3] if arguments[0] == "audit" else arguments[:1 if arguments[0] == "compare" else 2]
    assert values(*named, "--config", str(tmp_path / "printed.yaml")) == values(*arguments)


@pytest.mark.parametrize(("option", "value", "read"), [
    ("seeds", "1,5,9", (1, 5, 9)), ("seeds", "4", 4), ("tune", "7", 7), ("data", "digits", "digits"),
    ("folder", "some", Path("some"))])
def test_an_option_means_the_same_in_every_command(option: str, value: str, read: Any) -> None:
    needed = {"predict": ["a.pt"]}
    having = [path for path, (module, _) in COMMANDS.items()
              if module and option in command(path).options and path not in ("audit", "report")]
    assert len(having) > 2
    for path in having:
        words = [*path.split(), *needed.get(path, []), f"--{option}"]
        assert str(values(*words, value)[option]) == str(read), path
        with pytest.raises(ExperimentError, match=f"--{option}: expected .*, found nothing"):
            values(*words, "")


RECIPE = {"--num-workers": "2", "--clip-norm": "0.1", "--warm-up": "0.25", "--autocast": None,
          "--patience": "4",
          "--metric": "their.module:f1", "--class-weights": "1,2.5,0", "--validation": "0.125",
          "--weights": "folder/net.safetensors", "--collate": "their.module:stacked", "--lr": "find",
          "--target-loss": "1e-05", "--seeds": "1,5,9", "--model-args": "{b: [1, {c: x}], a: null, y: 'no'}"}
OTHERS = {"--class-weights": "balanced", "--validation": "own", "--warm-up": "300", "--lr": "3e-4",
          "--seeds": "7", "--num-workers": "0"}


@pytest.mark.parametrize("options", [*({one: value} for one, value in RECIPE.items()), OTHERS, RECIPE,
                                     dict(reversed(RECIPE.items()))], ids=str)
@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_printed_config_is_printed_again_letter_by_letter(command: str, options: dict[str, str | None],
                                                            tmp_path: Path,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    given = [word for one, value in options.items() if command == "train" or one != "--lr"
             for word in (one, value) if word is not None]
    path = tmp_path / "printed.yaml"
    with pytest.raises(SystemExit):
        called([command, *given, "--print_config"])
    path.write_text(capsys.readouterr().out)
    with pytest.raises(SystemExit):
        called([command, "--config", str(path), "--print_config"])
    assert capsys.readouterr().out == path.read_text()
    _, first = called([command, *given])
    _, again = called([command, "--config", str(path)])
    for kind in (TaskOptions, RunSettings):
        assert again.of(kind) == first.of(kind)
        assert list(map(type, again.of(kind).values())) == list(map(type, first.of(kind).values()))


def test_a_comparison_that_has_not_begun_is_resumed_with_its_own_methods(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    monkeypatch.setattr("pontryagin.cli.training.run_training",
                        lambda task, settings, *rest: found.update(settings=settings) or exit(0))
    with pytest.raises(SystemExit):
        main(["compare", "--resume", "--out", str(tmp_path), "--data", "digits", "--model", "mlp"])
    assert found["settings"].methods == ("emsa", "sgd-momentum", "adam")
