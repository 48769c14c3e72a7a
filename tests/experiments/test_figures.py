"""Pictures are drawn from whatever a run left behind, and from nothing that is malformed."""

import itertools
import json
import shutil
import struct
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread
from run_directory import HEADERS, read_rows, write_run, write_table

from pontryagin.papers.sine.losses import Curve, band, curves, mark_paper
from pontryagin.papers.sine.report import draw_figures
from pontryagin.papers.sine.steps import achieved_steps, first_rise, stage_sums
from pontryagin.papers.sine.tables import METRICS, first_seed, read_folder
from pontryagin.run.figures.canvas import entry, legend_below, name_lines, new_figure, signed_x
from pontryagin.run.figures.narrow import narrow
from pontryagin.run.tables import Drawing, ReportError, read_table

ALL = ["figure-1a", "figure-1b", "states", "decrease", "gain", "feasibility", "rho", "divergence"]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def drawings(whole_run: Path) -> list[Drawing]:
    return draw_figures(whole_run)


def names(found: list[Drawing]) -> list[str]:
    return [drawing.name for drawing in found]


def test_a_whole_run_gives_every_drawing_as_a_png_of_ten_inches(drawings: list[Drawing],
                                                                whole_run: Path) -> None:
    assert names(drawings) == ALL
    for drawing in drawings:
        assert drawing.path == whole_run / "figures" / f"{drawing.name}.png"
        content = drawing.path.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", content[16:24])
        assert width == 1500
        assert 400 <= height <= 1500
        assert drawing.title
        assert drawing.caption.endswith(".")
        assert drawing.title not in drawing.seen
        assert len(drawing.seen) > 20
    assert "E-MSA from " in drawings[0].seen, "a line is told by its ends"
    assert not list((whole_run / "figures").glob(".*")), "no temporary file may be left"


def test_a_narrow_drawing_has_its_panels_one_below_another(drawings: list[Drawing]) -> None:
    for drawing in drawings:
        assert drawing.narrow is not None
        assert drawing.narrow.name == f"{drawing.name}-narrow.png"
        width, height = struct.unpack(">II", drawing.narrow.read_bytes()[16:24])
        assert width == 630, drawing.name  # 4.2 inches
        assert height > width


def test_narrow_keeps_panels_twins_scales_and_names_and_labels_each_panel() -> None:
    figure = new_figure(6.0)
    panels = figure.subplots(2, 2, sharex="col", sharey="row")
    for number, axes in enumerate(panels.flat):
        axes.plot([1, 10], [number, number + 1], label="a line" if number < 2 else "another", color="blue")
        name_lines(axes, height=2.0)
    panels[1, 1].twinx().plot([1, 2], [5, 6])
    panels[0, 0].set_ylabel("above")
    panels[1, 0].set(ylabel="below", xlabel="left")
    panels[1, 1].set_xlabel("right")
    panels[0, 1].set_title("a title that has more than forty letters in it", loc="left")
    legend_below(figure, [entry("mark", marker="o")])
    narrow(figure)
    figure.draw_without_rendering()
    boxes = [axes.get_position() for axes in panels.flat]
    assert all(upper.y0 > lower.y1 for upper, lower in itertools.pairwise(boxes))
    assert {round(box.x0, 6) for box in boxes} == {round(boxes[0].x0, 6)}
    assert boxes[0].width > 0.5
    assert [axes.get_ylabel() for axes in panels.flat] == ["above", "above", "below", "below"]
    assert [axes.get_xlabel() for axes in panels.flat] == ["left", "right"] * 2
    assert np.allclose(figure.axes[4].get_position().bounds, boxes[3].bounds), "a twin goes along"
    assert "\n" in panels[0, 1].get_title(loc="left")
    assert not any(axes.texts for axes in panels.flat)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a line", "another", "mark"]
    panels[0, 0].set_ylim(-3, 3)
    assert panels[0, 1].get_ylim() == (-3, 3)


def test_turned_names_are_turned_in_every_narrow_panel() -> None:
    figure = new_figure(6.0)
    upper, lower = figure.subplots(2, 1, sharex=True)
    lower.set_xticks(range(3), ["first", "second", "third"], rotation=45, ha="right")
    narrow(figure)
    figure.draw_without_rendering()
    words = [word for word in upper.get_xticklabels() if word.get_text()]
    assert [word.get_text() for word in words] == ["first", "second", "third"]
    assert {word.get_rotation() for word in words} == {45.0}


@pytest.mark.parametrize(("values", "ticks"), [
    ([-9e-5, 2e-4, 0.01, 0.02, 0.4, np.nan], [0, 1e-3, 0.01, 0.1]),
    ([-0.5, -0.02, -0.01, -0.003], [-1, -0.1, -0.01, 0]), ([0.0, np.nan], None)])
def test_an_axis_of_both_signs_is_around_its_values(values: list[float], ticks: list[float] | None) -> None:
    axes = new_figure(3.0).subplots()
    signed_x(axes, np.array(values))
    if ticks is None:
        assert axes.get_xscale() == "linear"
        return
    low, high = axes.get_xlim()
    assert low < min(values) < 4 * max(0, -low)
    assert max(values) < high < 3 * max(*values, 0.01)
    shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert sorted(shown) == pytest.approx(ticks)


def test_marks_of_longer_runs_stand_at_the_end_of_the_curves() -> None:
    axes = new_figure(3.0).subplots()
    marks = {"emsa-paper": {"iteration": 200, "loss": 0.03}, "adam": {"iteration": 10000, "loss": 0.01}}
    assert mark_paper(axes, marks, 200.0) == [10000]
    assert [(line.get_xdata()[0], line.get_marker()) for line in axes.lines] == [(200, "o"), (200, ">")]
    assert [text.get_text() for text in axes.texts] == ["paper"]


def test_a_narrow_panel_of_named_rows_keeps_its_height_and_a_hidden_one_has_no_room() -> None:
    figure = new_figure(9.0)
    upper, lower = figure.subplots(2, 1)
    upper.set_yticks(range(3), ["a", "b", "c"])
    lower.set_visible(False)
    narrow(figure)
    figure.draw_without_rendering()
    assert 3.5 < upper.get_position().height * figure.get_size_inches()[1] < 5.5


def test_drawings_are_not_empty(drawings: list[Drawing]) -> None:
    for drawing in drawings:
        pixels = imread(drawing.path)[:, :, :3]
        ink = float((pixels < 0.9).any(axis=2).mean())
        assert ink > 0.015, f"{drawing.name}: only {ink:.1%} of the pixels are inked"
        assert len(np.unique((255 * pixels).astype(int) @ [1, 256, 65536])) > 50


def test_drawing_leaves_matplotlib_as_it_was(whole_run: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path, figures=("a",), methods=("emsa",), seeds=1, iterations=5)
    before = dict(matplotlib.rcParams)
    draw_figures(run)
    assert dict(matplotlib.rcParams) == before


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    run = write_run(tmp_path, figures=("a",), methods=("adam",), seeds=2, iterations=8)
    first = [drawing.path.read_bytes() for drawing in draw_figures(run)]
    assert [drawing.path.read_bytes() for drawing in draw_figures(run)] == first


def test_an_interrupted_run_draws(tmp_path: Path) -> None:
    run = write_run(tmp_path, figures=("a",), methods=("emsa", "emsa-paper", "adam"), interrupted=True)
    assert names(draw_figures(run)) == ["figure-1a", "states", "decrease", "gain", "feasibility", "rho"]


def test_a_run_of_one_baseline_draws_only_its_losses_and_function(tmp_path: Path) -> None:
    run = write_run(tmp_path, figures=("b",), methods=("adam",), seeds=1, iterations=6)
    assert names(draw_figures(run)) == ["figure-1b", "states"]


def test_methods_that_diverge_at_once_draw(tmp_path: Path) -> None:
    run = write_run(tmp_path, figures=("a",), methods=("msa", "emsa"), iterations=4, diverged=("msa", "emsa"))
    assert {"figure-1a", "rho", "divergence"} <= set(names(draw_figures(run)))


def test_tables_without_rows_draw_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path, figures=("a",), methods=("emsa",), seeds=1, iterations=5)
    for name in ("metrics", "stages", "states", "fit"):
        write_table(run / f"{name}.csv", read_rows(run / f"{name}.csv")[0], [])
    assert draw_figures(run) == []


def test_optional_tables_may_be_missing(tmp_path: Path) -> None:
    run = write_run(tmp_path, figures=("a",), methods=("msa", "emsa"), seeds=1, iterations=20)
    for name in ("stages.csv", "states.csv", "fit.csv"):
        (run / name).unlink()
    assert names(draw_figures(run)) == ["figure-1a", "decrease", "rho"]


def test_only_the_first_iteration_draws(tmp_path: Path) -> None:
    run = write_run(tmp_path, figures=("a",), methods=("emsa", "sgd"), seeds=2, iterations=30)
    for name in ("metrics.csv", "stages.csv"):
        header, *rows = read_rows(run / name)
        write_table(run / name, header, [row for row in rows if int(row[3]) <= 1])
    assert {"figure-1a", "gain", "rho"} <= set(names(draw_figures(run)))


def test_gains_that_are_nowhere_positive_give_no_map(tmp_path: Path) -> None:
    run = write_run(tmp_path, figures=("a",), methods=("emsa",), seeds=1, iterations=6)
    header, *rows = read_rows(run / "stages.csv")
    write_table(run / "stages.csv", header, [[*row[:5], "-1.0", *row[6:]] for row in rows])
    found = names(draw_figures(run))
    assert "gain" not in found
    assert "feasibility" in found


def test_an_unknown_method_and_figure_are_no_obstacle(tmp_path: Path) -> None:
    run = write_run(tmp_path, figures=("a",), methods=("adam",), seeds=1, iterations=6)
    header, *rows = read_rows(run / "metrics.csv")
    write_table(run / "metrics.csv", header, [*rows, *([row[0], "new-method", *row[2:]] for row in rows),
                                              *(["c", *row[1:]] for row in rows)])
    assert names(draw_figures(run)) == ["figure-1a", "states"]


@pytest.mark.parametrize("name", ["metrics.csv", "summary.json"])
def test_a_missing_file_is_named_with_what_is_there(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path, figures=("a",), methods=("adam",), seeds=1, iterations=4)
    (run / name).unlink()
    with pytest.raises(ReportError, match=rf"{name}: expected this file.*the folder holds:.*fit\.csv"):
        draw_figures(run)


@pytest.mark.parametrize(("name", "column"),
                         [("metrics.csv", "rho"), ("stages.csv", "gain"), ("states.csv", "time"),
                                              ("fit.csv", "target")])
def test_a_missing_column_is_named(tmp_path: Path, name: str, column: str) -> None:
    run = write_run(tmp_path, figures=("a",), methods=("emsa",), seeds=1, iterations=4)
    rows = read_rows(run / name)
    place = rows[0].index(column)
    write_table(run / name, rows[0][:place] + rows[0][place + 1:],
                [row[:place] + row[place + 1:] for row in rows[1:]])
    with pytest.raises(ReportError,
                       match=rf"{name}: expected the columns figure, .*found figure, .*missing: {column}$"):
        draw_figures(run)


def test_a_bad_cell_is_named_by_line_and_column(tmp_path: Path) -> None:
    run = write_run(tmp_path, figures=("a",), methods=("emsa",), seeds=1, iterations=4)
    header, *rows = read_rows(run / "metrics.csv")
    rows[2][6] = "much"
    write_table(run / "metrics.csv", header, rows)
    with pytest.raises(ReportError,
                       match=r"metrics\.csv, line 4, column train_loss: expected a number.*found 'much'"):
        draw_figures(run)
    write_table(run / "metrics.csv", header, [*rows[:2], rows[2][:5]])
    with pytest.raises(ReportError, match=r"metrics\.csv, line 4: expected 13 values, found 5"):
        draw_figures(run)


def test_an_empty_file_and_one_that_is_no_text_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path, figures=("a",), methods=("adam",), seeds=1, iterations=4)
    (run / "metrics.csv").write_text("")
    with pytest.raises(ReportError, match=r"metrics\.csv: expected the columns .*found none"):
        draw_figures(run)
    (run / "metrics.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReportError, match=r"metrics\.csv: expected a text file in UTF-8"):
        draw_figures(run)


def test_a_band_covers_what_all_seeds_cover_and_a_diverged_seed_is_cut(tmp_path: Path) -> None:
    header = HEADERS["metrics.csv"].split(",")
    losses = {0: [8, 4, 2, 1], 1: [8, 2, 2, 0.5, 0.1], 2: [8, 8, 8, "nan", 1]}
    write_table(tmp_path / "metrics.csv", header,
                [["a", "adam", seed, k, k, k / 10, loss, loss, loss, "", "", "", ""]
                                                   for seed, values in losses.items()
                 for k, loss in enumerate(values)])
    found = curves(read_table(tmp_path / "metrics.csv", *METRICS), "adam", "iteration", "train_loss")
    assert [curve.diverged for curve in found] == [False, False, True]
    assert [curve.x.tolist() for curve in found] == [[1, 2, 3], [1, 2, 3, 4], [1, 2]]
    common = band(found)
    assert common is not None
    np.testing.assert_allclose(common.x, [1, 2])
    np.testing.assert_allclose(common.median, [4, 2])
    np.testing.assert_allclose(common.low, [2, 2])
    np.testing.assert_allclose(common.high, [8, 8])


def test_seeds_at_different_seconds_are_interpolated_and_may_not_meet(tmp_path: Path) -> None:
    one = Curve(np.array([1.0, 100.0]), np.array([1.0, 1e-4]), False)
    other = Curve(np.array([10.0, 1000.0]), np.array([1.0, 1e-4]), False)
    common = band([one, other])
    assert common is not None
    assert common.x[0] == pytest.approx(10)
    assert common.x[-1] == pytest.approx(100)
    assert common.low[0] == pytest.approx(1e-2)
    assert common.high[0] == pytest.approx(1)
    assert band([one, Curve(np.array([200.0]), np.array([1.0]), False)]) is None


def test_the_achieved_decrease_belongs_to_the_same_row_as_the_prediction(whole_run: Path) -> None:
    rows = read_table(whole_run / "metrics.csv", *METRICS).where(figure="a", method="emsa", seed=0)
    predicted, achieved = achieved_steps(rows)
    taken = rows.take(rows["accepted"] == 1)
    assert len(predicted) == len(taken)
    # the builder's gap is 1.3 times the absolute decrease
    np.testing.assert_allclose(predicted, 1.3 * np.abs(achieved) + 1e-9)


def test_thinned_metrics_give_no_achieved_decrease(whole_run: Path) -> None:
    rows = read_table(whole_run / "metrics.csv", *METRICS).where(figure="a", method="emsa", seed=0)
    assert len(achieved_steps(rows.take(rows["iteration"] % 5 == 0))[0]) == 0


def test_the_caption_of_divergence_tells_the_first_rise(whole_run: Path, drawings: list[Drawing]) -> None:
    run = read_folder(whole_run)
    metrics = first_seed(run.metrics, "a", "msa")
    text = first_rise(metrics, *stage_sums(first_seed(run.stages, "a", "msa")))
    losses = metrics["train_loss"][np.isfinite(metrics["train_loss"])]
    k = int(np.flatnonzero(np.diff(losses) > 0)[0]) + 1
    assert text.startswith(f"iteration {k} ")
    assert f"J went from {losses[k - 1]:.2g} to {losses[k]:.2g}" in text
    assert text in drawings[-1].caption
    quiet = metrics.take(metrics["iteration"] < 0)
    assert first_rise(quiet, *stage_sums(first_seed(run.stages, "a", "msa"))).startswith("J did not rise")


def test_a_run_may_be_moved_and_drawn_again(whole_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(whole_run, copy, ignore=shutil.ignore_patterns("figures", "stages.csv", "states.csv"))
    summary = json.loads((copy / "summary.json").read_text())
    summary["paper"] = {}
    (copy / "summary.json").write_text(json.dumps(summary))
    found = draw_figures(copy)
    assert names(found) == ["figure-1a", "figure-1b", "decrease", "rho"]
    assert "Circles" not in found[0].caption
