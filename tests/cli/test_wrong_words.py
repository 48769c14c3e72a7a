"""Wrong words on the command line and in files of options: one line that says what was expected, nothing on
disk, nothing begun."""

import os
from pathlib import Path

import pytest

from pontryagin.cli import main
from pontryagin.cli.document import options_in

AFTER = "expected a value after it"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line that a wrong request gets."""
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("pontryagin: ")
    assert printed.err.count("\n") == 1
    assert len(printed.err) < 500
    assert not printed.out
    assert os.listdir() == []
    return printed.err


@pytest.mark.parametrize(("words", "told"), [
    # numbers where words belong, and the reverse
    ("train --lr fast", "--lr: expected a number or find, found 'fast'"),
    ("train --lr nan", "--lr: expected a number or find, found 'nan'"),
    ("train --seed abc", "--seed: expected a whole number, found 'abc'"),
    ("train --epochs 2.5", "--epochs: expected a whole number, found '2.5'"),
    ("bench scaling --processes abc", "--processes: expected whole numbers with commas, found 'abc'"),
    ("bench scaling --processes 2,many", "--processes: expected whole numbers with commas"),
    ("bench scaling --processes 0", "--processes: expected a number >= 1, found 0"),
    ("train --seed -1", "--seed: expected a number >= 0, found -1"),
    ("compare --rates.adam soon", "--rates.adam: adam: expected a number, found 'soon'"),
    ("train --method 3", "unknown method '3'"),
    ("train --quick=maybe", "--quick: expected true or false, found 'maybe'"),
    ("train --target-accuracy inf", "--target-accuracy: expected a number"),
    ("train --model-args.width [1", "--model-args.width: "),
    # numbers without end
    ("train --seeds 1000000000", "--seeds: expected 1 to 10000 runs"),
    ("train --seeds 1,99999999999", "--seeds: expected different seeds from 0 to 4294967295"),
    ("reproduce sine --seeds 3,3", "--seeds: expected different seeds"),
    ("train --epochs 99999999999999999999", "--epochs: expected a whole number"),
    ("train --threads -3", "--threads: expected a number >= 1, found -3"),
    ("train --threads 100000", "--threads: expected a number from 1 to "),
    ("bench panel --seconds 9999999999999", "--seconds: expected a number from 0 to 1e+09"),
    ("reproduce binary --width 1000000000", "--width: expected a number from 1 to 16384"),
    ("audit mlp digits --batches 2", "--batches: expected a number >= 3, found 2"),
    ("train --epochs 1_0", "--epochs: expected a whole number, found '1_0'"),
    ("train --epochs +-3", "--epochs: expected a whole number, found '+-3'"),
    ("train --epochs \u0663", "--epochs: expected a whole number"),
    ("train --lr \u0660.\u0661", "--lr: expected a number or find"),
    ("train --lr 1_0", "--lr: expected a number"), ("train --lr 1e400", "--lr: expected a number or find"),
    ("train --seeds 5-9", "whole numbers with commas"),
    ("train --seeds \u0661,2", "whole numbers with commas"),
    ("train --class-weights 1_0,1", "--class-weights: expected numbers with commas"),
    # nearly right
    ("train --itertions 3", "train has no option '--itertions'; did you mean --iterations?"),
    ("train --iteration 3", "did you mean --iterations?"),
    ("reproduce sine --iteration-count 3", "reproduce sine has no option '--iteration-count'"),
    ("train -epochs 3", "train has no option '-epochs'; did you mean --epochs?"),
    ("train --method adamm", "did you mean adam or adamw?"),
    ("train --method emsa-papper", "did you mean emsa-paper?"),
    ("train --model residualcnn", "did you mean residual-cnn?"),
    ("train --data minst", "did you mean mnist?"),
    ("train --loss crossentropy", "did you mean cross-entropy?"),
    ("train --schedule cosin", "did you mean cosine?"),
    ("train --dtype float",
     "unknown --dtype 'float': expected float32, float64, bfloat16; did you mean float64"),
    ("tran", "unknown command 'tran': expected train, compare"),
    ("reproduce sinus", "unknown experiment 'sinus'"),
    ("data ftch", "unknown action 'ftch': expected fetch; did you mean fetch?"),
    ("data fetch minst", "did you mean mnist?"),
    ("audit mlp digits --sets 4-bit,int9", "unknown admissible set 'int9'"),
    ("--seed 3 train", "'--seed': options follow the command"),
    # lists with blanks, words that belong nowhere
    ("compare --methods emsa adam", "a list has commas and no blanks: --methods emsa,adam"),
    ("compare --methods emsa,,adam", "--methods: expected names with commas"),
    ("train --epochs 3 mnist", "'mnist' belongs to no option"),
    ("train --lr", f"--lr: {AFTER}"),
    ("train --lr --epochs 3", f"--lr: {AFTER}, found the option '--epochs'"),
    ("train --method.emsa 1", "--method has no parts"), ("audit mlp", "audit: expected DATA"),
    ("predict", "predict: expected PATH"), ("export", "export: expected MODEL"),
    # what would have no effect
    ("compare --rates.lion 0.1", "lion is not run, so this would have no effect"),
    ("compare --options.lion.betas 0.1", "lion is not run"),
    ("reproduce binary --methods bop --rates.adam 0.1", "adam is not run"),
    ("train --data-args.folder /tmp", "'digits' has no argument folder"),
    ("train --data-args.foldr /tmp", "takes (name"), ("train --model-args.widht 3", "widht"),
    ("train --options.dampin 1", "unknown option of emsa 'dampin'"),
    ("train --seed 3 --seeds 1,2", "--seed and --seeds 1,2: give one of them"),
    ("train --data-args.standardize maybe", "standardize: expected true or false, found 'maybe'"),
    ("audit mlp digits --loss squared-error", "network, data and loss do not fit"),
    ("audit torch.nn:Linear digits --model-args.in_features 3 --model-args.out_features 3",
     "network, data and loss do not fit"),
    ("data fetch mnist --mirror file:///x", "--mirror: expected addresses as https://HOST/FOLDER"),
    ("data fetch mnist --mirror http://[::1", "--mirror: expected addresses"),
    ("data fetch mnist --mirror http://a:b/", "--mirror: expected addresses"),
    ("train --lr 1e31", "--lr: expected a rate > 0 and at most 1e+30"),
    ("train --options.density 0.1", "density: has no effect without admissible ternary"),
    ("data --folder nowhere", "--folder nowhere: expected a folder of IDX files, found nothing"),
    ("train --clip-norm 1", "--clip-norm: has no effect on emsa"),
    ("compare --methods emsa-paper,li-hao --warm-up 3", "--warm-up: has no effect on emsa-paper, li-hao"),
    ("train --schedule cosine --method emsa-paper", "--schedule: has no effect on emsa-paper"),
    ("train --num-workers 2", "--num-workers: these data are tensors in memory"),
    ("train --collate os:getcwd", "--collate: these data are tensors in memory"),
    # what a recipe cannot have
    ("train --warm-up 2.5", "--warm-up: expected a number of iterations, or a share"),
    ("train --warm-up -1", "--warm-up: expected a number >= 0"),
    ("train --patience 0", "--patience: expected a number >= 1"),
    ("train --clip-norm 0 --method adam", "--clip-norm: expected a number >= 1e-30"),
    ("train --num-workers 1000", "--num-workers: expected a number from 0 to 256"),
    ("train --autocast --dtype float64", "--autocast: expected --dtype float32"),
    ("train --validation 1.5", "--validation: expected a share between 0 and 1"),
    ("train --validation own", "--validation own: the data have no validation part"),
    ("train --class-weights 1,2", "--class-weights: expected a weight for each of the 10 outputs, found 2"),
    ("train --class-weights all", "--class-weights: expected numbers with commas or balanced"),
    ("train --loss squared-error --class-weights balanced", "the loss squared-error tells no classes"),
    ("train --metric f1", "metric 'f1': expected package.module:name"),
    ("train --weights nowhere.pt", "nowhere.pt: cannot be read (No such file or directory)"),
    ("train --weights .", "cannot be read (Is a directory)"), ("report", "report: expected FOLDER"),
    ("report nowhere", "nowhere: expected the folder of a run, with its summary.json, found no such folder"),
    # paths
    ("train --data /tmp", "is a folder or file of this machine: name the data set"),
    ("train --out ~nosuchuser/run", "there is no such user"),
    (f"train --out {'x' * 300}", "(File name too long)"), (f"train --out {'x/' * 3000}", "at most 4096"),
    ("train --config nowhere.yaml", "cannot be read (No such file or directory)"),
    ("train --config /", "cannot be read (Is a directory)"),
    ("train --out /dev/null", "found a file"),
    ("train --model ./net.py:Net", "for a file ./net.py write net:Net"),
    ("export nowhere.pt --out x", "nowhere.pt: expected a file with a model, found nothing")])
def test_a_wrong_word_gets_one_line(words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told in refused(capsys, *words.split(" "))


@pytest.mark.parametrize(("arguments", "told"), [
    (("compare", "--methods", "emsa adam"), "write emsa,adam, with commas and no blanks"),
    (("train", "--out", "\udcff"), "printable characters in UTF-8"),
    (("train", "--out", "a\nb"), "printable characters"), (("train", "--method", ""), "found nothing"),
    (("train", "--model-args", "3"), "--model-args: expected names with values"),
    (("train", "--options", "{damping: [1}"), "--options: ")])
def test_a_word_that_a_shell_must_quote(arguments: tuple[str, ...], told: str,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    assert told in refused(capsys, *arguments)


@pytest.mark.parametrize(("command", "content", "told"), [
    ("train", b"itertions: 3", "train has no option 'itertions'; did you mean iterations?"),
    ("reproduce sine", b"seed: 3", "reproduce sine has no option 'seed'; did you mean seeds?"),
    ("bench optimizers", b"sedes: 3", "bench optimizers has no option 'sedes'; did you mean seeds?"),
    ("train", b"rates: {adam: 1}", "train has no option 'rates'"),
    ("compare", b"rates: {adam: x}", "adam: expected a number, found 'x'"),
    ("compare", b"rates: {adam: {x: 1}}", "adam: expected a number"),
    ("train", b"3: 4", "train has no option 3"), ("train", b"", "found nothing"),
    ("train", b"- epochs", "found a list"), ("train", b"epochs", "found a str"),
    ("train", b"epochs: [1", "found an error: expected ',' or ']'"),
    ("train", b"epochs: 1\nepochs: 2", "a key is there twice"),
    ("train", b"model_args: &a {w: 1}\ndata_args: *a", "a reference (*) is not taken"),
    ("train", b"out: !!python/object/apply:os.system [true]", "could not determine a constructor"),
    ("train", b"out: \"a\\0b\"", "printable characters"),
    ("train", bytes(range(128, 256)), "bytes that are not UTF-8"),
    ("train", b"\x7fELF\x01", "found an error"), ("train", b"x" * (1 << 21), "more than 1048576 bytes"),
    ("train", b"[" * 5000, "nested too deeply"),
    ("train", b"model_args: {a: " + b"[" * 30 + b"]" * 30 + b"}", "within each other"),
    ("predict", b"method: [emsa]", "method: expected a text"),
    ("train", b"epochs: !!int abc", "a tag (!!...) does not fit its value"),
    ("train", b"lr: !!float abc", "a tag (!!...) does not fit its value"),
    ("train", b"epochs: !!timestamp x", "a tag (!!...) does not fit its value"),
    ("train", b"epochs: !!bool maybe", "a tag (!!...) does not fit its value"),
    ("train", b"<<: {epochs: 1}", "train has no option '<<'"),
    ("train", b"\tepochs: 1", "cannot start any token"),
    ("train", b"epochs: 1\n---\nepochs: 2", "another document"), ("train", b"epochs: 1\0", "unacceptable"),
    ("train", "epochs: 1".encode("utf-16"), "bytes that are not UTF-8")])
def test_a_wrong_file_of_options_is_named(command: str, content: bytes, told: str, tmp_path: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "options.yaml"
    path.write_bytes(content)
    line = refused(capsys, *command.split(), "--config", str(path))
    assert told in line
    assert str(path) in line or "--seeds" in told


@pytest.mark.parametrize(("name", "kind", "value"), [(name, kind, value) for name, kind, values in (
    ("epochs", "a whole number", ("null", "9" * 23, "9" * 5000, "two")), ("method", "a text", ("3",)),
    ("quick", "true or false", ("1",)), ("lr", "a number or find", ("2024-01-01", ".nan")),
    ("seeds", "a whole number or whole numbers with commas", ("[]", "x")),
    ("options", "names with values", ("3", "[]")), ("out", "a path", ("!!binary aGk=", "[a]")),
    ("validation", "a number or own", ("half", "[0.1]")), ("patience", "a whole number", ("0.5",)),
    ("class_weights", "numbers with commas or balanced", ("balance", "{a: 1}", "[]")),
    ("autocast", "true or false", ("bfloat16",)), ("weights", "a path", ("3", "[]"))) for value in values])
def test_a_wrong_value_in_a_file_of_options_is_named(name: str, kind: str, value: str, tmp_path: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "options.yaml"
    path.write_text(f"{name}: {value}")
    assert f"{path}: {name}: expected {kind}" in refused(capsys, "train", "--config", str(path))


def test_a_file_without_permission_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "x").write_text("epochs: 1")
    monkeypatch.setattr(Path, "open", denied)
    assert "cannot be read (Permission denied)" in refused(capsys, "train", "--config", str(tmp_path / "x"))


@pytest.mark.skipif(os.name != "posix", reason="needs pipes and devices")
@pytest.mark.parametrize("words", ["train --config FILE", "train --weights FILE", "predict FILE",
                                   "audit mlp digits --weights FILE", "export FILE --out x"])
def test_what_has_no_end_is_not_read(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for file in (str(tmp_path / "pipe"), "/dev/zero"):
        line = refused(capsys, *words.replace("FILE", file).split())
        assert "is no file but a device or a pipe" in line or "expected a file with a model" in line
    assert "loop" in refused(capsys, *words.replace("FILE", str(tmp_path / "loop")).split())


def test_what_a_shell_puts_in_the_place_of_a_file_is_read() -> None:
    read, write = os.pipe()
    os.write(write, b"epochs: 7\n")
    os.close(write)
    try:
        assert options_in(Path(f"/dev/fd/{read}")) == {"epochs": 7}
    finally:
        os.close(read)


def test_no_folder_is_left_where_another_cannot_be_made(tmp_path: Path,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert "(File exists)" in refused(capsys, "train", "--out", "a/../b/../../file")
    assert "(Not a directory)" in refused(capsys, "train", "--out", "../file/a/b")


def test_a_bare_command_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert "train a model by several methods" in capsys.readouterr().out
    assert run("reproduce") == 0
    assert "wall-clock" in capsys.readouterr().out
