"""The report files: valid HTML without external resources, with escaped texts and all figures."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox
from rich.console import Console, RenderableType
from run_folders import NASTY, NATIVE, TORCH, change_results, write_data, write_study, write_train
from safetensors.numpy import load_file, save_file

from loralet.backends.info import BackendInfo
from loralet.cli import main
from loralet.commands.report import report_files
from loralet.report.analysis import Analysis, analyse
from loralet.report.drawings import draw
from loralet.report.figures.labels import Label, place_labels
from loralet.report.figures.matrix import level
from loralet.report.figures.pareto import pareto_panel, pareto_points
from loralet.report.figures.rank_cost import even_ticks
from loralet.report.figures.style import MUTED, VARIABLES, sheet, styled
from loralet.report.page import cut, markdown, render_markdown, write_report
from loralet.report.results_table import results_table
from loralet.report.run_tests import tied_runs
from loralet.report.summary import backend_lines, facts
from loralet.report.tables import tables
from loralet.report.wording import amount
from loralet.runs.environment import SessionBackend, read_environment
from loralet.runs.results import read_results

VOID = {"meta", "link", "br", "hr", "img", "input", "col", "wbr"}
FIGURES = {
    "loss-base", "accuracy-base", "convergence-map-1", "accuracy-map-1", "rank-seconds", "rank-memory",
    "pareto-trainable", "pareto-bytes", "pareto-seconds", "confusion", "reliability", "coverage",
}  # fmt: skip


class Page(HTMLParser):
    """The content of a page, and whether its tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text: dict[str, str] = {}
        self.faults: list[str] = []
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.faults.append(f"</{tag}> at {self.getpos()} closes {self.open[-1:]}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text[self.open[-1]] = self.text.get(self.open[-1], "") + data

    def values(self, name: str) -> list[str]:
        return [value or "" for _, own, value in self.attributes if own == name]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_data(folder / "data")
    write_study(folder / "one", folder / "data")
    assert main(["report", str(folder / "one"), "--json", str(folder / "one.json")]) == 0
    return folder


@pytest.fixture(scope="module")
def html(place: Path) -> str:
    return (place / "one" / "report.html").read_text()


@pytest.fixture(scope="module")
def analysis(place: Path) -> Analysis:
    return analyse(place / "one")


def told(*arguments: str) -> tuple[int, str, str]:
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(["report", *arguments])
    return status, out.getvalue(), err.getvalue()


def test_the_page_is_balanced_and_has_no_external_resources(html: str) -> None:
    page = Page(html)
    assert page.faults == []
    assert Page(html.replace("</main>", "")).faults != []  # the check can fail
    for name in ("src", "href", "xlink:href", "action", "srcset", "data"):
        assert [value for value in page.values(name) if not value.startswith("#")] == []
    assert not re.search(r"@import|url\((?!#)", html)
    assert "default-src 'none'" in html
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    used = {value[1:] for value in page.values("href")} | set(re.findall(r"url\(#([^)]+)\)", html))
    assert used <= set(ids)


def test_every_figure_has_a_title_and_a_description(html: str) -> None:
    drawn = re.findall(r'<svg [^>]*role="img" aria-labelledby="(\S+)-title \1-desc"', html)
    assert set(drawn) == FIGURES
    assert html.count("<svg") == len(FIGURES)
    for name in FIGURES:
        title = re.search(rf'<title id="{name}-title">([^<]+)</title><desc id="{name}-desc">([^<]+)</desc>', html)
        assert title, name
    assert html.count("<figcaption") == 6


def test_numbers_in_the_figures_are_complete(html: str, analysis: Analysis) -> None:
    words = re.findall(r"<text[^>]*>([^<]*)</text>", html)
    for cell in analysis.grids[0].cells:
        assert cell.accuracy is not None
        assert f"scale×lr {cell.effective:.3g}" in words
        assert cell.text.replace(">", "&gt;") in words
        assert any(word.startswith(f"{100 * cell.accuracy:.1f}") for word in words)


def test_colours_are_those_of_the_page(html: str) -> None:
    for svg in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL):
        assert not re.search(r"#[0-9a-f]{6}\b", svg)
        assert "currentColor" in svg
        assert "font-family" not in svg
    assert set(re.findall(r"var\((--[a-z0-9-]+)", html)) <= set(re.findall(r"(--[a-z0-9-]+):", html))
    assert len(set(VARIABLES.values())) == len(VARIABLES)


def test_texts_are_escaped(html: str, place: Path) -> None:
    assert "<script>alert" not in html
    assert "cat <b>" not in html
    assert "cat &lt;b&gt;&amp;" in html
    assert html.count("<script") == 1
    md = (place / "one" / "report.md").read_text()
    assert "<script>" not in md
    assert "<b>" not in md
    assert markdown(NASTY) in markdown(f"x {NASTY}")
    assert markdown("a|b\n<c> *d* $e$") == "a\\|b &lt;c&gt; \\*d\\* \\$e\\$"


def test_a_row_with_markup_can_be_shown(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loralet.report.sections.examples.SHOWN", 60)
    assert told(str(place / "one"), "--out", str(place / "all.html"))[0] == 0
    page = (place / "all.html").read_text()
    assert "&lt;script&gt;alert(&#39;x&#39;)" in page
    assert Page(page).faults == []
    assert page.count("<script") == 1
    md = (place / "all.md").read_text()
    row = next(line for line in md.splitlines() if "alert" in line)
    assert row.replace("\\|", "").count("|") == 6
    assert "<script>" not in md


def test_order_of_the_page(html: str) -> None:
    places = [html.index(words) for words in (
        "<h1>How accurate", 'class="answer"', "What was run", "Command:", "<h2>Results", "Training curves",
        "Rank and alpha", "Cost of rank", "Accuracy against cost", "Errors and calibration",
        "Accuracy above a confidence", "<h2>Classes", "<h2>Test rows",
        "Most confident errors", "Likely mislabelled rows", "Recommendations", "Limitations",
    )]  # fmt: skip
    assert places == sorted(places)


def test_the_tables(analysis: Analysis) -> None:
    made = tables(analysis)
    results = {line.cells[0].text: line for line in made["results"].lines}
    assert list(results)[:4] == ["majority class", "random head (chance)", "TF-IDF + linear SVM ≈", "linear probe"]
    assert [name for name, line in results.items() if line.winner] == ["r4 α16 ★"]
    assert [name for name, line in results.items() if line.tied] == ["TF-IDF + linear SVM ≈", "r4 α8 ≈"]
    heads = [heading for heading, _ in made["results"].headings]
    assert "± seeds" not in heads  # a single seed has no deviation
    assert "ended" not in heads
    late = results["r2 α8"].cells[heads.index("conv.")]
    assert (late.text, late.key) == (">60", 60.5)
    assert results["r4 α8 ≈"].cells[heads.index("vs ★")].text == "−6.7"
    assert results["TF-IDF + linear SVM ≈"].cells[heads.index("vs ★")].text == "−3.3"
    assert results["majority class"].cells[heads.index("p (Holm)")].text == "< 0.001"
    assert results["random head (chance)"].cells[heads.index("p (Holm)")].text == "–"
    costs = {line.cells[0].text: [cell.text for cell in line.cells] for line in made["costs"].lines}
    assert costs["r4 α16 ★"][-1] == "size, disk, time"
    assert "not reached" in costs["r2 α8"]


def test_markdown_has_the_same_content(place: Path, html: str) -> None:
    md = (place / "one" / "report.md").read_text()
    headings = re.findall(r"<h[23]>(.*?)</h[23]>", html)
    assert headings == re.findall(r"^###? (.*)$", md, flags=re.MULTILINE)
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", md)
    assert {Path(picture).stem for picture in pictures} == FIGURES
    for picture in pictures:
        root = ElementTree.fromstring((place / "one" / picture).read_text())
        assert root.tag.endswith("svg")
    for block in re.findall(r"(?:^\|.*\n)+", md, flags=re.MULTILINE):
        assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1
    assert "None" not in md


def test_the_values_as_json(place: Path, analysis: Analysis) -> None:
    saved = json.loads((place / "one.json").read_text())
    assert saved["winner"] == analysis.winner
    assert saved["configurations"][-1]["test"]["mean"] == pytest.approx(0.9)


def test_the_same_folder_gives_the_same_page(place: Path, html: str) -> None:
    assert told(str(place / "one"), "--out", str(place / "again.html"), "--format", "html")[0] == 0
    assert (place / "again.html").read_text() == html
    assert not (place / "again.md").exists()


def test_no_texts_omits_all_texts(place: Path) -> None:
    arguments = [
        str(place / "one"),
        "--no-texts",
        "--out",
        str(place / "bare.html"),
        "--json",
        str(place / "bare.json"),
    ]
    assert told(*arguments)[0] == 0
    for name in ("bare.html", "bare.md", "bare.json"):
        assert "test text" not in (place / name).read_text()
    assert "test text" in (place / "one" / "report.html").read_text()
    assert "Ten random rows" in (place / "bare.html").read_text()


def test_a_single_run_and_one_without_a_test_split(place: Path, tmp_path: Path) -> None:
    write_train(tmp_path / "single", place / "data")
    write_study(tmp_path / "blind", place / "data", test=False)
    write_study(tmp_path / "twins", place / "data", models=("./base", "./twin"), seeds=(0, 1))
    for name, absent in (("single", "Rank and alpha"), ("blind", "Test rows"), ("twins", "nothing of the kind")):
        status, out, _ = told(str(tmp_path / name))
        assert status == 0
        assert f"{name}/report.html" in out
        page = (tmp_path / name / "report.html").read_text()
        assert Page(page).faults == []
        assert f"<h2>{absent}" not in page
        for text in (page, (tmp_path / name / "report.md").read_text()):
            assert text.count("Stability: no run diverged") == (name != "single")
        assert "None" not in re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)


def test_user_errors_are_one_message(place: Path, tmp_path: Path) -> None:
    for arguments, words in (
        ([str(tmp_path)], "not a run folder"),
        ([str(place / "one"), "--out", str(tmp_path)], "--format"),
        ([str(place / "one"), "--json", str(tmp_path)], "give a file name"),
    ):
        status, out, err = told(*arguments, *(["--format", "html"] if "--out" in arguments else []))
        assert status == 2
        assert out == ""
        assert (words in err) or ("give a file name" in err)
        assert "Traceback" not in err


def test_a_file_that_is_not_a_report_is_not_overwritten(place: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.csv"
    for arguments in (
        ["--out", str(precious), "--format", "md"],
        ["--out", str(precious), "--format", "html"],
        ["--json", str(precious)],
    ):
        precious.write_text("text,label\n")
        status, _, err = told(str(place / "one"), *arguments)
        assert status == 2
        assert "it is not overwritten" in err
        assert precious.read_text() == "text,label\n"


def test_paths_of_the_report_files() -> None:
    run = Path("run")
    assert report_files(run, "", "both") == (Path("run/report.html"), Path("run/report.md"))
    assert report_files(run, "", "md") == (None, Path("run/report.md"))
    assert report_files(run, "x.html", "both") == (Path("x.html"), Path("x.md"))
    assert report_files(run, "lora-lr0.002", "both") == (Path("lora-lr0.002.html"), Path("lora-lr0.002.md"))
    assert report_files(run, "page.htm", "html") == (Path("page.htm"), None)


def test_values_in_the_figures(analysis: Analysis) -> None:
    assert [level(v, 0.0, 1.0) for v in (0.0, 0.49, 0.5, 1.0)] == [0, 4, 4, 8]
    assert level(3.0, 3.0, 3.0) == 4
    assert [amount(v, "bytes") for v in (100, 2048, 3 * 2**30)] == ["100 B", "2 KiB", "3 GiB"]
    assert [amount(v, "trainable") for v in (516, 33284, 4.4e6)] == ["516", "33.3K", "4.4M"]
    assert [amount(v, "seconds") for v in (28.8, 1200)] == ["29 s", "20 min"]
    # ticks of a short training differ
    assert [amount(v, "seconds") for v in (0.03, 0.2, 0.8, 1.0, 9.4, 9.96)] == [
        "0.03 s",
        "0.2 s",
        "0.8 s",
        "1 s",
        "9.4 s",
        "10 s",
    ]
    assert even_ticks(33.0, 1.0) == [0, 10, 20, 30]
    assert even_ticks(4.5 * 2**30, 2.0**20) == [i * 2.0**30 for i in range(5)]
    assert cut("a \n b") == "a b"
    assert len(cut("x" * 5000)) == 600
    named = {point.row.name: point.label for point in pareto_points(analysis, "trainable")}
    assert "random head" not in named
    assert named["r4 α16"] == "r4 α16"
    assert {drawing.name for drawing in draw(analysis)} == {"course", "grid", "rank", "pareto", "errors", "coverage"}


def test_no_row_of_the_legend_of_a_cost_figure_is_longer_than_the_figure(analysis: Analysis) -> None:
    """Browsers draw the letters wider than matplotlib, so that a row of five entries would be cut at the right."""
    points = pareto_points(analysis, "trainable")
    lora = next(point for point in points if point.row.rank == 4 and not point.row.winner)
    more = [
        replace(lora, row=replace(lora.row, adapter=replace(lora.row.adapter, rank=rank)), cost=lora.cost * rank)
        for rank in (8, 16)
    ]
    svg = pareto_panel("trainable", [*points, *more]).svg
    found = re.findall(r'x="([\d.]+)" y="([\d.]+)"[^>]*>(rank \d+|chosen|Pareto front)</', svg)
    rows = [y for _, y, _ in found]
    assert {text for *_, text in found} == {"rank 2", "rank 4", "rank 8", "rank 16", "chosen", "Pareto front"}
    assert len(set(rows)) == 2
    assert max(map(rows.count, rows)) <= 4


def test_the_commit_is_shown_if_recorded(analysis: Analysis) -> None:
    for commit, words in (("0123456789abcdef-dirty", "loralet 0, commit 0123456789abcdef-dirty"), (None, "loralet 0")):
        environment = replace(analysis.environment, loralet="0", commit=commit, python="3.12.0", torch="2.10.0")
        known = replace(analysis, environment=environment)
        assert dict(facts(known))["Versions"] == f"{words}, python 3.12.0, torch 2.10.0"


def named(pairs: list[tuple[str, str]], name: str) -> list[str]:
    return [value for own, value in pairs if own == name]


def test_the_backend_is_shown_with_its_dtype_and_reason(place: Path, tmp_path: Path) -> None:
    """One line if all models share a backend, else one per model; none for folders without recorded backends."""
    native, torch = "native, AVX-512 BF16, bf16, 2 threads", "torch, fp32, 2 threads (no C compiler found)"
    models = ("./base", "./twin")
    for name, backends, lines in (
        ("same", (NATIVE,), [native]),
        ("mixed", (NATIVE, TORCH), [f"./base: {native}", f"./twin: {torch}"]),
        ("none", (), []),
    ):
        folder = write_study(tmp_path / name, place / "data", models=models, backends=backends)
        told = analyse(folder, with_texts=False)
        assert named(facts(told), "Backend") == lines
        write_report(told, folder / "report.html", folder / "report.md")
        for report in ("report.html", "report.md"):
            text = (folder / report).read_text()
            assert text.count("Backend") == len(lines)
            assert all(line in text for line in lines)


def test_the_table_shows_the_backend_if_recorded(place: Path) -> None:
    results, environment = read_results(place / "one"), read_environment(place / "one")
    shown = table_text(results_table(results, backends=backend_lines(environment.backends)))
    assert "backend: native, AVX-512 BF16, bf16, 2 threads" in shown
    assert "backend" not in table_text(results_table(results))


def test_the_table_is_a_leaderboard_with_the_marks_of_the_report(place: Path) -> None:
    folder = place / "one"
    results, told = read_results(folder), analyse(folder, with_texts=False)
    tied = tied_runs(folder, results)
    assert tied == {run for row in told.configurations if row.tied for run in row.runs} != set()
    lines = table_text(results_table(results, tied=tied)).splitlines()
    shown = [line for line in lines if re.search(r"0\.\d{4} \(", line)]
    held_out = [float(re.findall(r"(?<=\s)0\.\d{4}", line)[0]) for line in shown]
    assert held_out == sorted(held_out, reverse=True)
    assert len(shown) == len(results.runs)
    assert "majority class" in shown[-2], "a baseline has its place in the order"
    assert [line.split()[1:3] for line in shown if "★" in line] == [["lora-r4-a16-lr0.0015-s0", "★"]]
    assert {name for name in tied if any(f"{name} ≈" in line for line in shown)} == tied - {"tfidf-svm"}
    assert sum("≈" in line for line in shown) == len(tied)
    assert any("TF-IDF + SVM ≈" in line for line in shown)
    assert any(line.startswith("≈ not distinguishable from it on the test rows") for line in lines)
    assert "≈" not in table_text(results_table(results))


def test_a_table_of_80_columns_keeps_f1_and_seconds(place: Path) -> None:
    results = read_results(place / "one")
    console = Console(file=StringIO(), width=80)
    console.print(results_table(results, 80, tied=[run.id for run in results.runs]))
    heading, rule, *lines = console.file.getvalue().strip("\n").splitlines()  # type: ignore[attr-defined]
    assert heading.split()[-2:] == ["trained", "s"]
    assert "F1" in heading.split()
    assert len(rule) <= 80
    assert not any("…" in line for line in lines)
    assert sum(bool(re.search(r"\(0\.\d{3}–0\.\d{3}\)", line)) for line in lines) == len(results.runs)


def test_the_default_configuration_has_a_row_and_is_not_part_of_the_grid(place: Path, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "default", place / "data")
    before = analyse(folder, with_texts=False)
    change_results(folder, {"lora-r2-a8-lr0.0015-s0": {"default": True, "learning_rate": 0.003}})
    results, told = read_results(folder), analyse(folder, with_texts=False)
    said = (
        "lora-r2-a8-lr0.0015-s0: the default of loralet train (rank 2, alpha 8, learning rate 0.003, all linear layers)"
    )
    assert said in table_text(results_table(results))
    names = [row.name for row in told.configurations if row.role == "lora"]
    assert names == ["default r2 α8", "r2 α16", "r4 α8", "r4 α16"]
    assert [len(grid.cells) for grid in told.grids] == [3]
    assert [len(grid.cells) for grid in before.grids] == [4]
    assert draw(told)


def test_the_table_names_what_selects_unless_it_is_the_accuracy(place: Path) -> None:
    results = read_results(place / "one")
    for selection, words in (("accuracy", ""), ("macro_f1", " by macro F1"), ("loss", " by loss")):
        shown = table_text(results_table(replace(results, selection=selection)))
        assert f"chosen on validation{words}: " in shown


def test_the_backend_of_a_model_is_shown_once() -> None:
    native, gpu = "native, AVX-512 BF16, bf16, 2 threads", "torch, bf16, NVIDIA A100"
    assert backend_lines([SessionBackend("a", NATIVE), SessionBackend("b", NATIVE)]) == (native,)
    several = [SessionBackend("a", TORCH), SessionBackend("a", NATIVE), SessionBackend("a", NATIVE)]
    assert backend_lines(several) == ("a: torch, fp32, 2 threads (no C compiler found)", f"a: {native}")
    assert backend_lines([SessionBackend("a", BackendInfo("torch", "NVIDIA A100", "", "bf16", 2))]) == (gpu,)


def table_text(table: RenderableType) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_baseline_of_another_task_is_listed_under_its_role(place: Path, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "other", place / "data")
    change_results(folder, {"tfidf-svm": {"id": "nearest", "role": "nearest"}})
    predictions = folder / "predictions.safetensors"
    tensors = load_file(predictions)
    tensors["predicted/nearest"] = tensors.pop("predicted/tfidf-svm")
    save_file(tensors, predictions)
    told = analyse(folder, with_texts=False)
    names = [line.cells[0].text for line in tables(told)["results"].lines]
    assert names[:4] == ["majority class", "random head (chance)", "nearest ≈", "linear probe"]
    assert any("majority class −56.7 points" in sentence and "nearest −3.3" in sentence for sentence in told.caveats)
    lines = table_text(results_table(read_results(folder))).splitlines()
    assert [line.split("  ")[0].strip() for line in lines if "0.8667" in line] == ["nearest"]
    assert draw(told)


def test_a_command_of_several_lines_stays_in_its_block(analysis: Analysis) -> None:
    md = render_markdown(replace(analysis, command="loralet study 'a\n<b>bold</b>\n# heading'"), [], "figures")
    start = md.index("Command:")
    block = md[start : md.index("## Results")].splitlines()[2:]
    assert [line for line in block if line] == ["    loralet study 'a <b>bold</b> # heading'"]


def boxes(
    labels: Sequence[Label], dots: Sequence[tuple[float, float]]
) -> tuple[list[Bbox], Bbox, list[tuple[float, float]]]:
    """Boxes of the names, the frame, and the dots, in pixels."""
    with styled():
        axes = sheet(height=3.4).add_subplot()
        axes.set(xlim=(0, 1), ylim=(0.7, 1.0))
        notes = place_labels(axes, labels, dots)
        renderer = FigureCanvasAgg(axes.figure).get_renderer()  # type: ignore[arg-type, no-untyped-call]
        places = [tuple(place) for place in axes.transData.transform(list(dots))]
        return [note.get_window_extent(renderer) for note in notes], axes.get_window_extent(renderer), places


def test_names_in_a_figure_do_not_overlap_and_stay_within_the_frame() -> None:
    """Three configurations of equal cost and accuracy in a corner of the axes, and an isolated one."""
    crowd = [Label(f"r{rank} α256", 0.97, 0.88, 0.99, MUTED, False, "right") for rank in (4, 16, 32)]
    free = Label("probe", 0.2, 0.8, 0.9, MUTED, True, "center")
    dots = [(0.97, 0.94), (0.2, 0.85)]
    found, frame, places = boxes([*crowd, free], dots)
    for i, box in enumerate(found):
        assert not any(box.overlaps(other) for other in found[:i])
        assert not any(box.contains(x, y) for x, y in places)
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1
    alone, _, _ = boxes([free], dots)
    assert alone[0].bounds == pytest.approx(found[3].bounds)  # the isolated name has its preferred position
    assert alone[0].y1 < places[1][1]
    above, _, _ = boxes([replace(free, below=False)], dots)
    assert above[0].y0 > places[1][1]
