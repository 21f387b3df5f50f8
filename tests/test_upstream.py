"""The drift sentinel: what changed in upstream's own helper is named field by field, and nothing of it is imported."""

import json

import pytest
from helpers import ROOT

SOURCE = json.loads((ROOT / "tests/data/upstream_presets_0.5.23.json").read_text())
SCRIPT = "python/sglang/multimodal_gen/.agents/skills/sglang-diffusion-benchmark-profile/scripts"


def literal(entry):
    """Write one preset the way the helper does: paths put together, prompts dumped, a list made in a loop."""
    parts = {"path": repr(entry["model_path"]), "prompt": repr(entry["prompt"])}
    if entry["prompt"].startswith("{"):
        parts["prompt"] = f"json.dumps({json.loads(entry['prompt'])!r}, separators=(',', ':'))"
    names = ("negative_prompt", "env", "nightly_case_id", "force_eager", "bcg_warmup_resolutions", "config_overrides")
    parts |= {name: repr(entry[name]) for name in names if name in entry}
    if "actions" in entry.get("config_overrides", {}):
        parts["config_overrides"] = "{'actions': [['w'] for _ in range(9)]}"
    if "nightly_cli_ignored" in entry:
        parts["nightly_cli_ignored"] = "{" + ", ".join(map(repr, entry["nightly_cli_ignored"])) + "}"
    if entry.get("effective_seed", 0) != 42:
        parts["seed"] = repr(entry.get("effective_seed", 0))
    if image := entry.get("image_asset"):
        parts["image_path"] = repr(image["url"]) if image["kind"] == "url" else f"str(ASSET_DIR / {image['name']!r})"
    parts["extra_args"] = repr(entry.get("extra_args", []))
    return "{" + ", ".join(f"{name!r}: {value}" for name, value in parts.items()) + "}"


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a helper made of these entries; importing it would end the test."""

    def make(entries, nightly=None):
        folder = tmp_path / "sglang"
        (folder / SCRIPT).mkdir(parents=True)
        gated = {entry["key"] for entry in entries if entry.get("gated")}
        models = ",\n".join(f"    {entry['key']!r}: {literal(entry)}" for entry in entries)
        (folder / SCRIPT / "bench_diffusion_denoise.py").write_text(
            "raise SystemExit('it was run')\nimport json\nfrom pathlib import Path\nASSET_DIR = Path('/nowhere')\n"
            f"GATED_MODELS = {gated!r}\nMODELS = {{\n{models}\n}}\n"
        )
        if nightly is not None:
            path = folder / "scripts/ci/utils/diffusion/comparison_configs.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps({"cases": nightly}))
        return folder

    return make


def changed(key, **values):
    return [entry | values if entry["key"] == key else entry for entry in SOURCE]


def test_a_helper_like_ours_has_no_difference(invoke, checkout):
    ended = invoke("models", "--check-upstream", "--source", checkout(SOURCE))
    assert (ended.code, ended.err) == (0, "")
    assert "no difference" in ended.out


@pytest.mark.parametrize(
    ("key", "values", "field", "ours", "upstream"),
    [
        ("helios", {"prompt": "a dog"}, "prompt", "A curious raccoon", "a dog"),
        ("flux", {"model_path": "other/flux"}, "model", "black-forest-labs/FLUX.1-dev", "other/flux"),
        ("flux", {"gated": False}, "gated", True, False),
        ("ltx23-one-stage", {"effective_seed": 7}, "seed", 1234, 7),
        ("vdn-h3", {"force_eager": False}, "force_eager", True, False),
        ("qwen-edit", {"image_asset": {"kind": "local", "name": "dog.png"}}, "image", "cat.png", "dog.png"),
        ("zimage-base", {"extra_args": ["--width=1024", "--height=512"]}, "--height", "1024", "512"),
        ("zimage-base", {"extra_args": ["--width=1024"]}, "--height", "1024", None),
        ("zimage-base", {"extra_args": ["--width=1024", "--height=1024", "--new"]}, "--new", None, "true"),
        ("wan-t2v", {"nightly_case_id": "x"}, "nightly", "wan22_t2v_a14b_720p", "x"),
        ("joy-echo", {"config_overrides": {"x": 1}}, "config", {"enable_memory_bank": False}, {"x": 1}),
    ],
)  # fmt: skip
def test_a_changed_field_is_named_with_both_values(invoke, checkout, key, values, field, ours, upstream):
    ended = invoke("models", "--check-upstream", "--json", "--source", checkout(changed(key, **values)))
    assert ended.code == 7
    assert json.loads(ended.out)["differences"] == [
        {"kind": "changed", "key": key, "field": field, "ours": ours, "upstream": upstream}
    ]


def test_an_added_and_a_removed_preset_are_named(invoke, checkout):
    entries = [entry | {"key": "new-one"} if entry["key"] == "helios" else entry for entry in SOURCE]
    ended = invoke("models", "--check-upstream", "--source", checkout(entries))
    assert ended.code == 7
    assert "presets differ from upstream: 1 added, 1 removed" in ended.err
    rows = [line.split()[:2] for line in ended.out.splitlines()]
    assert ["added", "new-one:"] in rows
    assert ["removed", "helios:"] in rows


def nightly_case(key):
    entry = next(entry for entry in SOURCE if entry["key"] == key)
    arguments = [a for a in entry["extra_args"] if not a.startswith(("--width", "--height", "--num-gpus"))]
    return {
        "id": entry["nightly_case_id"], "model": entry["model_path"], "prompt": entry["prompt"], "seed": 42,
        "width": entry["width"], "height": entry["height"], "num_gpus": entry["num_gpus"],
        "frameworks": {"sglang": {"serve_args": " ".join([*arguments, "--warmup"])}},
    }  # fmt: skip


def test_the_nightly_comparison_of_a_checkout_is_compared_too(invoke, checkout):
    cases = [
        nightly_case("flux"),
        nightly_case("zimage") | {"seed": 43},
        nightly_case("qwen") | {"id": "of_the_future"},
    ]
    ended = invoke("models", "--check-upstream", "--json", "--source", checkout(SOURCE, cases))
    assert ended.code == 7
    found = json.loads(ended.out)
    assert set(found["read"]) == {"helper", "nightly"}
    kinds = [(d["kind"], d["key"], d["field"]) for d in found["differences"]]
    assert ("added", "of_the_future", None) in kinds
    assert ("removed", "qwen_image_2512_t2i_1024", None) in kinds
    assert ("changed", "zimage_turbo_t2i_1024", "seed") in kinds
    assert not [kind for kind in kinds if kind[1] == "flux1_dev_t2i_1024"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def broken(:", "not Python"),
        ("GATED_MODELS = set()\n", "the helper has no MODELS"),
        ("GATED_MODELS = set()\nMODELS = {'a': load('a.json')}\n", "line 2 is not understood: load('a.json')"),
    ],
)
def test_a_helper_that_is_written_in_a_new_way_is_named_by_line(invoke, checkout, text, says):
    folder = checkout(SOURCE)
    (folder / SCRIPT / "bench_diffusion_denoise.py").write_text(text)
    ended = invoke("models", "--check-upstream", "--source", folder)
    assert ended.code == 1
    assert says in ended.err


def test_an_engine_without_the_helper_is_named(invoke, replay):
    ended = invoke("models", "--check-upstream", "--engine", replay())
    assert ended.code == 1
    assert "no benchmark helper is shipped with this engine" in ended.err


@pytest.mark.engine
def test_the_newest_engines_helper_is_what_our_presets_are(tmp_path):
    from bench.engine import find, interpreter
    from bench.upstream import preset_diff

    _, found = preset_diff.check(interpreter.package(find.find("sglang-0.5.23")))
    assert found == []


@pytest.mark.engine
def test_an_older_engines_helper_differs_where_it_really_does():
    from bench.engine import find, interpreter
    from bench.upstream import preset_diff

    _, found = preset_diff.check(interpreter.package(find.find("sglang-0.5.17")))
    named = {(d.kind, d.key, d.field): (d.ours, d.upstream) for d in found}
    assert named["changed", "flux", "--component-residency"] == ("dit=resident", None)
    assert named["changed", "flux", "--dit-layerwise-offload"] == (None, "false")
    assert ("removed", "vdn-h3", None) in named
    assert ("removed", "minimax-h3-t2va", None) not in named
    assert not [d for d in found if d.key == "qwen"], "it did not change between the two"
