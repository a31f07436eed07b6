"""The page in a browser: no errors, all figures visible, and a layout that fits desktop and phone screens."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from run_folders import write_data, write_hybrid, write_study

from loralet.cli import main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--allow-file-access-from-files",
    "--virtual-time-budget=3000",
)  # fmt: skip

LISTEN = """<script>window.faults = [];
for (const kind of ["error", "warn"]) {
  const own = console[kind];
  console[kind] = (...a) => { faults.push(a.join(" ")); own(...a); };
}
addEventListener("error", e => faults.push(String(e.message || e.target)), true);
addEventListener("unhandledrejection", e => faults.push(String(e.reason)));
document.addEventListener("securitypolicyviolation", e => faults.push("refused: " + e.blockedURI));</script>"""

MEASURE = """<script>function measure() {
  const names = table => [...table.tBodies[0].rows].map(row => row.cells[0].textContent);
  const table = document.querySelector("table.results"), before = names(table);
  table.tHead.rows[0].cells[2].firstElementChild.click();
  const up = names(table);
  table.tHead.rows[0].cells[2].firstElementChild.click();
  return {
    faults, before, up, down: names(table), sort: table.tHead.rows[0].cells[2].getAttribute("aria-sort"),
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth, width: innerWidth,
    ink: getComputedStyle(document.body).color, names: table.tBodies[0].rows[0].cells[0].getBoundingClientRect().width,
    figures: [...document.querySelectorAll("svg")].map(svg => {
      const box = svg.getBoundingClientRect(), drawn = svg.getBBox();
      const scale = box.width / svg.viewBox.baseVal.width, texts = [...svg.querySelectorAll("text")];
      const letters = texts.map(text => scale * parseFloat(getComputedStyle(text).fontSize));
      const cut = texts.map(text => text.getBoundingClientRect()).filter(
        text => text.left < box.left - 1 || text.right > box.right + 1 || text.top < box.top - 1
          || text.bottom > box.bottom + 1).length;
      return {name: svg.getAttribute("aria-labelledby"), width: box.width, height: box.height, drawn: drawn.width,
        letters: Math.min(...letters), cut};
    }),
    wide: [...document.querySelectorAll(".scroll, .panel")].filter(box => box.scrollWidth > box.clientWidth + 1).map(
      box => getComputedStyle(box, "::before").content),
    narrow: [...document.querySelectorAll(".scroll, .panel")].filter(box => box.scrollWidth <= box.clientWidth).map(
      box => getComputedStyle(box, "::before").content),
  };
}</script>"""

FRAME = """<!DOCTYPE html><title>frame</title><body style="margin:0">
<iframe id="frame" src="page.html" style="border:0;width:%dpx;height:900px"></iframe>
<script>frame.onload = () => {
  const out = document.createElement("pre"); out.id = "out";
  let seen;
  try { seen = frame.contentWindow.measure(); } catch (error) { seen = {faults: [String(error)]}; }
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
};</script></body>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report in a frame of a given width, with an error listener at its start and measurements at its end."""
    folder = tmp_path_factory.mktemp("browser")
    write_data(folder / "data")
    write_study(folder / "run", folder / "data", seeds=(0, 1))
    listened(folder, folder / "run")
    return folder


@pytest.fixture(scope="module")
def single(page: Path) -> Path:
    """The same for a single run with long labels."""
    folder = page / "single"
    folder.mkdir()
    listened(folder, write_hybrid(folder / "run", page / "data", folds=True))
    return folder


def listened(folder: Path, run: Path) -> None:
    """Write the report of a run as ``page.html`` of a folder."""
    assert main(["report", str(run), "--format", "html"]) == 0
    text = (run / "report.html").read_text()
    (folder / "page.html").write_text(
        text.replace("<head>", f"<head>{LISTEN}", 1).replace("</body>", f"{MEASURE}</body>", 1)
    )


def browse(folder: Path, width: int) -> dict[str, Any]:
    (folder / f"frame-{width}.html").write_text(FRAME % width)
    profile = folder / f"profile-{width}"
    assert CHROMIUM
    command = [
        CHROMIUM,
        *FLAGS,
        f"--user-data-dir={profile}",
        f"--window-size={max(width, 600)},1000",
        "--dump-dom",
        f"file://{folder}/frame-{width}.html",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert found, done.stderr[-2000:]
    return dict(json.loads(unescape(found[1])))


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_in_chromium(page: Path, width: int) -> None:
    seen = browse(page, width)
    assert seen["faults"] == []
    assert seen["width"] == width
    assert seen["overflow"] <= 0
    assert len(seen["figures"]) == 12
    for figure in seen["figures"]:
        assert figure["width"] > 300, figure
        assert figure["height"] > 100, figure
        assert figure["drawn"] > 200, figure
    figures_are_readable(seen)
    assert seen["sort"] == "descending"
    assert seen["up"] != seen["before"]
    assert (seen["up"][0], seen["up"][-1]) == ("random head (chance)", "r4 α16 ★")
    assert seen["down"] == seen["up"][::-1]


def figures_are_readable(seen: dict[str, Any]) -> None:
    """Letters have at least 10 pixels and lie within their figure, and what scrolls says so."""
    for figure in seen["figures"]:
        assert figure["letters"] >= 10, figure
        assert figure["cut"] == 0, figure
    assert all("scroll sideways" in hint for hint in seen["wide"])
    assert all(hint == "none" for hint in seen["narrow"])


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_of_a_single_run_in_chromium(single: Path, width: int) -> None:
    seen = browse(single, width)
    assert seen["faults"] == []
    assert (seen["width"], seen["overflow"]) == (width, 0)
    assert [figure["name"].split("-title")[0] for figure in seen["figures"]] == [
        "class-rows", "confusion", "reliability", "coverage", "course-loss", "course-accuracy",
    ]  # fmt: skip
    figures_are_readable(seen)
    assert bool(seen["wide"]) == (width == 400)
    assert seen["up"][-1] == "hybrid: LoRA and TF-IDF + logistic regression ★"


def test_long_names_leave_space_for_numbers_on_a_phone(page: Path) -> None:
    long = page / "long"
    long.mkdir()
    name = "linear probe · google/bert_uncased_L-2_H-128_A-2"
    (long / "page.html").write_text(
        (page / "page.html").read_text().replace(">linear probe<", f">{name}<").replace(">majority class<", f">{name}<")
    )
    seen = browse(long, 400)
    assert 100 < seen["names"] < 200
    assert seen["overflow"] <= 0
    assert browse(long, 1280)["names"] > 250  # on a desktop screen, names do not wrap


@pytest.mark.skipif(
    shutil.which("pdftotext") is None, reason="no pdftotext is installed (Debian: apt-get install poppler-utils)"
)
def test_the_page_on_paper(page: Path) -> None:
    """Each figure's heading and caption are on one page, and interactive hints are not printed."""
    assert CHROMIUM
    pdf, report = page / "page.pdf", page / "run" / "report.html"
    flags = (*FLAGS, f"--user-data-dir={page / 'profile-print'}", "--no-pdf-header-footer")
    subprocess.run(
        [CHROMIUM, *flags, f"--print-to-pdf={pdf}", f"file://{report}"], capture_output=True, timeout=120, check=True
    )
    text = subprocess.run(["pdftotext", "-raw", str(pdf), "-"], capture_output=True, text=True, check=True).stdout
    sheets = [" ".join(sheet.split()) for sheet in text.split("\f")]
    figures = re.findall(
        r"<h2>([^<]*)</h2>\s*<figure.*?<figcaption[^>]*>(.*?)</figcaption>", report.read_text(), flags=re.DOTALL
    )
    assert len(figures) == 5
    for heading, caption in figures:
        assert any(heading in sheet and " ".join(unescape(caption).split()) in sheet for sheet in sheets), heading
    assert not any("A heading sorts" in sheet for sheet in sheets)
    assert any("was chosen on validation" in sheet for sheet in sheets)


def test_the_browser_check_detects_errors(page: Path) -> None:
    whole = (page / "page.html").read_text()
    broken = page / "broken"
    broken.mkdir()
    spoilt = whole.replace("</main>", '<div style="width:3000px">x</div><img src="http://127.0.0.1:9/x.png"></main>')
    (broken / "page.html").write_text(spoilt)
    seen = browse(broken, 400)
    assert seen["overflow"] > 0
    assert any("refused" in fault for fault in seen["faults"])
