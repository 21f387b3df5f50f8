from __future__ import annotations

import csv
import gzip
import io
import json
import re

import pytest
from helpers import check_golden
from rich.console import Console

from bench import schema
from bench.catalog.devices import Ceiling
from bench.errors import InvalidDocument, UsageError
from bench.profiling import export
from bench.profiling.analysis import Context, analyse
from bench.profiling.bottleneck import Unprofiled, actions, host_ahead, verdict, without_profiler
from bench.profiling.diff import diff
from bench.profiling.summary import MedianStep
from bench.report import page as pages
from bench.report import profile, profile_diff, profile_forms, profile_plots, profile_view
from bench.report.figures import figure
from bench.report.plots import Plot
from bench.report.profile_view import view
from bench.report.tables import Table, short_kernel
from tests.trace_writer import CPU, DATA, FLUX, FLUX_H100, HEAD, NCCL, Script, loaded

PLOTS = ["waterfall", "steps", "roofline", "bandwidth", "gaps", "blocks"]


def relative(document):
    """Return a report whose paths do not depend on where this checkout is."""
    return json.loads(json.dumps(document).replace(str(DATA) + "/", ""))


@pytest.fixture(scope="module")
def flux():
    return relative(analyse([FLUX], Context(engine_version="0.5.17")))


@pytest.fixture(scope="module")
def cpu():
    return relative(analyse([CPU]))


def printed(render, document, width, **options):
    console = Console(width=width, file=io.StringIO(), color_system=None, legacy_windows=False)
    render(document, console, **options)
    return "".join(line.rstrip() + "\n" for line in console.file.getvalue().splitlines())


def test_the_analysis_finds_what_was_found_by_hand(flux):
    """reference/trace.md, section 2, of six steps; the fixture holds steps 4, 5 and 6, of which 5 is counted."""
    gpu = flux["traces"][0]["gpu"]
    ms = {entry["id"]: entry["ms"] for entry in gpu["categories"]}
    assert ms["gemm"] == pytest.approx(80.040, abs=0.001)
    assert ms["attention"] == pytest.approx(23.387, abs=0.001)
    assert ms["modulation"] == pytest.approx(9.276, abs=0.001)
    assert ms["norm"] == pytest.approx(2.134, abs=0.001)
    gemm = gpu["categories"][0]
    assert (gemm["per_step"], gemm["tflop"]) == (421, pytest.approx(59.506, abs=0.001))
    assert gemm["tflops"] == pytest.approx(743, abs=1)
    by_label = {step["label"]: step for step in gpu["steps"]}
    assert by_label["4"]["span_ms"] == pytest.approx(137.995, abs=0.001)
    assert by_label["5"]["busy_ms"] == pytest.approx(130.358, abs=0.001)
    assert 100 * by_label["5"]["idle_ms"] / by_label["5"]["span_ms"] == pytest.approx(6.012, abs=0.001)
    assert by_label["6"]["host_wait_ms"] == pytest.approx(1.987, abs=0.001)
    assert [label for label, step in by_label.items() if step["outlier"]] == ["6"]
    assert gpu["median_step"]["events"] == 2105
    scopes = {scope["module"]: scope for scope in gpu["scopes"]}
    assert scopes["FluxTransformerBlock"]["instances"] == 19
    assert len(scopes["FluxSingleTransformerBlock"]["instance_ms"]) == 38
    assert gpu["verdict"]["bound_by"] == "arithmetic"
    assert flux["context"]["model"] == "flux"


def test_the_h100_has_ceilings_floors_and_a_roofline_and_no_advice_on_the_profilers_own_idle_time():
    """`../shared/evidence/h100_0.5.23`: the first advice was 12.4 ms of idle time that a CUDA graph did not gain."""
    document = analyse([FLUX_H100], Context(engine_version="0.5.23", quality="lossless"))
    assert schema.violations(document, "profile-report") == []
    gpu = document["traces"][0]["gpu"]
    limits = gpu["ceilings"]
    assert limits["device"] == "NVIDIA H100 (SXM, 80 GB)"
    assert (limits["tflops_specified"], limits["tb_s_specified"]) == (989.4, 3.35)
    assert limits["tflops_basis"] == limits["tb_s_basis"] == "measured on a card of this model"
    floors = {floor["label"]: floor["ms"] for floor in gpu["floors"]}
    assert floors["arithmetic at the maker's figure"] == pytest.approx(75.2, abs=0.1)
    assert len(floors) == 3
    assert "idle" not in {action["state"] for action in gpu["actions"]}
    assert gpu["actions"][0]["title"].startswith("Single-stream")
    assert any("under the profiler; how much of it" in line for line in document["traces"][0]["warnings"])
    html = pages.html(view(document))
    assert re.findall(r'<figure id="plot-(\w+)"', html) == PLOTS
    assert "bf16 798 TFLOP/s (measured on a card of this model)" in html


def test_the_floor_of_a_step_goes_to_the_step_without_the_profiler():
    document = analyse([FLUX_H100], Context(unprofiled=Unprofiled(step_ms=127.9, host_ahead=True)))
    gpu = document["traces"][0]["gpu"]
    assert sum(bar["ms"] for bar in gpu["waterfall"]) == pytest.approx(127.9)
    assert gpu["verdict"]["floor_ratio"] == pytest.approx(127.9 / 93.2, abs=0.01)
    (idle,) = (action for action in gpu["actions"] if action["state"] == "idle")
    assert idle["saving_ms"] < 2
    assert idle["arm"] == "cuda-graph"
    assert "the CPU runs ahead of the GPU" in idle["evidence"]
    assert "the bars add up to the step without the profiler" in pages.markdown(view(document))


def test_a_card_that_nobody_knows_is_held_against_its_own_best_shape(tmp_path):
    text = gzip.decompress(FLUX_H100.read_bytes()).replace(b"NVIDIA H100 80GB HBM3", b"Tesla V9000")
    path = tmp_path / "x.json.gz"
    path.write_bytes(gzip.compress(text, 1))
    limits = analyse([path])["traces"][0]["gpu"]["ceilings"]
    assert (limits["device"], limits["tb_s"]) == (None, None)
    assert limits["tflops"] == limits["tflops_best_seen"] > 700
    assert limits["tflops_basis"] == "the best shape of this trace"
    measured = (
        Ceiling(of="bf16", kind="measured", rate=900.0, source="probe"),
        Ceiling(of="memory", kind="measured", rate=3.0, source="probe"),
    )
    known = analyse([path], Context(measured=measured))["traces"][0]["gpu"]
    assert (known["ceilings"]["tflops"], known["ceilings"]["tb_s"]) == (900.0, 3.0)
    assert known["ceilings"]["tflops_basis"] == "measured on this card"
    assert known["ceilings"]["sources"][0] == "bf16 measured 900 TFLOP/s: probe"
    assert len(known["floors"]) == 2


def test_the_backlog_is_excluded_and_reported(flux):
    trace = flux["traces"][0]
    backlog = trace["excluded"]["backlog"]
    assert backlog["events"] == 441
    assert backlog["ms"] == pytest.approx(37.56, abs=0.01)
    assert any("441 GPU events (37.6 ms, +9.3 %) were launched before the window" in line for line in trace["warnings"])


@pytest.mark.parametrize("name", ["flux", "cpu"])
def test_every_report_keeps_its_schema(name, request):
    assert schema.violations(request.getfixturevalue(name), "profile-report") == []


def test_the_markdown_of_a_gpu_trace(flux):
    check_golden("profile/flux-h200.md", pages.markdown(view(flux)))


def test_the_markdown_of_a_cpu_trace(cpu):
    check_golden("profile/cpu.md", pages.markdown(view(cpu)))


@pytest.mark.parametrize(("width", "full"), [(80, False), (200, True)])
def test_the_terminal_report(flux, width, full):
    text = printed(profile_forms.show, view(flux), width, full=full)
    assert max(map(len, text.splitlines())) <= width
    check_golden(f"profile/flux-h200.{width}.txt", text)


def test_the_diff_in_the_terminal_and_as_markdown(flux):
    trace = flux["traces"][0]
    document = diff(trace, trace, a_steps=["4", "5"], b_steps=["6"])
    text = printed(profile_forms.show, profile_diff.view(document), 100, full=True)
    assert max(map(len, text.splitlines())) <= 100
    check_golden("profile/flux-h200-diff.100.txt", text)
    check_golden("profile/flux-h200-diff.md", pages.markdown(profile_diff.view(document)))


def test_a_trace_without_gpu_events_shows_operators_instead(cpu):
    shown = view(cpu)
    text = pages.markdown(shown)
    assert text.count("No GPU events") == 1
    said = "no GPU events, only operators on the CPU: aten::addmm 31 %, aten::gelu 21 %, aten::native_layer_norm 7 % of"
    assert shown.answer == f"{said} their time"
    assert "fast paths" in dict(shown.facts)["left out"]
    assert "| aten::addmm | 256, 32x64, 64x256 | 2 |" in text
    assert "## Fast paths" not in text


def test_the_operators_of_a_cpu_add_up_to_their_total():
    document = analyse([DATA / "cache-dit-cpu-0.5.23.trace.json.gz"])
    table = next(block for block in view(document).blocks if isinstance(block, Table) and block.title == "Operators")
    *parts, rest, total = table.rows
    assert (rest[0], total[0]) == ("42 others", "total")
    own = [float(row[3]) for row in (*parts, rest)]
    assert float(total[3]) == pytest.approx(sum(own), abs=0.01)
    assert (total[4], total[5]) == ("100 %", "-")


def test_the_plot_of_a_cpu_agrees_with_the_headline_whatever_the_number_of_shapes():
    """Constructed: an operator of many short shapes, all behind the first rows of the table, is the longest."""
    shapes = {"aten::mul": [3.0] * 40, "aten::addmm": [50.0, 40.0], "aten::copy_": [20.0] * 13}
    operators = [
        {"operator": name, "shape": str(place), "per_step": 1.0, "self_ms": ms, "total_ms": ms}
        for name, each in shapes.items()
        for place, ms in enumerate(each)
    ]
    cpu = {"operators": sorted(operators, key=lambda one: -one["self_ms"])}
    (plot,) = profile_plots.of_cpu(cpu)
    drawn = {}
    for bar in plot.view["data"]["values"]:
        drawn[bar["operator"]] = drawn.get(bar["operator"], 0.0) + bar["ms"]
    assert list(drawn.items()) == [("aten::copy_", 260.0), ("aten::mul", 120.0), ("aten::addmm", 90.0)]
    assert plot.alt == "Own time of 3 operators; the longest is aten::copy_ with 260.0 ms."
    assert "aten::copy_ 55 %, aten::mul 26 %, aten::addmm 19 % of" in profile_view._of_cpu(cpu)


def test_a_report_that_leaves_tables_out_names_them(flux):
    text = printed(profile_forms.show, view(flux), 100)
    assert "in the report, or with --full: From the floor to the measured step, Floors, " in text
    assert "with --full" not in printed(profile_forms.show, view(flux), 100, full=True)


def test_the_html_is_one_file_that_needs_nothing_else(flux):
    html = pages.html(view(flux))
    assert re.findall(r'<figure id="plot-(\w+)"', html) == PLOTS
    body = html[: html.index("<script")]
    assert body.count("<svg") == 2 * len(PLOTS)  # for wide and for narrow screens
    addresses = set(re.findall(r'(?:href|src|url)\s*[=(]\s*["\']?([^"\')\s>]+)', body))
    assert {address[0] for address in addresses if not address.startswith("data:image/")} == {"#"}, addresses
    assert "default-src 'none'" in html
    assert len(html) < 3_000_000


def test_the_html_of_a_cpu_trace_has_a_plot_of_its_operators(cpu):
    html = pages.html(view(cpu))
    assert re.findall(r'<figure id="plot-(\w+)"', html) == ["operators"]
    assert "aten::native_layer_norm" in html


def test_what_a_plot_shows_is_folded_in_figures_and_once_in_the_contents(flux):
    html = pages.html(view(flux))
    contents = html[html.index("<nav") : html.index("</nav>")]
    for title in ("From the floor to the measured step", "Idle gaps by length"):
        assert f">{title}, in figures</h2>\n<details>" in html
        assert contents.count(f">{title}<") == 1
    assert ">Shapes</h2>\n<p" in html


def test_a_long_name_in_a_cell_may_be_broken_and_a_short_one_is_whole(flux):
    html = pages.html(view(flux))
    assert ">nvjet_<wbr>sm90_<wbr>tst_<wbr>192x192_" in html
    assert ">fused_qknorm_rope_warp<" in html


def test_the_dashed_lines_of_a_roofline_are_explained(flux):
    (shapes,) = (plot for plot in view(flux).blocks if isinstance(plot, Plot) and plot.name == "bandwidth")
    assert shapes.caption.endswith("Dashed: 4.8 TB/s, the maker's figure; 4.3 TB/s, measured on a card of this model.")


def test_equal_reports_are_equal_files(flux):
    assert pages.html(view(flux)) == pages.html(view(flux))


def test_names_in_a_trace_are_text_in_every_report(tmp_path):
    evil = "<script>alert(1)</script>|$x^2$&amp;"
    script = Script()
    for number in (1, 2, 3):
        script.step(number, lambda each: each.call(evil, 500, evil, [[4, 4]], modules=[evil]))
    document = analyse([script.write(tmp_path / "x.json")])
    html = pages.html(view(document))
    assert "<script>alert" not in html
    assert "&lt;script&gt;" in html
    assert re.search(r"(?<!\\)<script", pages.markdown(view(document))) is None
    marked_up = json.loads(json.dumps(document).replace("<script>", "[bold]"))
    assert "[bold]" in printed(profile_forms.show, view(marked_up), 200, full=True)


def test_a_report_is_written_whole_and_never_over_another(flux, tmp_path):
    written = profile.write("profile-report", flux, view(flux), tmp_path)
    assert [path.name for path in written] == ["report.json", "report.md", "report.html"]
    assert json.loads(written[0].read_text()) == flux
    with pytest.raises(UsageError, match="File exists"):
        profile.write("profile-report", flux, view(flux), tmp_path)


def test_a_document_that_breaks_its_schema_is_not_written(flux, tmp_path):
    with pytest.raises(InvalidDocument, match="profile-report"):
        profile.write("profile-report", flux | {"schema_version": 7}, view(flux), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_diff_is_written(flux, tmp_path):
    trace = flux["traces"][0]
    document = diff(trace, trace)
    written = profile.write("profile-diff", document, profile_diff.view(document), tmp_path)
    assert [path.name for path in written] == ["diff.json", "diff.md", "diff.html"]


def test_ranks_are_shown_side_by_side_and_the_slowest_in_detail(tmp_path):
    files = []
    for rank, duration in ((0, 100), (1, 150), (2, 100)):
        script = Script()
        for number in (1, 2, 3):
            script.step(number, lambda each, duration=duration: each.call("nvjet", duration).call(NCCL, 160 - duration))
        head = HEAD | {"distributedInfo": {"rank": rank, "world_size": 3}}
        files.append(script.write(tmp_path / f"rank{rank}.trace.json.gz", head))
    document = analyse(files, each=export.into(tmp_path))
    assert schema.violations(document, "profile-report") == []
    assert document["ranks"]["slowest"] == 1
    assert document["ranks"]["imbalance_percent"] == pytest.approx(28.6, abs=0.1)
    assert document["ranks"]["most_exposed_communication_ms"] == pytest.approx(0.06)
    assert view(document).title == "Profile of rank1.trace.json.gz"
    assert "slowest" in pages.markdown(view(document))
    assert {path.name for path in tmp_path.glob("rank2-*")} == {"rank2-events.csv.gz", "rank2-step.trace.json.gz"}


def test_an_all_stages_trace_has_steps_and_shows_what_is_outside_of_them(tmp_path):
    script = Script().call("encode", 300, modules=["T5EncoderModel_0"])
    for _ in range(4):
        script.call("nvjet", 120, modules=["FluxTransformer2DModel_0"])
    script.call("nchwToNhwcKernel", 80, modules=["Decoder_0"])
    document = analyse([script.write(tmp_path / "x.json")])
    assert schema.violations(document, "profile-report") == []
    trace = document["traces"][0]
    assert (trace["steps_found_by"], len(trace["gpu"]["steps"])) == ("module forwards", 4)
    assert trace["gpu"]["median_step"]["busy_ms"] == pytest.approx(0.120)
    assert trace["excluded"]["outside_steps"]["ms"] == pytest.approx(0.380)
    assert "Outside of the steps" in pages.markdown(view(document))
    states = {finding["id"]: finding["state"] for finding in trace["gpu"]["fast_paths"]}
    assert states["kl-vae-cl"] == "not-seen"


def test_a_trace_without_steps_is_one_window(tmp_path):
    document = analyse([Script().call("nvjet", 120).call("gelu", 30, gap=5).write(tmp_path / "x.json")])
    assert schema.violations(document, "profile-report") == []
    gpu = document["traces"][0]["gpu"]
    assert (gpu["steps"], gpu["median_step"]["of"]) == ([], 0)
    assert gpu["median_step"]["busy_ms"] == pytest.approx(0.150)
    assert sum(bar["ms"] for bar in gpu["waterfall"]) == pytest.approx(0.155)
    assert "no denoise steps" in document["traces"][0]["warnings"][0]
    assert 'id="plot-waterfall"' in pages.html(view(document))


def test_a_wait_that_the_profiler_made_is_no_verdict():
    """On an H200 the step took 172.9 ms under the profiler, 138.5 without, and the GPU was busy for 125.7 of them."""
    median = MedianStep(
        of=1, ms=172.9, span_ms=172.9, busy_ms=125.7, host_wait_ms=43.5, kernel_wait_ms=0, wait_after_ms=0,
        overlap_ms=0, communication_ms=0, exposed_communication_ms=0, synchronisations=0, events=1,
    )  # fmt: skip
    kinds = {"gemm": 77.4, "attention": 22.2}
    profiled = without_profiler(median, None)
    assert verdict(profiled, kinds, []).bound_by == "arithmetic"
    assert verdict(profiled, kinds, []).sentence.endswith("A step takes 172.9 ms under the profiler")
    assert actions([], profiled) == ()
    judged = without_profiler(median, Unprofiled(step_ms=138.5))
    assert verdict(judged, kinds, []).bound_by == "arithmetic"
    assert verdict(judged, kinds, []).sentence.endswith("A step takes 138.5 ms without the profiler")
    (action,) = actions([], judged)
    assert action.saving_ms == pytest.approx(12.8)
    assert (action.arm, actions([], judged, graphs=True)[0].arm) == ("cuda-graph", None)
    assert without_profiler(median, Unprofiled(step_ms=120.0)).host_wait_ms == 0
    assert actions([], without_profiler(median, Unprofiled(step_ms=138.5, host_ahead=True))) == ()
    slow = without_profiler(median, Unprofiled(step_ms=160.0, host_ahead=False))
    assert verdict(slow, kinds, []).bound_by == "launches"


@pytest.mark.parametrize(
    ("steps_ms", "ahead"),
    [
        ([61.0, 128.0, 127.9, 128.2, 128.1], True),
        ([20.0, 66.0, 128.0, 128.2, 128.1, 128.3], True),
        ([127.9, 128.0, 128.2, 128.1], False),
        ([131.0, 128.0, 128.2, 128.1], False),
        ([100.0, 100.0, 100.0, 100.0, 80.0], False),
        ([100.0, 100.0, 5.0, 100.0, 5.0], False),
        ([61.0, 128.0, 128.1], None),
        ([], None),
    ],
)
def test_a_request_whose_first_step_is_short_has_its_cpu_ahead(steps_ms, ahead):
    assert host_ahead(steps_ms) is ahead


def test_the_unprofiled_step_stands_beside_the_profiled_one():
    document = analyse([FLUX], Context(unprofiled=Unprofiled(step_ms=131.0), about={"command": "sglang generate"}))
    facts = dict(view(document).facts)
    assert "of all 3 steps" in facts["GPU"]
    assert facts["step"] == "139.2 ms with the profiler, 131.0 ms without"
    assert facts["command"] == "sglang generate"


def test_what_a_run_says_of_its_machine_stands_in_every_form():
    shown = view(analyse([CPU], Context(warnings=("cpu.load: the machine is busy",))))
    assert "- cpu.load: the machine is busy" in pages.markdown(shown)
    assert "<li>cpu.load: the machine is busy</li>" in pages.html(shown)
    assert "warning  cpu.load: the machine is busy" in printed(profile_forms.show, shown, 100)


def test_a_saving_is_also_a_share_of_the_step_and_seconds_of_a_request():
    shown = view(analyse([FLUX], Context(engine_version="0.5.17", steps=50)))
    ms, percent, seconds = re.fullmatch(
        r"([\d.]+) ms \(([\d.]+) %; ([\d.]+) s a request\)", shown.todos[0].saving
    ).groups()
    assert float(percent) == pytest.approx(100 * float(ms) / 139.2, abs=0.1)
    assert float(seconds) == pytest.approx(50 * float(ms) / 1e3, abs=0.01)


def test_a_quality_that_a_trace_does_not_tell_is_called_an_assumption():
    facts = dict(view(analyse([FLUX], Context(engine_version="0.5.17", quality="lossless"))).facts)
    assert facts["quality"] == "not known, taken for lossless, the engine's default"
    told = dict(view(analyse([FLUX], Context(engine_version="0.5.17", quality="high", about={"prompt": "p"}))).facts)
    assert told["quality"] == "high"
    assert facts["family"] == "flux"
    assert "model" not in facts


def test_the_events_are_exported_one_line_each(tmp_path):
    document = analyse([FLUX], each=export.into(tmp_path))
    with gzip.open(tmp_path / "events.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    counted = [row for row in rows if row["step"]]
    assert len(counted) == document["traces"][0]["gpu"]["window"]["events"] == 3 * 2105
    assert sum(not row["launch_us"] for row in rows) == 441
    assert sum(float(row["duration_us"]) for row in counted if row["step"] == "5") / 1e3 == pytest.approx(
        130.358, abs=0.01
    )
    assert {"gemm", "attention", "modulation"} <= {row["category"] for row in rows}


def test_the_slim_trace_is_one_step_and_says_the_same_of_it(tmp_path):
    whole = analyse([FLUX], each=export.into(tmp_path))["traces"][0]["gpu"]
    slim = tmp_path / "step.trace.json.gz"
    assert slim.stat().st_size < FLUX.stat().st_size / 2
    events = loaded(slim)["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "s", "f", "C"}
    assert all(isinstance(event["ts"], int | float) for event in events if event["ph"] != "M")
    document = analyse([slim])["traces"][0]
    step = document["gpu"]["steps"][0]
    expected = whole["steps"][1]
    assert (step["label"], step["events"]) == ("5", 2105)
    assert step["busy_ms"] == pytest.approx(expected["busy_ms"], abs=0.01)
    assert step["host_wait_ms"] == pytest.approx(expected["host_wait_ms"], abs=0.01)
    assert document["coverage"]["module_percent"] == pytest.approx(99.7, abs=0.1)
    assert document["excluded"]["backlog"]["events"] == 0


def test_exports_are_never_written_over(tmp_path):
    analyse([FLUX], each=export.into(tmp_path))
    with pytest.raises(UsageError, match="File exists"):
        analyse([FLUX], each=export.into(tmp_path))


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0.00"), (-0.0, "0.00"), (-0.001, "0.00"), (-0.5, "-0.50"), (1234.5, "1,234.50")],
)
def test_figures(value, text):
    assert figure(value) == text


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("nvjet_sm90_tst_192x192_64x4_2x1_v_bz_coopB_bias_TNN", "nvjet_sm90_tst_192x192_64x4_2x1_v_bz_coopB_bias_TNN"),
        ("Memset (Device)", "Memset"),
        (
            "void at::native::vectorized_elementwise_kernel<8, at::native::GeluCUDAKernelImpl(TensorIter&)>(int)",
            "vectorized_elementwise_kernel<GeluCUDAKernelImpl>",
        ),
        (
            "void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<int> > >(int)",
            "device_kernel<FlashAttnFwdSm90>",
        ),
        ("void (anonymous namespace)::fused_qknorm_rope_warp<128l, 128l>(P)", "fused_qknorm_rope_warp"),
        ("", ""),
    ],
)
def test_kernel_names_are_short(name, short):
    assert short_kernel(name) == short
