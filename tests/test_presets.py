"""Every preset of upstream's helper is here, value by value, and is spelled as each version's parser takes it."""

import json
import shlex

import pytest
from helpers import ROOT

from bench.catalog import assets, flags, presets
from bench.engine import command, find, interpreter, spelling
from bench.errors import UsageError
from bench.run import plan
from bench.run.options import Options

SOURCE = {entry["key"]: entry for entry in json.loads((ROOT / "tests/data/upstream_presets_0.5.23.json").read_text())}
VERSIONS = ("0.5.11", "0.5.17", "0.5.23")

NOT_IN_SOURCE = {
    "--backend", "--log-level", "--model-path", "--prompt", "--seed", "--negative-prompt", "--image-path",
    "--enable-breakable-cuda-graph", "--disable-conditioning-cache",
}  # fmt: skip


def workload(key):
    preset = presets.get(key)
    return plan._workload(Options(model=key), preset, preset.model)


def pairs(arguments):
    """Return flag -> value of an argument list; a flag without one has the value true."""
    found, words = {}, list(arguments)
    while words:
        flag, has, value = words.pop(0).partition("=")
        if not has:
            value = words.pop(0) if words and not words[0].startswith("--") else "true"
        found[flag] = value
    return found


def test_the_79_presets_of_upstream_are_here_and_no_others_say_so():
    ours = {key for key, preset in presets.built_in().items() if preset.is_upstreams}
    assert len(SOURCE) == 79
    assert ours == set(SOURCE)


@pytest.mark.parametrize("key", SOURCE)
def test_a_preset_is_what_upstream_has(key):
    source, ours = SOURCE[key], presets.get(key)
    config = dict(source.get("config_overrides", {}))
    steps = config.pop("num_inference_steps", source.get("num_inference_steps"))
    image = source.get("image_asset")
    assert {
        "model": ours.model, "prompt": ours.prompt, "negative_prompt": ours.negative_prompt, "seed": ours.seed,
        "width": ours.width, "height": ours.height, "frames": ours.frames, "fps": ours.fps, "steps": ours.steps,
        "guidance": ours.guidance, "gpus": ours.gpus, "modality": ours.modality, "gated": ours.gated,
        "nightly": ours.nightly, "nightly_ignores": list(ours.nightly_ignores), "environment": dict(ours.environment),
        "config": dict(ours.config), "force_eager": ours.force_eager, "graphs": list(ours.graph_warmup_sizes),
        "tags": list(ours.tags), "has_image": ours.image is not None,
    } == {
        "model": source["model_path"], "prompt": source["prompt"], "negative_prompt": source.get("negative_prompt"),
        "seed": source.get("effective_seed", 0), "width": source.get("width"), "height": source.get("height"),
        "frames": source.get("num_frames"), "fps": source.get("fps"), "steps": steps,
        "guidance": source.get("guidance_scale"), "gpus": source["num_gpus"], "modality": source["modality"],
        "gated": source.get("gated", False), "nightly": source.get("nightly_case_id"),
        "nightly_ignores": source.get("nightly_cli_ignored", []), "environment": source.get("env", {}),
        "config": config, "force_eager": source.get("force_eager", False),
        "graphs": source.get("bcg_warmup_resolutions", []), "tags": [source["category"]],
        "has_image": image is not None,
    }  # fmt: skip
    if image is not None:
        known = assets.listed()[ours.image]
        assert known.url == image["url"] if image["kind"] == "url" else known.name == image["name"]


@pytest.mark.parametrize("key", SOURCE)
def test_a_preset_is_spelled_with_upstreams_arguments_and_no_others_that_matter(key):
    """For the version that the source is of: what is added stands for the harness, and the rest is equal."""
    wanted = pairs(SOURCE[key].get("extra_args", []))
    spelled = {flag: value for flag, value in pairs(spelling.spell(workload(key), "0.5.23")).items()
               if flag not in NOT_IN_SOURCE}  # fmt: skip
    wanted.setdefault("--num-gpus", "1")  # the helper leaves it out, and counts one
    wanted.setdefault("--enable-torch-compile", "false")  # its presets are eager unless it is asked
    wanted.setdefault("--warmup-mode", "request")  # what it adds, unless --no-warmup
    steps = SOURCE[key].get("config_overrides", {}).get("num_inference_steps")
    if steps is not None:
        wanted["--num-inference-steps"] = str(steps)  # a flag wins over the file, so both say the same
    assert spelled == wanted


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("key", SOURCE)
def test_a_preset_is_spelled_for_every_version_or_refused_with_one_that_can(key, version):
    newest = pairs(spelling.spell(workload(key), "0.5.23"))
    # what only the harness adds is left out where it does not exist; what the preset asks for is never left out
    asked = [flag for flag in newest if flag not in NOT_IN_SOURCE | {"--warmup-mode"}]
    missing = [flag for flag in asked if not flags.knows(version, flag)]
    if not missing:
        assert all(flags.knows(version, flag) for flag in pairs(spelling.spell(workload(key), version)))
        return
    with pytest.raises(UsageError, match=f"does not know {missing[0]}") as caught:
        spelling.spell(workload(key), version)
    known = flags.versions_of(missing[0])
    assert caught.value.todo == f"sglang {known[0]} to {known[-1]} know it"


def test_the_newest_version_can_do_every_preset():
    for key in presets.built_in():
        spelling.spell(workload(key), "0.5.23")


def test_residency_is_not_translated_into_offloading():
    with pytest.raises(UsageError, match="does not know --component-residency"):
        spelling.spell(workload("flux2"), "0.5.17")
    assert "--dit-layerwise-offload=false" in spelling.spell(workload("flux2-klein"), "0.5.11")


def test_a_quality_tier_that_a_version_lacks_is_refused_with_one_that_has_it():
    document = dict(presets.get("zimage-base").document) | {"quality": "exact"}
    preset = presets._preset("mine", document, "here")
    asked = plan._workload(Options(model="mine"), preset, preset.model)
    assert "--quality=exact" in spelling.spell(asked, "0.5.23")
    with pytest.raises(UsageError, match=r"0\.5\.21 has no quality 'exact'") as caught:
        spelling.spell(asked, "0.5.21")
    assert "0.5.23" in caught.value.todo


def test_a_preset_that_is_never_compiled_refuses_compiling(invoke, replay):
    ended = invoke("bench", "--model", "vdn-h3", "--torch-compile", "--engine", replay(), "--dry-run")
    assert ended.code == 1
    assert "this preset is never compiled" in ended.err


def test_a_dry_run_of_every_preset_is_a_command_that_a_shell_reads_back(replay, home):
    engine = replay()
    for key in SOURCE:
        shown = command.shown(plan.dry_run(Options(model=key), find.find(engine)))
        words = shlex.split(shown.partition("\nEND\n")[2] if shown.startswith("cat >") else shown)
        assert "generate" in words, key
    assert not (home / "runs").exists()


def test_a_requests_own_format_is_shown_with_the_command(invoke, replay):
    ended = invoke("bench", "--model", "vdn-h3", "--engine", replay(), "--dry-run")
    assert ended.code == 0, ended.err
    file, _, rest = ended.out.partition("\nEND\n")
    assert json.loads(file.partition("\n")[2])["target"]["duration_seconds"] == 14.375
    assert "--config=" in rest
    assert "request.json" in file.partition("\n")[0]


@pytest.mark.engine
@pytest.mark.parametrize("version", ["0.5.17", "0.5.23"])
def test_every_dry_run_is_accepted_by_the_engines_own_parser(version, tmp_path):
    """One import of the engine, then all argument lists, with the preset's own file where it has one."""
    engine = find.find(f"sglang-{version}")
    lists, refused = {}, []
    for key in presets.built_in():
        directory = tmp_path / key
        try:
            made = command.build(engine, workload(key), directory)
        except UsageError:
            refused.append(key)
            continue
        directory.mkdir()
        command.write_files(made)
        lists[key] = list(made.argv[made.argv.index("generate") + 1 :])
    lists["--self-check--"] = ["--model-path=x", "--prompt=y", "--no-such-flag=1"]
    asked, answer = tmp_path / "lists.json", tmp_path / "answer.json"
    asked.write_text(json.dumps(lists))
    interpreter.run_program(engine, "parse.py", [str(asked), str(answer)])
    faults = json.loads(answer.read_text())
    assert faults.pop("--self-check--") is not None, "the parser took a flag that does not exist"
    assert len(faults) + len(refused) == len(presets.built_in())
    assert {key: fault for key, fault in faults.items() if fault is not None} == {}
    assert bool(refused) == (version != "0.5.23")
