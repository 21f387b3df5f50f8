"""Every page in a real browser: wide and narrow, light and dark, with and without JavaScript."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import DATA, ROOT
from sweep_support import write_sweep

from bench.profiling.analysis import Context, analyse
from bench.record import store
from bench.report import load_page, next_step, pages, run_page
from bench.report import page as forms
from bench.report.page import Page
from bench.report.plots import Plot
from bench.report.profile_view import view
from bench.sweep.folder import Folder
from bench.verbs import report
from tests.trace_writer import CPU, FLUX

EVIDENCE = ROOT / "docs" / "evidence"
LOAD = DATA / "serving" / "loads" / "20261128T190000Z-load-flux-tiny-000023"
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
VIEWS = [(width, scheme, script) for width in (390, 1280) for scheme in ("light", "dark") for script in (True, False)]

MISSING = """() => [
  ...[...document.images].filter((image) => !image.alt).map((image) => `image without alt: ${image.src.slice(0, 40)}`),
  ...[...document.querySelectorAll("svg")]
    .filter((svg) => !svg.closest("[aria-label]") && !(svg.role === "img" && svg.querySelector("title")))
    .map((svg) => `plot without title: ${svg.closest("figure")?.id}`),
  ...[...document.querySelectorAll("table")].filter((table) => !table.caption).map(() => "table without caption"),
  ...[...document.querySelectorAll("th")].filter((head) => !head.scope).map(() => "heading without scope"),
  ...(document.querySelectorAll("h1").length === 1 ? [] : ["not one h1"]),
  ...(document.title ? [] : ["no title"]),
]"""
WIDER = """() => [...document.querySelectorAll("body, main, section, figure, .live, .still, pre, header")]
  .filter((element) => element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).display !== "none")
  .map((one) => `${one.tagName} ${one.id || one.className}: ${one.scrollWidth} > ${one.clientWidth}`)
  .concat(document.documentElement.scrollWidth > innerWidth ? ["the page scrolls sideways"] : [])"""
CUT = """() => [...document.querySelectorAll(".live svg")].flatMap((svg) => {
  const plot = svg.querySelector("path.background").getBoundingClientRect();
  return [...svg.querySelectorAll("g.mark-symbol[clip-path] path")].map((mark) => mark.getBoundingClientRect())
    .filter((mark) => mark.left < plot.left || mark.right > plot.right
      || mark.top < plot.top || mark.bottom > plot.bottom)
    .map((mark) => `${svg.closest("figure").id} cuts a mark at ${mark.left}, ${mark.top}`);
})"""
CONTRAST = """() => {
  const light = (text) => {
    const linear = (c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = text.match(/[\\d.]+/g).map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$|transparent/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = [...document.querySelectorAll("h1, h2, p, dt, dd, th, td, li, a, button, pre, .outcome")];
  return texts.filter((e) => e.innerText?.trim()).map((e) => {
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), e.tagName + " " + e.className];
  }).filter(([ratio]) => ratio < 4.5);
}"""


@pytest.fixture(scope="session", name="made")
def _made(tmp_path_factory):
    """Every kind of page, by name."""
    runs = tmp_path_factory.mktemp("runs")
    for name in ("eager", "session", "compile"):
        shutil.copytree(EVIDENCE / name, runs / name)
    write_sweep(runs / "sweep-mine", {(cell, "ab"[cell % 2]): 1000.0 + cell for cell in range(9)}, failed=["broken"])
    return {
        "sweep": report.swept(Folder(runs / "sweep-mine")),
        "run": pages.of(EVIDENCE / "session"),
        "invalid": pages.of(EVIDENCE / "caught"),
        "comparison": pages.of(DATA / "ab"),
        "history": report.history(runs, None, "total"),
        "load": pages.of(LOAD),
        "profile": view(analyse([FLUX], Context(engine_version="0.5.17"))),
        "profile-cpu": view(analyse([CPU])),
        "accuracy": pages.of(EVIDENCE / "accuracy"),
    }


KINDS = ["sweep", "run", "invalid", "comparison", "history", "load", "profile", "profile-cpu", "accuracy"]


def test_a_line_joins_open_loop_rates_only(made):
    (plot,) = (block for block in made["load"].blocks if getattr(block, "name", "") == "rate")
    line, points, others = plot.view["layer"][:3]
    assert line["mark"]["type"] == "line"
    assert line["data"] == points["data"]
    assert {value["sent"] for value in line["data"]["values"]} == {"open loop"}
    assert {value["phase"] for value in others["data"]["values"]} == {"closed-1"}
    assert others["mark"]["filled"] is False


def test_a_load_page_answers_with_the_rate_that_was_asked_for(made):
    record = made["load"].documents["load.json"]
    phases = [{**phase, "figures": {**phase["figures"], "p50_s": None}} for phase in record["phases"]]
    alone = next(phase for phase in record["phases"] if phase["name"] == "closed-1")
    few = load_page.page({**record, "phases": [alone, *(phase for phase in phases if phase["name"] != "closed-1")]}, [])
    assert few.answer.endswith(" a second too few requests were answered for a median")


def test_a_command_to_copy_has_no_variable_of_the_image(made):
    record = made["load"].documents["load.json"]
    launch = record["launches"][0]
    command = {**launch["command"], "environment": {"NVIDIA_REQUIRE_CUDA": "x", "OMP_NUM_THREADS": "1"}}
    page = load_page.page({**record, "launches": [{**launch, "command": command}]}, [])
    (server,) = (command for block in page.blocks for command in getattr(block, "commands", ()))
    assert server.text.startswith("OMP_NUM_THREADS=1 ")


def test_the_command_that_measures_an_arm_again_has_its_variables():
    html = forms.html(pages.of(EVIDENCE / "h200-0.5.23-served" / "compile"))
    assert re.search(r"invoke ab --model flux-full-synthetic .*SGLANG_TORCH_COMPILE_MODE=default", html)


def test_code_in_a_text_is_code_on_the_page_and_its_markup_is_text(made):
    page = replace(made["comparison"], warnings=("take `a <b>` or <i>", "an odd ` stays"))
    html = forms.html(page)
    assert "<li>take <code>a &lt;b&gt;</code> or &lt;i&gt;</li>" in html
    assert "<li>an odd ` stays</li>" in html
    assert "±1.5 %" in html
    assert "+-" not in re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)


@pytest.fixture(scope="module", name="chromium")
def _chromium():
    sync = (
        pytest.importorskip("playwright.sync_api")
        if not os.environ.get("CI")
        else __import__("playwright.sync_api").sync_api
    )
    with sync.sync_playwright() as driver:
        if CHROMIUM is None and not Path(driver.chromium.executable_path).exists():
            why = "no Chromium: apt-get install chromium, or playwright install chromium"
            if os.environ.get("CI"):
                pytest.fail(f"CI must not skip this: {why}")
            pytest.skip(why)
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(chromium, path, width=1280, scheme="light", script=True):
    """Return a tab with the page in it, and the list of what it complains of or asks the network for."""
    context = chromium.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=script, offline=True
    )
    tab, heard = context.new_page(), []
    tab.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
    tab.on("pageerror", lambda error: heard.append(f"error: {error}"))
    tab.on(
        "request", lambda request: heard.append(request.url) if not request.url.startswith(("file:", "data:")) else None
    )
    tab.goto(path.as_uri())
    return tab, heard


@pytest.mark.browser
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_whole_in_every_view(kind, made, chromium, tmp_path):
    page = made[kind]
    path = tmp_path / "page.html"
    forms.write(page, path)
    count = sum(isinstance(block, Plot) for block in page.blocks)
    for width, scheme, script in VIEWS:
        tab, heard = opened(chromium, path, width, scheme, script)
        where = f"{kind} at {width}, {scheme}, JavaScript {'on' if script else 'off'}"
        if script:
            for plot in tab.locator("main > figure").all():
                plot.locator(".live svg").wait_for()
            assert tab.evaluate(CUT) == [], where
        else:
            assert tab.locator("main > figure svg:visible").count() == count, where
        tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert tab.evaluate(MISSING) == [], where
        assert tab.evaluate(WIDER) == [], where
        assert tab.evaluate(CONTRAST) == [], where
        assert heard == [], where
        if shots := os.environ.get("PAGE_SHOTS"):
            tab.screenshot(path=f"{shots}/{kind}-{width}-{scheme}-{'js' if script else 'still'}.png", full_page=True)
        tab.context.close()


@pytest.mark.browser
def test_this_test_would_see_a_request_an_error_and_an_overflow(chromium, tmp_path):
    path = tmp_path / "page.html"
    wide = '<!doctype html><title>x</title><h1>x</h1><main style="width:3000px"><img src="https://example.com/x.png"></main>'
    path.write_text(f"{wide}<svg></svg><table><tr><th>x</th></tr></table><script>null.x</script>")
    tab, heard = opened(chromium, path)
    assert any("example.com" in line for line in heard)
    assert any(line.startswith("error: ") for line in heard)
    assert "the page scrolls sideways" in tab.evaluate(WIDER)
    assert len(tab.evaluate(MISSING)) == 4
    tab.context.close()


@pytest.mark.browser
def test_a_reader_sorts_filters_and_copies_by_keyboard(made, chromium, tmp_path):
    path = tmp_path / "page.html"
    forms.write(made["run"], path)
    tab, heard = opened(chromium, path)
    table = tab.locator("section", has=tab.get_by_role("heading", name="Requests", exact=True)).locator("table")
    head = table.get_by_role("button", name="end to end")
    head.focus()
    tab.keyboard.press("Enter")
    cells = [row.locator("td").nth(1).inner_text() for row in table.locator("tbody tr").all()]
    figures = [float(cell.split()[0].replace(",", "")) for cell in cells]
    assert figures == sorted(figures)
    assert table.locator("th[aria-sort=ascending]").count() == 1
    copy = tab.get_by_role("button", name="Copy: launch", exact=True)
    copy.focus()
    tab.keyboard.press("Enter")
    tab.get_by_text("Copied").first.wait_for()
    assert heard == []
    tab.context.close()


# --- forms without a browser ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_small_says_its_verdict_first_and_escapes(kind, made):
    evil = "</script><script>alert(1)</script>"
    page = replace(made[kind], title=evil, documents={"x.json": {"x": evil}}, evidence={"x": b"x"})
    html = forms.html(page)
    assert len(html) < 3_000_000
    assert "<script>alert" not in html
    assert html.index(page.outcome) < html.index("<dl>")
    assert forms.markdown(page).splitlines()[2].startswith("**")


def test_an_invalid_run_has_no_number(made):
    page = made["invalid"]
    assert page.outcome == "invalid"
    assert page.answer.startswith("No timings are reported")
    assert (page.samples, page.data) == ((), ())
    assert forms.openmetrics(page) == "# EOF\n"
    assert not any(isinstance(block, Plot) for block in page.blocks)


def test_the_compared_metric_has_one_effect_on_its_page(made):
    """The ratio of the medians of all requests is +26.5 %, and the pairs say +64.18 %."""
    page = made["comparison"]
    (numbers,) = (block for block in page.blocks if block.title == "Numbers")
    (row,) = (row for row in numbers.rows if row[0] == "total time")
    assert row[-1] == "+64.18 %"
    assert "+26.5 %" not in forms.markdown(page)


def test_a_comparison_is_titled_as_its_effect_is_told_and_does_not_name_its_arms_folders(made):
    page = made["comparison"]
    baseline, candidate = page.documents["comparison.json"]["arms"].values()
    assert page.title.endswith(f"{candidate['spec']} against {baseline['spec']}")
    assert "baseline baseline; candidate candidate" not in [value for _, value in page.facts]


def test_the_notes_of_a_comparison_stand_below_its_facts(made):
    page = made["comparison"]
    assert "all 3 pairs are measured and the question is open" in page.notes
    assert all(name and name != "note" for name, _ in page.facts)
    html = forms.html(page)
    assert html.index("</dl>") < html.index(f"<li>{page.notes[0]}</li>") < html.index("<figure")
    assert f"\n- {page.notes[0]}\n" in forms.markdown(page)


def boxes(page):
    (plot,) = (block for block in page.blocks if getattr(block, "name", "") == "requests")
    drawn = [layer for layer in plot.view["layer"] if layer["mark"]["type"] == "boxplot"]
    return [{value["launch"] for value in layer["data"]["values"]} for layer in drawn], plot


def test_a_box_is_drawn_of_several_requests_only():
    record = store.read(EVIDENCE / "session")
    one, two = record["requests"][0], [{**request, "launch": 2} for request in record["requests"][1:]]
    (box,), _ = boxes(run_page.page({**record, "requests": [one, *two]}, EVIDENCE / "session"))
    assert box == {"launch 2"}
    drawn, plot = boxes(run_page.page({**record, "requests": [one]}, EVIDENCE / "session"))
    assert drawn == []
    assert "box" not in plot.caption


def test_the_page_of_a_run_that_was_cut_off_says_so_first(tmp_path):
    record = store.read(EVIDENCE / "session" / "run.json") | {"complete": False}
    shown = run_page.page(record, tmp_path)
    assert shown.answer.startswith("The run was cut off. Until then a request takes ")
    assert any(warning.startswith("not complete: it was cut off") for warning in shown.warnings)


@pytest.mark.parametrize(("steps", "there"), [(4, False), (20, True)])
def test_a_95th_percentile_is_of_twenty_steps_and_more(tmp_path, steps, there):
    record = store.read(EVIDENCE / "session" / "run.json")
    record["workload"]["steps"] = steps
    assert any("p95" in sample.name for sample in run_page.page(record, tmp_path).samples) == there


def test_openmetrics_have_base_units_and_one_end(made):
    lines = forms.openmetrics(made["run"]).splitlines()
    (total,) = [line for line in lines if line.startswith("sglang_diffusion_total_seconds{")]
    assert float(total.rpartition(" ")[2]) == pytest.approx(7.127137734)
    assert 'verdict="degraded"' in total
    assert lines[-1] == "# EOF"
    assert lines.count("# TYPE sglang_diffusion_total_seconds gauge") == 1


def test_csv_has_full_precision(made):
    rows = forms.comma_separated(made["run"]).splitlines()
    assert rows[0].startswith("run,verdict,launch,request,wall_s,total_ms,denoise_ms")
    assert len(rows) == 11
    assert "6909.447897000007" in rows[1]


def test_the_degradations_stand_beside_the_numbers(made):
    page = made["run"]
    assert page.outcome == "degraded"
    assert any("streams these components" in warning for warning in page.warnings)
    assert all(block.caption.startswith("Degraded run.") for block in page.blocks if isinstance(block, Plot))


def test_a_profile_of_an_earlier_workbench_says_how_to_analyse_it_again(invoke):
    ended = invoke("report", EVIDENCE / "profile", "--markdown")
    assert ended.code == 1
    assert "`invoke profile --trace FILE` analyses its trace again" in ended.err


@pytest.mark.parametrize("words", [(), ("last", "--history"), ("--model", "flux", "--history")])
def test_one_thing_is_reported(words, invoke):
    ended = invoke("report", *words)
    assert ended.code == 1
    assert "one of the four" in ended.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((DATA / "ab", "--markdown", "--csv"), "--markdown and --csv are two forms of one report"),
        ((DATA / "ab", "--metric", "denoise"), "--metric chooses the series of a history"),
        ((DATA / "ab", DATA / "ab", "--json"), "--json takes one run"),
    ],
)
def test_what_would_be_ignored_is_refused(words, says, invoke):
    ended = invoke("report", *words)
    assert ended.code == 1
    assert says in ended.err


def test_another_form_is_written_where_it_was_asked_for(invoke, tmp_path):
    path = tmp_path / "figures.prom"
    ended = invoke("report", DATA / "ab", "--openmetrics", "--output", path)
    assert (ended.code, ended.out) == (0, "")
    assert path.read_text() == invoke("report", DATA / "ab", "--openmetrics").out


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("docs", "nothing here has a page\n  where: docs"),
        ("absent/run", "no such file or folder\n  where: absent/run"),
        ("README.md", "this file is not JSON, as a record is\n  where: README.md"),
        ("pyproject.toml", "nothing here has a page\n  where: pyproject.toml"),
    ],
)
def test_what_has_no_page_is_refused_with_what_has_one(place, says, invoke):
    ended = invoke("report", place)
    assert ended.code == 1
    assert says in ended.err
    assert "a run is called last" in ended.err


def test_the_page_of_an_ab_has_the_command_that_makes_its_number():
    text = forms.markdown(pages.of(DATA / "ab"))
    assert "both: with this workbench" in text
    assert re.search(r"^invoke ab --model flux-tiny .*--repeats 4 .*--pairs 3", text, re.MULTILINE), text
    assert "invoke bench" not in text


@pytest.mark.parametrize(
    ("asked", "spec", "named"),
    [(None, "", True), ("path", "model-path=x", True), ("path", "engine=path steps=2", False), ("path", "path", False)],
)
def test_the_command_of_an_ab_names_the_engine_unless_its_baseline_does(asked, spec, named):
    document = json.loads((DATA / "ab" / "comparison.json").read_text())
    document["arms"]["baseline"]["spec"] = spec
    record = json.loads((DATA / "ab" / "baseline" / "run.json").read_text())
    record["asked"]["engine"], record["engine"]["name"] = asked, "path"
    assert (" --engine path " in next_step.ab(document, record, 3)) is named


# --- pages are judged again -------------------------------------------------------------------------------------------


@pytest.fixture(name="ab_page")
def _ab_page(tmp_path):
    def write(change=lambda page: page):
        path = tmp_path / "page.html"
        forms.write(change(pages.of(DATA / "ab")), path)
        return path

    return write


def test_a_page_is_judged_again_by_its_own_evidence(invoke, ab_page):
    ended = invoke("attest", ab_page())
    assert ended.code == 0, ended.err
    assert "baseline: native" in ended.out
    assert "comparison: " in ended.out
    assert "; outputs are not in the page and were not checked" in ended.out
    assert "gone" not in ended.out


@pytest.mark.parametrize("name", ["baseline/launch-1/engine.log", "candidate/launch-1/request-002/perf.json"])
def test_a_page_whose_evidence_was_edited_is_named(name, invoke, ab_page):
    def edit(page: Page) -> Page:
        assert name in page.evidence
        return replace(page, evidence={**page.evidence, name: page.evidence[name] + b" "})

    ended = invoke("attest", ab_page(edit))
    assert ended.code != 0
    assert f"{name.partition('/')[2]} was changed: its hash differs" in ended.err


def test_a_page_without_evidence_is_told_from_what_is_no_page(invoke, tmp_path):
    path = tmp_path / "report.html"
    forms.write(view(analyse([CPU])), path)
    ended = invoke("attest", path)
    assert ended.code == 1
    assert f"this page (profile) has no evidence in it\n  where: {path}\n  to do: name the run itself" in ended.err


def test_a_page_whose_pairs_were_edited_is_named(invoke, ab_page):
    def edit(page: Page) -> Page:
        documents = json.loads(json.dumps(page.documents))
        documents["comparison.json"]["pairs"][0]["candidate"][0] *= 0.5
        return replace(page, documents=documents)

    ended = invoke("attest", ab_page(edit))
    assert ended.code != 0
    assert "the pairs of the candidate are not its record's requests" in ended.err


@pytest.mark.parametrize(
    "text", ["", "<html></html>", '<script type="application/json" id="embedded">{"x": 1}</script>']
)
def test_what_is_no_page_is_refused(text, invoke, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(text)
    ended = invoke("attest", path)
    assert ended.code == 1
    assert "page" in ended.err
