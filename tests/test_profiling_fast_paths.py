from __future__ import annotations

import itertools
import re
import tomllib

import pytest

from bench import paths
from bench.catalog import devices, fast_paths
from bench.catalog.kernel_categories import kernel_categories
from bench.errors import InvalidDocument
from bench.profiling.analysis import Context, analyse
from tests.trace_writer import CPU, FLUX, HEAD, Script

BIG, VECTOR = [1, 4096, 3072], [1, 1, 3072]
ELEMENTWISE = "void at::native::elementwise_kernel<128, 4, X>(int)"
NORM = "void at::native::vectorized_layer_norm_kernel<T>(int)"
BLOCK = ["FluxTransformer2DModel_0", "FluxTransformerBlock_0"]


def states(path, **context):
    document = analyse([path], Context(**context))
    return {finding["id"]: finding for finding in document["traces"][0]["gpu"]["fast_paths"]}


def written(tmp_path, calls, head=HEAD):
    script = Script()
    for number in (1, 2, 3):
        script.step(number, calls)
    return script.write(tmp_path / "x.json", head)


def modulated(each, times=4):
    """LayerNorm, then (1 + scale) * x + shift as two kernels: what `ln-modulate` replaces."""
    for _ in range(times):
        each.call(NORM, 20, "aten::native_layer_norm", [BIG, [], [], [], []], modules=BLOCK)
        each.call(ELEMENTWISE, 35, "aten::mul", [BIG, VECTOR], modules=BLOCK)
        each.call(ELEMENTWISE, 35, "aten::add", [BIG, VECTOR, []], modules=BLOCK)


def test_the_version_of_the_reference_trace_lacks_three_paths_and_has_three_on():
    found = states(FLUX, engine_version="0.5.17")
    by_state = {}
    for name, finding in found.items():
        by_state.setdefault(finding["state"], set()).add(name)
    assert by_state["on"] == {"attention-fa", "qknorm-rope", "timestep-embedding"}
    assert by_state["not-in-version"] == {"ln-modulate", "linear-gelu-epilogue", "residual-gate-add"}
    assert by_state["opportunity"] == {"single-block-cat", "packed-qkv"}
    assert by_state["superseded"] == {"modulate-scale-shift", "ln-affine-fold"}
    assert "miss" not in by_state
    assert "partly-on" not in by_state
    savings = {name: found[name]["saving_ms"] for name in by_state["not-in-version"] | by_state["opportunity"]}
    # reference/trace.md, section 4, of all six steps; here of step 5 alone
    assert savings["ln-modulate"] == pytest.approx(7.5, abs=0.25)
    assert savings["linear-gelu-epilogue"] == pytest.approx(4.2, abs=0.15)
    assert savings["residual-gate-add"] == pytest.approx(3.2, abs=0.15)
    assert savings["single-block-cat"] == pytest.approx(2.66, abs=0.05)
    assert found["ln-modulate"]["action"] == "upgrade SGLang to 0.5.19 or later"
    assert found["linear-gelu-epilogue"]["action"].endswith("then ask for quality lossless or high")


def test_a_version_that_has_the_paths_missed_them():
    found = states(FLUX, engine_version="0.5.23", quality="high")
    assert {found[name]["state"] for name in ("ln-modulate", "linear-gelu-epilogue", "residual-gate-add")} == {"miss"}
    assert "first-sight" in found["ln-modulate"]["action"]


def test_an_unknown_version_leaves_open_whether_it_is_a_miss():
    found = states(FLUX)
    assert found["ln-modulate"]["state"] == "version-unknown"
    assert found["ln-modulate"]["action"].startswith("upgrade SGLang if this is older than 0.5.19; else:")


def test_a_path_of_another_quality_is_no_miss():
    found = states(FLUX, engine_version="0.5.23", quality="exact")
    assert found["linear-gelu-epilogue"]["state"] == "needs-quality"
    assert "exact" in found["linear-gelu-epilogue"]["why"]
    assert found["ln-modulate"]["state"] == "miss"


def test_a_version_that_is_no_version_is_held_to_be_new():
    assert states(FLUX, engine_version="main-abc")["ln-modulate"]["state"] == "miss"


def test_off_is_told_by_the_shapes_and_saves_what_is_above_the_ideal_bytes(tmp_path):
    finding = states(written(tmp_path, modulated), engine_version="0.5.23")["ln-modulate"]
    assert finding["state"] == "miss"
    assert finding["off_ms"] == pytest.approx(4 * 0.090)
    ideal_ms = 4 * 2 * 4096 * 3072 * 2 / 4.3e12 * 1e3
    assert finding["saving_ms"] == pytest.approx(4 * 0.090 - ideal_ms)
    assert {sighting["operator"] for sighting in finding["shown_by"]} == {
        "aten::native_layer_norm",
        "aten::mul",
        "aten::add",
    }


def test_fewer_sites_than_the_rule_asks_for_are_not_the_pattern(tmp_path):
    found = states(written(tmp_path, lambda each: modulated(each, times=1)), engine_version="0.5.23")
    assert found["ln-modulate"]["state"] == "not-seen"


def test_the_same_kernels_outside_of_the_blocks_are_not_the_pattern(tmp_path):
    def calls(each):
        for _ in range(4):
            each.call(NORM, 20, "aten::native_layer_norm", [BIG])
            each.call(ELEMENTWISE, 35, "aten::mul", [BIG, VECTOR])
            each.call(ELEMENTWISE, 35, "aten::add", [BIG, VECTOR, []])

    assert states(written(tmp_path, calls), model="flux")["ln-modulate"]["state"] == "not-seen"


def test_a_path_that_runs_is_on(tmp_path):
    path = written(tmp_path, lambda each: each.call("_layernorm_modulate_kernel", 12, modules=BLOCK))
    found = states(path, engine_version="0.5.19")
    assert found["ln-modulate"]["state"] == "on"
    assert found["ln-modulate"]["on_ms"] == pytest.approx(0.012)
    assert found["ln-modulate"]["action"] == ""


def test_a_path_that_runs_in_some_places_only_is_partly_on(tmp_path):
    def calls(each):
        modulated(each)
        each.call("_layernorm_modulate_kernel", 12, modules=BLOCK)

    finding = states(written(tmp_path, calls), engine_version="0.5.23")["ln-modulate"]
    assert finding["state"] == "partly-on"
    assert finding["saving_ms"] > 0


def test_a_path_for_another_model_is_not_applicable_unless_it_runs(tmp_path):
    assert states(FLUX)["helios-rope"]["state"] == "not-applicable"
    path = written(tmp_path, lambda each: each.call("helios_qk_rope_kernel", 5, modules=BLOCK))
    assert states(path)["helios-rope"]["state"] == "on"


def test_a_path_for_a_newer_device_is_not_applicable(tmp_path):
    old = HEAD | {"deviceProperties": [{"name": "Tesla T4", "computeMajor": 7, "computeMinor": 5}]}
    finding = states(written(tmp_path, modulated, old), engine_version="0.5.23")["ln-modulate"]
    assert (finding["state"], finding["why"]) == ("not-applicable", "for compute capability 8.0 and later")


def test_a_cuda_graph_is_seen_in_the_launches_and_missed_only_when_launch_bound(tmp_path):
    path = written(tmp_path, lambda each: [each.call("k", 2.0, lag=1.0) for _ in range(20)])
    assert states(path)["bcg"]["state"] == "miss"
    assert states(FLUX)["bcg"]["state"] == "not-seen"

    def graph(each):
        each.call("k", 5)
        each.events[-2]["name"] = "cudaGraphLaunch"

    assert states(written(tmp_path, graph))["bcg"]["state"] == "on"


def test_without_ceilings_there_is_a_state_and_no_saving(tmp_path):
    unknown = HEAD | {"deviceProperties": [{"name": "GPU of tomorrow", "computeMajor": 12, "computeMinor": 0}]}
    path = written(tmp_path, modulated, unknown)
    finding = states(path, engine_version="0.5.23")["ln-modulate"]
    assert (finding["state"], finding["saving_ms"]) == ("miss", None)
    gpu = analyse([path])["traces"][0]["gpu"]
    assert gpu["floors"] == []
    assert gpu["ceilings"]["tflops"] is None


def test_every_entry_of_the_table_keeps_its_schema_and_has_a_name_of_its_own():
    entries = fast_paths.fast_paths()
    assert len(entries) == 40
    assert len({entry.id for entry in entries}) == len(entries)


@pytest.mark.parametrize("entry", fast_paths.fast_paths(), ids=lambda entry: entry.id)
def test_an_entry_can_be_told_on_or_off_and_names_known_families(entry):
    assert entry.off or entry.on.kernel or entry.on.operator or entry.on.launch
    assert set(entry.since) <= set(fast_paths.families()) | {"*"}
    sites = [rule for rule in entry.off if rule.sites]
    passes = (entry.saving or {}).get("ideal_passes")
    assert bool(sites) == bool(passes), "ideal passes are counted at the sites of one rule"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ('on = { kernel = "[ab" }', "not a regular expression"),
        ('when_off = "sometimes"', "when_off"),
        ('colour = "red"', "colour"),
        ("saving = { ideal_passes = -1 }", "saving"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_name(change, says):
    entry = """
    [[fast_path]]
    id = "new"
    title = "New"
    stage = "denoise"
    models = ["*"]
    conditions = "none"
    on = { kernel = "new_kernel" }
    when_off = "miss"
    action = "look"
    confidence = "inferred"
    """
    name = change.split(" = ")[0]
    text = re.sub(rf"(?m)^\s*{name} = .*$", "", entry) + change
    with pytest.raises(InvalidDocument) as error:
        fast_paths.parse(tomllib.loads(text), "x.toml")
    assert says in str(error.value)
    assert "[new]" in str(error.value)


def test_to_add_a_path_is_one_entry(tmp_path, monkeypatch):
    text = (paths.CATALOG / "fast_paths.toml").read_text(encoding="utf-8")
    text += """
[[fast_path]]
id = "brand-new"
title = "Brand new"
stage = "denoise"
models = ["*"]
conditions = "none"
on = { kernel = 'brand_new_kernel' }
when_off = "miss"
action = "look"
confidence = "inferred"
"""
    entries = fast_paths.parse(tomllib.loads(text), "x.toml")
    monkeypatch.setattr("bench.profiling.fast_paths.fast_paths", lambda: entries)
    path = written(tmp_path, lambda each: each.call("brand_new_kernel", 5))
    assert states(path)["brand-new"]["state"] == "on"


@pytest.mark.parametrize(
    ("classes", "family"),
    [
        (["FluxTransformer2DModel", "Linear"], "flux"),
        (["Flux2Transformer2DModel"], "flux2"),
        (["QwenImage21Transformer2DModel"], "qwen_image21"),
        (["QwenImageTransformer2DModel"], "qwen_image"),
        (["CausalWanTransformer3DModel"], "wan"),
        (["SanaVideoTransformer3DModel"], "sana_video"),
        (["SanaTransformer2DModel"], "sana"),
        (["Linear"], None),
        ([], None),
    ],
)
def test_the_family_is_told_by_the_modules(classes, family):
    assert fast_paths.family_for(classes) == family


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100-80gb-sxm"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb-pcie"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100-PCIE-40GB", "a100-40gb"),
        ("NVIDIA H20", "h20"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA B300 SXM6 AC", "b300"),
        ("NVIDIA GB200", "gb200"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 5090", "rtx-5090"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "rtx-pro-6000-workstation"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", None),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000-server"),
        ("AMD Instinct MI300X", "mi300x"),
        ("AMD Instinct MI325X OAM", "mi325x"),
        ("AMD Instinct MI355X", "mi355x"),
        ("NVIDIA L40", None),
        ("NVIDIA H20-3e", None),
    ],
)
def test_a_card_is_told_by_its_name_and_by_no_other_entry(name, device):
    fits = [entry.id for entry in devices.devices() if re.search(entry.pattern, name)]
    assert fits == ([device] if device else [])


def test_lower_precision_is_never_specified_slower():
    for device in devices.devices():
        rates = {ceiling.of: ceiling.rate for ceiling in device.ceilings if ceiling.kind == "specified"}
        ordered = [rates[of] for of in ("bf16", "fp8", "fp4") if of in rates]
        assert all(faster >= 1.9 * slower for slower, faster in itertools.pairwise(ordered)), device.id
        assert rates["bf16"] == rates["fp16"]


def test_devices_and_categories_keep_their_schemas():
    assert devices.find("NVIDIA H200").id == "h200"
    assert devices.find("NVIDIA H200 NVL") is None
    assert devices.find("Tesla T4") is None
    assert devices.find(None) is None
    assert all(ceiling.source for device in devices.devices() for ceiling in device.ceilings)
    assert len({category.id for category in kernel_categories()}) == len(kernel_categories())


def test_a_makers_figure_that_was_read_elsewhere_is_called_second_hand():
    sources = {device.id: device.ceiling("memory", "specified").source for device in devices.devices()}
    assert sources["h100-sxm"].endswith(", second-hand: glennklockwood.com/garden/processors/h100")
    assert "second-hand" not in sources["mi300x"]


def test_a_trace_of_the_cpu_has_no_fast_paths():
    assert analyse([CPU])["traces"][0]["gpu"] is None
