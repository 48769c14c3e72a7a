"""The report says what summary.json says, on one page that loads nothing."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup
from run_directory import METHODS, write_run

from pontryagin.papers.sine.report import draw_figures, reach, sentences, write_report
from pontryagin.run.history import headline
from pontryagin.run.reports.page import Cells, Heading, headline_of, write_page
from pontryagin.run.reports.words import NONE, best, bold, count, given, loss_of, number, tuned
from pontryagin.run.tables import Drawing, ReportError

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8"
                         "AAAAASUVORK5CYII=")
VOID = {"meta", "img", "br", "source"}


class Page(HTMLParser):
    """Collects text, tags and attributes, and checks that what is opened is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def drawing(run: Path) -> Drawing:
    path = run / "one.png"
    path.write_bytes(PIXEL)
    return Drawing("gain", "A <gain>", "Grey & <b>bold</b>", path)


@pytest.fixture(scope="module")
def html(run: Path, drawing: Drawing) -> str:
    path = write_report(run, [drawing])
    assert path == run / "report.html"
    assert not list(run.glob(".*")), "no temporary file may be left"
    return path.read_text(encoding="utf-8")


def summary_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())


def changed(tmp_path: Path, change: object, **options: Any) -> Path:
    run = write_run(tmp_path, figures=("a",), methods=("emsa", "adam"), iterations=10, **options)
    summary = summary_of(run)
    change(summary)  # type: ignore[operator]
    (run / "summary.json").write_text(json.dumps(summary))
    return run


def test_the_numbers_of_the_summary_are_there(run: Path, html: str) -> None:
    text = Page(html).text
    summary = summary_of(run)
    for methods in summary["results"].values():
        assert list(methods) == list(METHODS)
        for method, result in methods.items():
            assert method in text
            for loss in ("train_loss", "test_loss"):
                assert loss_of(result[loss]["median"]) in text
                low, high = (loss_of(result[loss][end]) for end in ("min", "max"))
                assert (f"[{low}, {high}]" in text) == (low != high), "brackets only where the seeds differ"
            for unit, cost, form in (("it", "iterations_to", count), ("ev", "evaluations_to", count),
                                     ("s", "seconds_to", number)):
                for entry in result[cost].values():
                    if entry["median"] is not None:
                        assert f"{form(entry['median'])} {unit}" in text
            assert number(1000 * result["seconds_per_iteration"]) in text
    for methods in summary["paper"].values():
        for value in methods.values():
            assert given(value["loss"]) in text
    assert "Learning rates tried" in text
    assert "lower is better: least mean of log10(train loss)" in text
    assert "J becomes nan" in text
    assert "made up" in text


def test_the_headline_of_a_page_is_read_as_it_was_said(tmp_path: Path) -> None:
    summary = {"command": "a --b", "interrupted": False, "settings": {}, "versions": {}, "machine": {}}
    assert headline_of(write_page(tmp_path, "A page", summary, [], headline="E-MSA < Adam & 'both'.")) == (
        "E-MSA < Adam & 'both'.")
    assert headline_of(write_page(tmp_path, "A page", summary, [])) == ""


def test_values_are_escaped(html: str) -> None:
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<span>--out</span> runs/&lt;test&gt; &amp; more" in html
    assert "A &lt;gain&gt;" in html
    assert "Grey &amp; &lt;b&gt;bold&lt;/b&gt;" in html


def test_nothing_is_loaded_from_outside(html: str) -> None:
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    sources = [value for _, name,
               value in page.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert sources
    assert all(value.startswith("data:image/png;base64,") for value in sources)
    assert not re.search(r"https?:|url\(|@import", html)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert ("meta", "content",
            "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes
    assert ("meta", "name", "viewport") in page.attributes


def test_drawings_are_embedded_with_their_captions(tmp_path: Path) -> None:
    run = write_run(tmp_path, figures=("a",), methods=("emsa",), seeds=1, iterations=8)
    drawings = draw_figures(run)
    page = Page(write_report(run, drawings).read_text(encoding="utf-8"))
    images = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert sorted(base64.b64decode(image.partition(",")[2]) for image in images) == sorted(
        drawing.path.read_bytes() for drawing in drawings)
    assert all(drawing.caption in page.text for drawing in drawings)
    assert len(drawings) == len([1 for tag, name, _ in page.attributes if (tag, name) == ("img", "alt")])


def test_a_banner_only_when_interrupted(tmp_path: Path, html: str) -> None:
    assert "Interrupted" not in html
    run = write_run(tmp_path, figures=("a",), methods=("adam",), interrupted=True)
    assert '<p class="banner"' in write_report(run, []).read_text(encoding="utf-8")


def test_what_was_not_reached_is_a_dash_and_some_seeds_are_counted() -> None:
    def entry(median: float | None, reached: int) -> dict[str, dict[str, object]]:
        return {"0.1": {"median": median, "min": 1, "max": 2, "reached": reached, "seeds": 3}}

    def cell(median: float | None, reached: int) -> str:
        return reach({cost: entry(median, reached)
                      for cost in ("iterations_to", "evaluations_to", "seconds_to")}, "0.1")

    assert cell(None, 0) == "—"
    assert cell(None, 1) == "— <br><small>1/3 seeds</small>"
    assert cell(40, 2) == "40 it <br>40 ev <br>40 s <br><small>2/3 seeds</small>"
    assert "seeds" not in cell(40, 3)
    assert reach({"iterations_to": {}, "evaluations_to": {}, "seconds_to": {}}, "0.1") == "—"


def result(loss: float, iterations: int, reached: dict[str, tuple[float, float]]) -> dict[str, Any]:
    def cost(place: int) -> dict[str, Any]:
        return {target: {"median": reached[target][place] if target in reached else None,
                         "reached": 3 * (target in reached),
                         "seeds": 3} for target in ("0.1", "0.01")}

    return {"train_loss": {"median": loss}, "iterations": iterations, "iterations_to": cost(0),
            "evaluations_to": cost(0),
            "seconds_to": cost(1)}


def plain(methods: dict[str, Any], diverged: dict[str, list[str]] | None = None) -> str:
    return re.sub("<[^>]+>", "", " ".join(sentences(methods, diverged or {})))


def test_the_lead_names_winners_and_losers_by_the_numbers() -> None:
    text = plain({"emsa": result(0.005, 50, {"0.1": (3, 0.4), "0.01": (30, 4.0)}),
                  "adam": result(0.002, 70, {"0.1": (9, 0.1), "0.01": (60, 0.5)}),
                  "sgd": result(0.09, 70, {"0.1": (60, 0.7)}), "msa": result(float("inf"), 5, {})})
    assert "Lowest final train loss: Adam, 2.00e-3 after 70 iterations." in text
    assert "E-MSA: 5.00e-3 after 50 iterations." in text
    assert "A train loss of 0.01" in text
    assert "took E-MSA 30 iterations (4.00 s) and Adam 60 iterations (0.500 s)." in text
    assert "Fewest iterations: E-MSA; least time: Adam." in text
    assert "Median seed not there: basic MSA and SGD." in text
    assert "Final train loss not finite: basic MSA." in text


def test_the_lead_claims_nothing_when_nothing_was_reached() -> None:
    text = plain({"msa": result(float("nan"), 5, {}), "sgd": result(3.0, 5, {})})
    assert "No method's median seed reached 0.1." in text
    assert "Lowest final train loss: SGD, 3.00 after 5 iterations." in text
    assert "took" not in text
    assert "Lowest" not in plain({"msa": result(float("inf"), 5, {})})


def test_the_lead_tells_what_was_stopped() -> None:
    text = plain({"msa": result(3.0, 5, {})}, {"msa": ["J becomes nan", "J becomes inf"], "adam": []})
    assert "no longer finite: basic MSA (2 seeds)." in text
    assert "not finite" not in plain({"msa": result(3.0, 5, {})})


def test_numbers_have_equal_digits_and_are_never_invented() -> None:
    assert [number(value) for value in (0.0, 0.1, 0.01, 1e-4, 1.234e-5, 12.345, 999.7, 1234.5, 2e10, 7)] == [
        "0", "0.100", "0.0100", "1.00e-4", "1.23e-5", "12.3", "1,000", "1,234", "2.00e10", "7"]
    assert [given(value) for value in (0.1, 1e-3, 3e-4, 1.5e-5, 1, None)] == [
        "0.1", "0.001", "3e-4", "1.5e-5", "1", "—"]
    assert [count(value) for value in (40.0, 2.5, 12345, None)] == ["40", "2.5", "12,345", "—"]
    assert number(None) == "—"
    assert number(True) == "—"
    assert number(float("inf")) == number(float("nan")) == "not finite"


def test_on_a_phone_a_table_of_many_columns_is_a_list_of_cells_with_their_heads(tmp_path: Path) -> None:
    summary = {"command": "x", "interrupted": False, "versions": {}, "machine": {}, "settings": {}}
    wide = Cells(["method", Markup("to <i>1</i>"), "b", "c"], [["A", "1", NONE, "3"]], best={(0, 1)})
    small = Cells(["a", "b"], [["1", "2"]])
    html = write_page(tmp_path, "T", summary, [wide, small]).read_text(encoding="utf-8")
    assert html.count('class="wide cards"') == 1
    assert '<td data-head="to 1" class="best"><span>1</span></td>' in html
    assert f'<td data-head="b" class="none"><span>{NONE}</span></td>' in html


def test_the_best_of_a_column_is_marked_where_there_is_one() -> None:
    nan = float("nan")
    found = best({1: [3.0, 2.0, None, 2.0], 2: [0.9, 0.95, nan, 0.1], 3: [1, 1], 4: [None, 5.0]}, most=(2,))
    assert found == {(1, 1), (3, 1), (1, 2)}


def test_a_page_says_first_what_came_out_and_what_to_do(tmp_path: Path) -> None:
    summary = {"command": "pontryagin train --quick", "interrupted": False, "versions": {}, "machine": {},
               "settings": {"seeds": [1, 2], "limit": None, "overwrite": True, "options": {}}}
    ways = [("Do:", "x y"), ("Think.", "")]
    html = write_page(tmp_path, "T", summary, ["later"], None, "A <b", ways).read_text(encoding="utf-8")
    text = Page(html).text
    places = [text.index(words) for words in ("A <b", "A quick look.", "What next Do: x y Think.", "later")]
    assert places == sorted(places)
    assert all(f"{name} {value} " in text for name, value in (
        ("seeds", "1, 2"), ("limit", "none given"), ("overwrite", "yes"), ("options", "none given")))
    assert "A quick look" not in write_page(tmp_path, "T", summary | {"command": "x"}, []).read_text()


def test_the_headline_names_the_best_first_and_who_was_not_tuned() -> None:
    def of(accuracy: float) -> dict[str, Any]:
        return {"test_accuracy": {"median": accuracy}, "test_loss": {"median": 1.0}, "start_test_loss": 2.0,
                "iterations": 1500}

    assert headline({"adam": of(0.938), "emsa": of(0.953)}, None, ["adam"]) == (
        "Test accuracy: E-MSA 95.3 %, Adam 93.8 % (rate not tuned).")
    assert headline({"adam": of(0.9), "muon": of(0.95)}, None, ["adam", "muon"]) == (
        "Test accuracy: Muon* 95.0 %, Adam* 90.0 % (*: rate not tuned).")
    assert headline({"emsa": of(0.953)}, 0.1) == (
        "E-MSA: test accuracy 95.3 % (always guessing the commonest class: 10.0 %).")
    assert headline({"adam": of(0.9) | {"iterations": 0}, "emsa": of(0.95)}, None, ["adam"]) == (
        "Test accuracy: E-MSA 95.0 %, Adam 90.0 % (rate not tuned, after 0 of 1,500 iterations).")
    losses = {name: {"test_loss": {"median": loss}, "start_test_loss": 2.0, "iterations": 9}
              for name, loss in (("adam", None), ("emsa", 0.5))}
    assert headline(losses, None) == "Test loss: E-MSA 0.500, Adam not finite."
    assert headline({"emsa": losses["emsa"]}, None) == "E-MSA: test loss 0.500 (before training: 2.00)."
    assert headline({}, None) == ""


def test_the_tuning_table_marks_the_rate_that_was_used() -> None:
    tuning = {"a": {"adam": {"0.1": 0.5, "0.01": 0.7}, "sgd": {"1.0": None}}}
    heading, words, found = tuned(tuning, {"a": {"adam": {"learning_rate": 0.1}}}, "least loss")
    assert heading == Heading("Learning rates tried")
    assert words.startswith("The score of every rate, lower is better: least loss. Bold: the rate that was "
                            "used;")
    assert found.head == ["method", "0.01", "0.1", "1.0"]
    assert [row[1:] for row in found.rows] == [["0.700", bold("0.500"), "—"], ["—", "—", "—"]]
    assert found.rows[0][2] == "<b>0.500</b>"
    *_, found = tuned(tuning | {"b": {"adam": {"0.1": 0.5}}}, {})
    assert found.head[:2] == ["figure", "method"]
    assert [row[0] for row in found.rows] == ["(a)", "(a)", "(b)"]
    assert tuned({"a": {}}, {}) == []


def test_a_run_stopped_before_any_result_has_a_report(tmp_path: Path) -> None:
    run = changed(tmp_path, lambda summary: summary.update(results={}, tuning={}, paper={}), interrupted=True)
    assert "No method had been run." in write_report(run, []).read_text(encoding="utf-8")


def test_nulls_of_a_diverged_method_draw_dashes(tmp_path: Path) -> None:
    def change(summary: dict[str, Any]) -> None:
        summary["results"]["a"]["adam"]["train_loss"] = {"median": None, "min": None, "max": float("inf")}
        summary["results"]["a"]["adam"]["seconds_per_iteration"] = None

    assert "[not finite, not finite]" in write_report(changed(tmp_path, change),
                                                      []).read_text(encoding="utf-8")


@pytest.mark.parametrize(("change", "message"), [
    (lambda summary: summary.pop("results"),
     r"summary\.json: expected the keys .*results, found .*missing: results"),
    (lambda summary: summary.update(results=[]), r"results: expected an object in braces, found \[\]"),
    (lambda summary: summary["results"]["a"]["emsa"].pop("seconds_to"),
     r"results\.a\.emsa: .*missing: seconds_to"),
    (lambda summary: summary["results"]["a"]["emsa"]["train_loss"].pop("min"),
     r"a\.emsa\.train_loss: .*missing: min"),
    (lambda summary: summary["results"]["a"]["emsa"]["seconds_to"].update(fast={"median": 1, "reached": 1,
                                                                                "seeds": 1}),
     r"expected losses as keys, found 'fast'"),
    (lambda summary: summary["paper"]["a"].update(adam={"loss": 1}), r"paper\.a\.adam: .*missing: iteration"),
    (lambda summary: summary.update(tuning=3), r"tuning: expected an object in braces, found 3"),
])
def test_a_malformed_summary_is_refused_by_place(tmp_path: Path, change: object, message: str) -> None:
    run = changed(tmp_path, change)
    with pytest.raises(ReportError, match=message):
        write_report(run, [])
    assert not (run / "report.html").exists()


def test_a_summary_that_is_missing_or_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"summary\.json: expected this file of a run, found no such file"):
        write_report(tmp_path, [])
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(ReportError, match=r"summary\.json: expected JSON, found"):
        write_report(tmp_path, [])


def test_a_drawing_without_its_file_is_refused(run: Path, tmp_path: Path) -> None:
    missing = Drawing("rho", "rho", "rho.", tmp_path / "rho.png")
    with pytest.raises(ReportError, match=r"rho\.png: expected the PNG file of a drawing"):
        write_report(run, [missing])
    missing.path.write_bytes(b"GIF89a")
    with pytest.raises(ReportError,
                       match=r"rho\.png: expected a PNG file, found one that begins with b'GIF89a'"):
        write_report(run, [missing])
