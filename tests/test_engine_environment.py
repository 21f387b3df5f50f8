"""What stands between a preset, a user's shell and the engine: refused, taken away, or told in the record."""

import re

import pytest
from engine_support import CONFIGURATIONS
from helpers import NATIVE, record_of

from bench.engine import find, variables

PRESET = """[mine]
description = "a preset of a test"
model = "owner/model"
modality = "image"
prompt = "A cat"
seed = 42
"""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('environment = { PYTHONPATH = "/evil" }', "PYTHONPATH decides which code runs: a preset may not set it"),
        (
            'environment = { LD_PRELOAD = "slowclock.so" }',
            "LD_PRELOAD decides which code runs",
        ),
        ('environment = { PATH = "/evil" }', "PATH decides which code runs: a preset may not set it"),
        ('environment = { LOCAL_RANK = "1" }', "LOCAL_RANK may not be set by a preset"),
        ('arguments = ["--config=/x.json"]', "--config cannot be passed to the engine"),
        ('arguments = ["--output-path=/x"]', "--output-path cannot be passed to the engine"),
        ('arguments = ["--log_level=warning"]', "--log_level cannot be passed to the engine"),
    ],
)
def test_a_preset_is_bound_by_the_pins(invoke, replay, tmp_path, line, says):
    path = tmp_path / "mine.toml"
    path.write_text(PRESET + line + "\n")
    ended = invoke("bench", "--model", "mine", "--preset-file", path, "--engine", replay(), "--dry-run")
    assert ended.code == 1
    assert says in ended.err


def test_ranks_of_a_launcher_do_not_reach_the_engine(monkeypatch):
    for name in find.RANKS:
        monkeypatch.setenv(name, "1")
    assert not set(find.RANKS) & find.interpreter_environment().keys()


def test_a_variable_that_nobody_knows_does_not_reach_the_engine(bench, monkeypatch):
    unknown = {"SOME_LIBRARYS_KNOB": "1", "GCONV_PATH": "/evil", "A" * 300: "x", "LD": "1", "lang": "C"}
    known = {"NVPL_BLAS_DEBUG_CPU_TYPE": "x", "LC_ALL": "C.UTF-8", "https_proxy": "http://p:1", "NIX_LD": "/ld"}
    for name, value in (unknown | known).items():
        monkeypatch.setenv(name, value)
    reached = find.interpreter_environment()
    assert not unknown.keys() & reached.keys()
    assert known.items() <= reached.items()
    ended = bench()
    assert ended.code == 0, ended.err
    environment = record_of(ended)["launches"][0]["command"]["environment"]
    assert {"NVPL_BLAS_DEBUG_CPU_TYPE", "NIX_LD"} <= environment.keys()
    assert not {"LC_ALL", "https_proxy", *unknown} & environment.keys()


def test_of_an_activated_conda_environment_the_engine_gets_only_what_the_record_names(bench, monkeypatch, tmp_path):
    """`conda activate` sets these, with its compilers; LD_LIBRARY_PATH and PYTHONPATH are many a shell's own."""
    told = {
        "CC": "/conda/bin/x86_64-conda-linux-gnu-cc",
        "CFLAGS": "-march=nocona -O2",
        "LDFLAGS": "-Wl,-rpath,/conda/lib",
        "LD_LIBRARY_PATH": "/conda/lib",
    }
    withheld = {
        "CONDA_PREFIX": "/conda",
        "CONDA_DEFAULT_ENV": "sglang",
        "CONDA_EXE": "/conda/bin/conda",
        "CONDA_BUILD_SYSROOT": "/conda/sysroot",
        "_CE_CONDA": "",
        "HOST": "x86_64-conda-linux-gnu",
        "CMAKE_PREFIX_PATH": "/conda",
        "PYTHONPATH": str(tmp_path),
    }
    for name, value in (told | withheld).items():
        monkeypatch.setenv(name, value)
    reached = find.interpreter_environment()
    assert told.items() <= reached.items()
    assert not withheld.keys() & reached.keys()
    ended = bench()
    assert ended.code == 0, ended.err
    environment = record_of(ended)["launches"][0]["command"]["environment"]
    assert told.items() <= environment.items()
    assert not withheld.keys() & environment.keys()


def test_every_variable_of_a_launch_is_recorded_or_known_to_be_of_no_weight(monkeypatch):
    monkeypatch.setenv("UNHEARD_OF", "1")
    for name in find.interpreter_environment():
        assert variables.is_recorded(name) or variables.OF_NO_WEIGHT.fullmatch(name), name


def test_a_preset_may_name_a_variable_that_the_shell_may_not_hand_on(invoke, replay, model, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(PRESET + 'width = 256\nheight = 256\nsteps = 4\nenvironment = { SOME_LIBRARYS_KNOB = "2" }\n')
    words = ("bench", "--model", "mine", "--preset-file", path, "--engine", replay(**NATIVE), "--model-path", model())
    environment = record_of(invoke(*words))["launches"][0]["command"]["environment"]
    assert environment["SOME_LIBRARYS_KNOB"] == "2"


def test_what_can_change_how_fast_is_in_the_record_and_a_preload_is_said(bench):
    variables = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "default", "GOMP_CPU_AFFINITY": "0"}
    variables |= {"MALLOC_CONF": "background_thread:true", "LD_PRELOAD": "libm.so.6"}
    variables |= {"MINIMAX_H3_VAE_DECODER_FUSED_NORM": "0", "CUTE_DSL_ARCH": "sm_90a"}
    ended = bench(env=variables)
    assert ended.code == 0, ended.err
    record = record_of(ended)
    assert variables.items() <= record["launches"][0]["command"]["environment"].items()
    assert record["verdict"]["outcome"] == "degraded"
    assert "environment.preload" in {finding["id"] for finding in record["verdict"]["findings"]}


def test_another_guidance_than_the_preset_asks_for_is_another_workload(invoke, replay, model, tmp_path):
    """The replayed log says 3.5."""
    path = tmp_path / "mine.toml"
    for guidance, code in ((3.5, 0), (5.0, 4)):
        path.write_text(PRESET + f"guidance = {guidance}\nwidth = 256\nheight = 256\nsteps = 4\n")
        engine = replay(name=f"of-{guidance}", **NATIVE)
        words = ("bench", "--model", "mine", "--preset-file", path, "--engine", engine, "--model-path", model())
        ended = invoke(*words)
        assert ended.code == code, ended.err
    assert "request.guidance_scale" in ended.err + ended.out


READ = re.compile(
    r"""(?:environ(?:\.get|\.setdefault|\.pop)?[\[(]|getenv\(|get_(?:bool|int)_env_var\()\s*["']([A-Za-z]\w+)"""
)
OF_NO_WEIGHT = {
    *("MASTER_ADDR", "MASTER_PORT", "LOCAL_SIZE"),  # where ranks meet: the workbench sets the port of each launch
    *("CI", "GITHUB_ACTIONS"),  # how progress is drawn
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "WINDIR", "ProgramFiles"),  # folders of the user
    *("AIP_PREDICT_ROUTE", "OTEL_SERVICE_NAME", "PROMETHEUS_MULTIPROC_DIR"),  # names in a server's answers and metrics
}


@pytest.mark.engine
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_each_variable_that_a_real_engine_reads_is_recorded_or_known_to_be_of_no_weight(name):
    (package, *_) = find.find(name).code
    sources = [
        path for path in (package / "multimodal_gen").rglob("*.py") if not {"test", "benchmarks"} & {*path.parts}
    ]
    read = {variable for path in sources for variable in READ.findall(path.read_text(encoding="utf-8"))}
    assert len(read) > 50
    assert {v for v in read if not variables.is_recorded(v)} <= {*OF_NO_WEIGHT, *find.RANKS}
