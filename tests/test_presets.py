"""Every preset is spelled as each version's parser takes it; test_upstream.py compares their values with upstream's."""

import json
import shlex
import subprocess

import pytest
from helpers import ROOT

from bench.catalog import flags, presets
from bench.engine import command, find, spelling
from bench.errors import UsageError
from bench.run import plan
from bench.run.options import Options

UPSTREAMS = [key for key, preset in presets.built_in().items() if preset.is_upstreams]
VERSIONS = ("0.5.11", "0.5.17", "0.5.23")

OF_THE_HARNESS = {
    "--backend", "--log-level", "--model-path", "--prompt", "--seed", "--negative-prompt", "--image-path",
    "--enable-breakable-cuda-graph", "--disable-conditioning-cache", "--warmup-mode",
}  # fmt: skip


def workload(key):
    preset = presets.get(key)
    return plan.workload_of(Options(model=key), preset, preset.model)


def flags_of(workload, version):
    return [word.partition("=")[0] for word in spelling.spell(workload, version) if word.startswith("--")]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("key", UPSTREAMS)
def test_a_preset_is_spelled_for_every_version_or_refused_with_one_that_can(key, version):
    newest = flags_of(workload(key), "0.5.23")
    # what only the harness adds is left out where it does not exist; what the preset asks for is never left out
    asked = [flag for flag in newest if flag not in OF_THE_HARNESS]
    missing = [flag for flag in asked if not flags.knows(version, flag)]
    if not missing:
        assert all(flags.knows(version, flag) for flag in flags_of(workload(key), version))
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
    asked = plan.workload_of(Options(model="mine"), preset, preset.model)
    assert "--quality=exact" in spelling.spell(asked, "0.5.23")
    with pytest.raises(UsageError, match=r"0\.5\.21 has no quality 'exact'") as caught:
        spelling.spell(asked, "0.5.21")
    assert "0.5.22" in caught.value.todo


def test_a_preset_that_is_never_compiled_refuses_compiling(invoke, replay):
    ended = invoke("bench", "--model", "vdn-h3", "--torch-compile", "--engine", replay(), "--dry-run")
    assert ended.code == 1
    assert "this preset is never compiled" in ended.err


def test_a_dry_run_of_every_preset_is_a_command_that_a_shell_reads_back(replay, home):
    engine = find.find(replay())  # starts an interpreter
    for key in UPSTREAMS:
        shown = command.shown(plan.dry_run(Options(model=key), engine))
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
    subprocess.run([engine.python, ROOT / "tests/engine_parser.py", asked, answer], check=True)
    faults = json.loads(answer.read_text())
    assert faults.pop("--self-check--") is not None, "the parser took a flag that does not exist"
    assert len(faults) + len(refused) == len(presets.built_in())
    assert {key: fault for key, fault in faults.items() if fault is not None} == {}
    assert bool(refused) == (version != "0.5.23")


# --- which are listed -------------------------------------------------------------------------------------------------


def keys(ended):
    assert ended.code == 0, ended.err
    header, *lines = ended.out.splitlines()
    assert header.split()[0] == "preset"
    return [line.split()[0] for line in lines]


def test_presets_are_found_by_word_tag_and_machine(invoke):
    assert keys(invoke("models", "--search", "FLUX.1-dev-tiny")) == ["flux-tiny"]
    tiny = keys(invoke("models", "--tag", "tiny"))
    assert tiny
    assert tiny == keys(invoke("models", "--tag", "tiny", "--runnable"))
    assert "flux" not in tiny
    nothing = invoke("models", "--search", "no such model")
    assert (nothing.code, "no preset matches" in nothing.err) == (1, True)
    assert "did you mean --search flux?" in invoke("models", "--search", "flx").err
    assert "did you mean tiny?" in invoke("models", "--tag", "tiney").err


def test_what_a_preset_does_not_set_is_a_dash_and_a_picture_has_no_frames(invoke):
    shown = invoke("models", "--model", "mova-360p,cosmos3-edge-t2i,minimax-h3-t2va,hunyuan3d-shape").out
    rows = {line.split()[0]: " ".join(line.split()) for line in shown.splitlines() if line}
    assert rows["mova-360p"].startswith("mova-360p - 193 2 2 MOVA-360p,")
    assert rows["cosmos3-edge-t2i"].startswith("cosmos3-edge-t2i 640x640 35 1 Cosmos3-Edge,")
    assert rows["minimax-h3-t2va"].startswith("minimax-h3-t2va - - 50 4 MiniMax-H3,")
    assert rows["hunyuan3d-shape"].startswith("hunyuan3d-shape 50 1 Hunyuan3D-2,")
    assert "-: the preset does not set it" in shown
    assert "does not set it" not in invoke("models", "--model", "flux-tiny").out
