"""The preflight through its real entry points: a simulated NVML has each trouble, and each is named."""

import json
import os
import tomllib
from types import SimpleNamespace

import pytest
from engine_support import CONFIGURATIONS
from helpers import NATIVE, ROOT
from PIL import Image

from bench.engine import find, registry
from bench.preflight import model as checks_of_model
from bench.preflight.checks import SAMPLES

SIMULATED = str(ROOT / "tests" / "simulated")
CPU_ONLY = {"PYTHONPATH": SIMULATED}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Environment of a machine with these GPUs; a tool of another maker may be on its PATH."""

    monkeypatch.setattr("bench.preflight.checks.BETWEEN_S", 0)

    def make(*gpus, **variables):
        path = tmp_path / "gpus.json"
        path.write_text(json.dumps(gpus))
        return {"PYTHONPATH": SIMULATED, "BENCH_NVML": str(path), **variables}

    return make


@pytest.fixture
def doctor(invoke, replay):
    """Run `invoke doctor --json` and return its exit code and its lines by id."""
    engine = replay()

    def run(*arguments, env=None):
        ended = invoke("doctor", "--engine", engine, "--json", *arguments, env=env or {})
        found = {}
        for line in json.loads(ended.out)["lines"]:
            found.setdefault(line["id"], []).append(line)
        return ended, found

    return run


def test_a_machine_with_idle_gpus_is_well(doctor, machine):
    ended, lines = doctor(env=machine({}, {}))
    assert ended.code == 0, ended.err
    for identity in ("gpu.count", "gpu.idle", "gpu.clocks", "gpu.ecc", "gpu.mig"):
        assert [line["state"] for line in lines[identity]] == ["ok"], identity


TROUBLES = [
    ({"processes": [4242]}, "gpu.idle", "fail", "in use by process 4242"),
    ({"load": [0, 0, 63, 0]}, "gpu.idle", "fail", "up to 63 % busy"),
    ({"used": 40_000_000_000}, "gpu.idle", "warn", "37.3 GiB in use by no visible process"),
    ({"load": None, "processes": None}, "gpu.idle", "unknown", "the driver does not report utilisation"),
    ({"reasons": 0x40, "temperature": 91}, "gpu.clocks", "fail", "hardware thermal slowdown (91 degrees)"),
    ({"reasons": 0x80}, "gpu.clocks", "fail", "throttled: power brake"),
    ({"reasons": 0x02, "sm": 1200}, "gpu.clocks", "warn", "application clocks are set (1200 of 1980 MHz)"),
    ({"reasons": None}, "gpu.clocks", "unknown", "the driver does not report clock-throttle reasons"),
    ({"ecc_errors": 3}, "gpu.ecc", "fail", "3 uncorrected memory errors"),
    ({"ecc": 0}, "gpu.ecc", "warn", "ECC is off"),
    ({"mig": 1}, "gpu.mig", "fail", "partitioned into MIG slices"),
]


def test_each_trouble_of_a_gpu_is_named_with_what_to_do(doctor, machine, tmp_path):
    """One machine with every trouble, a GPU each, and a preset that wants them all."""
    wide = tmp_path / "wide.toml"
    fields = 'description = "x"\nmodel = "o/m"\nmodality = "image"\nprompt = "x"\nseed = 1\n'
    wide.write_text(f"[wide]\n{fields}gpus = {len(TROUBLES)}\n")
    env = machine(*(gpu for gpu, *_ in TROUBLES))
    ended, lines = doctor("--model", "wide", "--preset-file", wide, env=env)
    assert ended.code == 10
    for index, (_, identity, state, says) in enumerate(TROUBLES):
        line = next(line for line in lines[identity] if line["saw"].startswith(f"GPU {index}: "))
        assert (line["state"], says in line["saw"]) == (state, True), line
        assert line["means"]
        assert line["todo"]
    named = {(line["id"], line["saw"].split(":")[0]) for found in lines.values() for line in found}
    assert len([identity for identity, who in named if who.startswith("GPU ")]) == len(TROUBLES)


def test_a_busy_gpu_is_answered_with_the_idle_ones(doctor, machine):
    _, lines = doctor(env=machine({"processes": [1]}, {}, {"load": 50}, {}))
    assert lines["gpu.idle"][0]["todo"] == "wait, or choose other GPUs; idle now: CUDA_VISIBLE_DEVICES=1"


def test_trouble_of_a_gpu_that_a_launch_does_not_use_is_not_a_launchs(doctor, machine):
    ended, lines = doctor(env=machine({}, {"processes": [1]}))
    assert ended.code == 0
    assert lines["gpu.idle"][0]["state"] == "ok"
    ended, lines = doctor(env=machine({}, {"processes": [1]}, CUDA_VISIBLE_DEVICES="1"))
    assert ended.code == 10
    assert lines["gpu.idle"][0]["saw"].startswith("GPU 1: in use")


@pytest.mark.parametrize(
    ("value", "state", "says"),
    [
        ("0,5", "fail", "unknown GPU 5"),
        ("0,0", "fail", "names a GPU twice"),
        ("GPU-ffffffff", "fail", "unknown GPU GPU-ffffffff"),
        ("", "warn", "is set but empty"),
        ("1", "ok", "CUDA_VISIBLE_DEVICES=1"),
        ("GPU-00000001", "ok", "CUDA_VISIBLE_DEVICES=GPU-00000001"),
    ],
)
def test_visible_devices_are_checked(doctor, machine, value, state, says):
    _, lines = doctor(env=machine({}, {}, CUDA_VISIBLE_DEVICES=value))
    (line,) = lines["gpu.visible"]
    assert (line["state"], says in line["saw"]) == (state, True), line


def test_a_mig_slice_that_is_named_is_only_a_warning(doctor, machine):
    _, lines = doctor(env=machine({"mig": 1}, CUDA_VISIBLE_DEVICES="MIG-0001"))
    assert lines["gpu.mig"][0]["state"] == "warn"


def test_too_few_gpus_for_a_preset(doctor, machine):
    ended, lines = doctor("--model", "wan-t2v", env=machine({}, {}))
    assert ended.code == 10
    assert lines["gpu.count"][0]["saw"] == "2 GPUs visible, 4 required"
    ended, lines = doctor("--model", "qwen", env=machine({}, {}))
    assert ended.code == 0, lines
    ended, lines = doctor("--model", "qwen", env=machine({}, {}, CUDA_VISIBLE_DEVICES="1"))
    assert lines["gpu.count"][0]["saw"] == "1 GPU visible, 2 required"


def test_without_a_gpu_only_tiny_presets_run(invoke, doctor, replay):
    ended, lines = doctor("--model", "zimage-base", env=CPU_ONLY)
    assert ended.code == 10
    assert lines["gpu.count"][0]["state"] == "fail"
    ended = invoke("doctor", "--engine", replay(name="other"), env=CPU_ONLY)
    assert ended.code == 0
    assert "can run here (4): flux-tiny, flux2-klein-tiny, sd3-tiny, zimage-tiny" in ended.out
    assert "cannot, needs 8 GPUs (1): vdn-h3" in ended.out


@pytest.mark.parametrize(
    ("tool", "prints", "state", "says"),
    [
        ("amd-smi", '[{"gpu": 0}, {"gpu": 1}]', "ok", "2 AMD devices listed by amd-smi, 2 required"),
        (
            "npu-smi",
            "\tTotal Count         : 8\n\tNPU ID : 0",
            "ok",
            "8 Ascend devices listed by npu-smi, 2 required",
        ),
        ("amd-smi", "Segmentation fault", "unknown", "amd-smi output not understood: Segmentation fault"),
    ],
)
def test_other_makers_tools_are_asked(doctor, tmp_path, tool, prints, state, says):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / tool).write_text(f"#!/bin/sh\ncat <<'X'\n{prints}\nX\n")
    (folder / tool).chmod(0o755)
    env = CPU_ONLY | {"PATH": f"{folder}:{os.environ['PATH']}"}
    _, lines = doctor("--model", "qwen", env=env)
    (line,) = lines["gpu.vendor"] if state == "unknown" else lines["gpu.count"]
    assert (line["state"], line["saw"]) == (state, says)


# --- the model --------------------------------------------------------------------------------------------------------


def snapshot(home, model):
    folder = home / "hub" / f"models--{model.replace('/', '--')}" / "snapshots" / "0123"
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("variables", "state", "says"),
    [
        ({}, "fail", "it is gated, and no token is set"),
        ({"HF_TOKEN": "hf_x"}, "warn", "is not in"),
        ({"HF_TOKEN": "hf_x", "HF_HUB_OFFLINE": "1"}, "fail", "HF_HUB_OFFLINE forbids a download"),
    ],
)
def test_a_gated_model_needs_a_token_or_a_cache(doctor, machine, tmp_path, variables, state, says):
    _, lines = doctor("--model", "flux", env=machine({}, {}, HF_HOME=str(tmp_path / "hf"), **variables))
    assert (lines["model"][0]["state"], says in lines["model"][0]["saw"]) == (state, True), lines["model"]


def test_a_model_in_the_cache_needs_neither_token_nor_network(doctor, machine, tmp_path):
    snapshot(tmp_path / "hf", "black-forest-labs/FLUX.1-dev")
    env = machine({}, {}, HF_HOME=str(tmp_path / "hf"), HF_HUB_OFFLINE="1")
    ended, lines = doctor("--model", "flux", env=env)
    assert ended.code == 0, ended.err
    assert lines["model"][0]["state"] == "ok"


def test_a_download_that_was_cut_short_is_named(doctor, machine, tmp_path):
    folder = snapshot(tmp_path / "hf", "Qwen/Qwen-Image-2512")
    blobs = folder.parent.parent / "blobs"
    blobs.mkdir()
    (blobs / "abc.incomplete").touch()
    _, lines = doctor("--model", "qwen", env=machine({}, {}, HF_HOME=str(tmp_path / "hf")))
    assert lines["model"][0]["state"] == "warn"
    assert "its download is incomplete" in lines["model"][0]["saw"]


def test_weights_that_do_not_fit_are_named(doctor, machine, tmp_path):
    folder = snapshot(tmp_path / "hf", "Tongyi-MAI/Z-Image")
    with (folder / "big.safetensors").open("wb") as file:
        file.truncate(3_000_000_000)
    env = machine({"memory": 2_000_000_000, "used": 0}, HF_HOME=str(tmp_path / "hf"))
    _, lines = doctor("--model", "zimage-base", env=env)
    assert lines["memory.gpu"][0]["state"] == "warn"
    assert lines["memory.gpu"][0]["saw"] == "2.0 GB free on 1 GPUs, the weights take 3.0 GB"


# --- images -----------------------------------------------------------------------------------------------------------


def test_an_image_that_is_not_there_names_the_command_that_fetches_it(doctor, machine):
    ended, lines = doctor("--model", "wan-ti2v", env=machine({}))
    assert ended.code == 10
    assert lines["image"][0]["todo"] == "`invoke assets` fetches it; or name a file of your own"


def test_a_users_own_image_is_accepted_and_one_that_is_none_refused(doctor, invoke, replay, machine, tmp_path):
    good, bad = tmp_path / "mine.png", tmp_path / "bad.png"
    Image.new("RGB", (8, 6), "red").save(good)
    bad.write_text("no image")
    _, lines = doctor("--model", "wan-ti2v", "--image", good, env=machine({}))
    assert lines["image"][0]["state"] == "ok"
    assert "mine.png: 8x6 PNG" in lines["image"][0]["saw"]
    ended = invoke("doctor", "--model", "wan-ti2v", "--engine", replay(name="b"), "--image", bad, env=machine({}))
    assert ended.code == 10
    assert "not an image" in ended.out


# --- bench ------------------------------------------------------------------------------------------------------------


def test_bench_runs_the_same_checks_and_starts_nothing(invoke, replay, model, machine, home):
    engine = replay(**NATIVE)
    command = ["bench", "--model", "flux-tiny", "--engine", engine, "--model-path", model()]
    ended = invoke(*command, env=machine({"processes": [4242]}))
    assert ended.code == 10
    assert "gpu.idle: GPU 0: in use by process 4242" in ended.err
    assert "the run can be launched anyway (--no-preflight)" in ended.err
    arms = ("--candidate", f"model-path={command[-1]} steps=2", "--baseline", f"model-path={command[-1]}")
    ended = invoke("ab", *command[1:-2], *arms, env=machine({"processes": [4242]}))
    assert ended.code == 10
    assert "launched anyway" not in ended.err, "ab cannot"
    assert not (home / "runs").exists()


def test_what_disturbs_a_run_is_in_its_verdict(invoke, replay, model, machine, only_run):
    """Sampled during and after the run: a heat slowdown that begins after the preflight makes the run degraded."""
    engine = replay(**NATIVE)
    then = {"reasons": [1] * SAMPLES + [0x40], "load": [0] * SAMPLES + [99]}
    env = machine(then | {"temperature": 90})
    invoke("bench", "--model", "flux-tiny", "--engine", engine, "--model-path", model(), env=env)
    record = json.loads((only_run() / "run.json").read_text())
    found = {finding["id"]: finding for finding in record["verdict"]["findings"]}
    assert found["gpu.throttled"]["severity"] == "degraded"
    assert found["gpu.throttled"]["source"] == "device"
    assert "hardware thermal slowdown" in found["gpu.throttled"]["text"]
    assert record["launches"][0]["gpus_during"][0]["samples"] >= 1
    assert {line["id"] for line in record["preflight"]} >= {"gpu.idle", "ports", "write.runs"}


def test_a_foreign_process_during_the_run_is_found(monkeypatch, tmp_path):
    """Process 1 is nobody's child here; our own child is not foreign."""
    import subprocess
    import sys

    script = (
        "import subprocess, sys, json, os\n"
        "child = subprocess.Popen(['sleep', '5'])\n"
        "json.dump([{'processes': [1, child.pid], 'load': 99, 'sm': 1980}], open(os.environ['BENCH_NVML'], 'w'))\n"
        "from bench.run import watch as module\n"
        "from bench.run.watch import Watch\n"
        "module._has_gpu_open = lambda pid: True\n"
        "with Watch(['GPU-00000000-0000']) as watch: pass\n"
        "child.kill()\n"
        "print(json.dumps([[f.id, f.severity, f.text] for f in watch.findings()]))\n"
    )
    env = os.environ | {"PYTHONPATH": f"{SIMULATED}:{ROOT}", "BENCH_NVML": str(tmp_path / "g.json")}
    ended = subprocess.run(
        [sys.executable, "-c", script], env=env, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(ended.stdout) == [["gpu.foreign_process", "degraded", "GPU 0: process 1"]]


def test_a_cpu_that_others_use_during_a_run_is_said():
    from bench.run import watch

    start = (100.0, 10.0, 500.0)  # everybody's, ours, idle: seconds of all cores' time
    assert watch._share_of_others(start, (110.0, 20.0, 510.0)) == 0.0
    assert watch._share_of_others(start, (115.0, 15.0, 505.0)) == pytest.approx(0.5)
    assert watch._share_of_others(start, start) is None
    seen = watch.Watch([])
    seen._others_share = 0.46
    (finding,) = seen.findings()
    assert (finding.id, finding.severity, finding.source) == ("cpu.shared", "info", "device")
    assert "46 % of the CPU" in finding.text


def test_the_time_of_a_process_that_ends_while_it_is_read_is_not_lost(monkeypatch):
    import subprocess
    import sys

    from bench.run import watch

    burns = "t = __import__('time'); [0 for _ in iter(lambda: t.process_time() > 0.5, True)]; print(); t.sleep(300)"
    child = subprocess.Popen([sys.executable, "-c", burns], stdout=subprocess.PIPE)
    child.stdout.readline()
    before = watch._cpu_seconds()[1]
    started = watch._started

    def ends():
        found = started()
        child.kill()
        child.wait()
        return found

    monkeypatch.setattr(watch, "_started", ends)
    assert before - 0.1 < watch._cpu_seconds()[1] < before + 0.4


def test_a_clock_that_drops_under_load_is_said_and_no_more(tmp_path):
    from bench.machine.gpus import Gpu
    from bench.run.watch import Watch

    def gpu(mhz, load):
        return Gpu(
            index=0, name="x", uuid="u", memory_bytes=1, memory_used_bytes=0, load_percent=load, sm_mhz=mhz,
            sm_max_mhz=1980, temperature_c=60, reasons=4, ecc=None, ecc_uncorrected=None, mig=None,
            processes=(),
        )  # fmt: skip

    watch = Watch([])
    for mhz, load in ((1980, 99), (345, 0), (1500, 99)):
        watch._note(gpu(mhz, load))
    (finding,) = watch.findings()
    assert (finding.id, finding.severity) == ("gpu.clock_drop", "info")
    assert "1500 to 1980 MHz under load (power cap)" in finding.text


def test_what_the_engines_version_cannot_do_is_found_before_a_run(invoke, replay, machine):
    engine = replay(version="0.5.17")
    ended = invoke("doctor", "--model", "flux", "--engine", engine, env=machine({}, {}, HF_TOKEN="hf_x"))
    assert ended.code == 10
    assert "sglang 0.5.17 does not know --component-residency" in ended.out
    assert "0.5.18 to 0.5.23" in ended.out


def test_a_place_that_cannot_be_written_is_named_with_what_chose_it(doctor):
    ended, lines = doctor("--output-dir", "/proc/nope")
    assert ended.code == 10
    assert lines["write.runs"][0]["state"] == "fail"
    assert lines["write.runs"][0]["todo"] == "name another folder with --output-dir"
    _, lines = doctor(env={"BENCH_RUNS": "/proc/nope"})
    assert lines["write.runs"][0]["todo"] == "set BENCH_RUNS"


def test_the_doctor_names_the_version_of_the_workbench(invoke, replay):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    engine = replay()
    assert invoke("doctor", "--engine", engine).out.startswith(f"workbench {version}")
    assert json.loads(invoke("doctor", "--engine", engine, "--json").out)["workbench"].startswith(version)


def test_the_doctor_without_an_engine_names_the_command_that_builds_one(invoke):
    ended = invoke("doctor", env={"PATH": "/usr/bin:/bin"})
    assert ended.code == 10
    assert "engine: no engine" in ended.out


def test_two_runs_on_one_gpu_are_kept_apart(invoke, replay, model, machine, home):
    from filelock import FileLock

    engine = replay(**NATIVE)
    env = machine({})
    command = ["bench", "--model", "flux-tiny", "--engine", engine, "--model-path", model()]
    assert invoke(*command, env=env).code in {0, 4, 5}
    held = list((home / "cache").rglob("locks/*.lock"))
    assert len(held) == 1, "one lock for the one GPU"
    with FileLock(held[0]):
        ended = invoke(*command, env=env)
    assert ended.code == 10
    assert "is in use by another run of the workbench" in ended.err
    assert len(list((home / "runs").iterdir())) == 1, "nothing is left of the run that could not start"


# --- classes -------------------------------------------------------------------------------------------------------

TABLE = '_MODELS = {\n    # "Gone": ("x", "y", "Gone"),\n    "CLIPVisionModel": ("encoders", "clip", "C"),\n}\n'
REGISTRY = {
    "registry.py": TABLE,
    "dits/flux.py": "EntryClass = FluxTransformer2DModel\n",
    "dits/wan.py": 'class Wan:\n    _aliases = ["WanOld"]\n\n\nEntryClass = [\n    Wan,  # not Other\n]\n',
    "vaes/kl.py": "EntryClass = (AutoencoderKL,)\n",
}


def checkpoint(folder, **components):
    index = {name: ["diffusers", "AutoModel"] for name in components}
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "P", "image_encoder": [None, None], **index}))
    for name, config in components.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return folder


def classes(package, folder):
    """Return what the check says of a checkpoint beside an engine's package."""
    state = SimpleNamespace(
        engine=SimpleNamespace(code=(package,), version="0.5.23"),
        workload=SimpleNamespace(model_path=str(folder)),
        environment={},
    )
    return [(line.state, line.saw) for line in checks_of_model.classes(state)]


def test_the_registry_is_read_from_the_package(tmp_path):
    for name, text in REGISTRY.items():
        path = tmp_path / registry.MODELS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    native = {"CLIPVisionModel", "FluxTransformer2DModel", "Wan", "WanOld", "AutoencoderKL"}
    assert registry.native_classes(tmp_path) == native
    flux = {"_class_name": "FluxTransformer2DModel"}
    own = {"architectures": ["CLIPVisionModel"]}
    known = checkpoint(tmp_path / "known", transformer=flux, image_encoder_2=own, tokenizer={"_class_name": "X"})
    assert [state for state, _ in classes(tmp_path, known)] == ["ok"]
    foreign = checkpoint(tmp_path / "foreign", transformer=flux, vae={"_class_name": "AutoencoderTiny"}, decoder="{")
    assert classes(tmp_path, foreign) == [
        ("warn", "vae: sglang 0.5.23 does not register AutoencoderTiny as its own"),
        ("warn", "decoder: sglang 0.5.23 does not register AutoModel as its own"),
    ]


def pipeline(package, folder, *arguments):
    """Return what the check says of the pipeline that a checkpoint's index names."""
    state = SimpleNamespace(
        engine=SimpleNamespace(code=(package,), version="0.5.23"),
        workload=SimpleNamespace(model_path=str(folder), extra=arguments, preset=SimpleNamespace(arguments=())),
        environment={},
    )
    return [(line.state, line.saw) for line in checks_of_model.pipeline(state)]


def test_a_pipeline_that_the_engine_does_not_have_is_seen_before_the_start(tmp_path):
    path = tmp_path / registry.PIPELINES / "flux.py"
    path.parent.mkdir(parents=True)
    path.write_text('class A:\n    pipeline_name = "P"\n\n\nclass B:\n    pipeline_name: str = "DiffusersPipeline"\n')
    known = checkpoint(tmp_path / "known", transformer={})
    assert pipeline(tmp_path, known) == [("ok", "the engine has a P of its own")]
    for name in ("FluxFillPipeline", "DiffusersPipeline"):
        (known / "model_index.json").write_text(json.dumps({"_class_name": name}))
        refused = ("fail", f"sglang 0.5.23 has no {name}, which model_index.json names")
        assert pipeline(tmp_path, known) == [refused]
        assert pipeline(tmp_path, known, "--pipeline-class-name=P") == []


def test_a_run_whose_pipeline_the_engine_does_not_have_is_refused_before_the_launch(invoke, replay, model, home):
    engine = replay(**NATIVE)
    path = home / "environments" / f"engine-{engine}" / "site" / "sglang" / registry.PIPELINES / "wan.py"
    path.parent.mkdir(parents=True)
    path.write_text('class Wan:\n    pipeline_name = "WanPipeline"\n')
    ended = invoke("bench", "--model", "flux-tiny", "--engine", engine, "--model-path", model())
    assert ended.code == 10, ended.err
    assert "sglang 0.5.23 has no FluxPipeline, which model_index.json names" in ended.err
    assert list((home / "runs").rglob("engine.log")) == []


def test_an_engine_without_a_registry_and_a_model_without_an_index_are_not_judged(tmp_path):
    (tmp_path / "model").mkdir()
    assert classes(tmp_path, tmp_path / "model") == classes(tmp_path, tmp_path / "absent") == []


@pytest.mark.engine
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_real_engines_registry_knows_its_own_classes_and_no_other(name, tmp_path):
    (package, *_) = find.find(name).code
    own = {"FluxTransformer2DModel", "AutoencoderKL", "T5EncoderModel", "CLIPTextModel", "WanTransformer3DModel"}
    assert registry.native_classes(package) >= own
    assert registry.own_classes(package) >= own
    assert {"AutoencoderTiny", "AutoencoderKLFromDiffusers"}.isdisjoint(registry.own_classes(package))
    assert registry.pipelines(package) >= {"FluxPipeline", "StableDiffusion3Pipeline", "ZImagePipeline", "WanPipeline"}
    foreign = checkpoint(tmp_path / "model", vae={"_class_name": "AutoencoderTiny"})
    ((state, saw),) = classes(package, foreign)
    assert (state, "does not register AutoencoderTiny" in saw) == ("warn", True)
