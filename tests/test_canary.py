"""Secrets put everywhere and searched for everywhere: in what is printed and in each file that is written."""

import gzip
import json
import zipfile

import pytest
from helpers import LOGS, NATIVE, record_of
from stand_in_server import StandIn
from trace_writer import CPU

SHELL = "c4n4ryFromTheShell"
PRESET = "c4n4ryFromThePreset"
ARGUMENT = "c4n4ryFromAnArgument"
ADDRESS = "c4n4ryFromAnAddress"
ARM = "c4n4ryFromAnArm"
LOOKS = "hf_c4n4ryThatLooksLikeAToken0123"
CANARY = "c4n4ry"

ENVIRONMENT = {
    "SGLANG_API_KEY": SHELL, "DB_PASSWD": SHELL, "HF_AUTH": SHELL,
    "HF_ENDPOINT": f"https://user:{ADDRESS}@localhost", "TOKENIZERS_PARALLELISM": "false",
}  # fmt: skip
MINE = f"""
[mine]
description = "d {LOOKS}"
model = "owner/model"
modality = "image"
prompt = "a cat"
seed = 42
width = 256
height = 256
steps = 4
arguments = ["--lora-path=https://user:{ADDRESS}@host"]
environment = {{ HF_TOKEN = "{PRESET}", SGLANG_X = "{SHELL}" }}
"""
ECHO = [f"using {value}" for value in (SHELL, LOOKS, f"https://user:{ADDRESS}@host")]
"""What an engine may print of its environment."""


@pytest.fixture
def preset_file(tmp_path):
    path = tmp_path / "given" / "mine.toml"
    path.parent.mkdir()
    path.write_text(MINE)
    return path


@pytest.fixture
def nothing_left(home):
    """Return a function that fails if a canary is in what was printed or in a file below the runs and the cache."""

    def contents(path):
        content = path.read_bytes() if path.is_file() else b""
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return b"".join(name.encode() + archive.read(name) for name in archive.namelist())
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content

    def look(ended):
        assert CANARY not in ended.out
        assert CANARY not in ended.err
        assert "Traceback" not in ended.err
        for folder in (home / "runs", home / "cache"):
            for path in folder.rglob("*"):
                assert CANARY.encode() not in contents(path), path
                assert CANARY not in path.name
        return ended

    return look


@pytest.mark.parametrize("more", [[], ["--json"], ["--repeats", "2"]], ids=["text", "json", "session"])
def test_a_run_and_all_that_reads_it(invoke, bench, only_run, nothing_left, more):
    ended = nothing_left(bench("--label", LOOKS, *more, scenario=NATIVE | {"lines": ECHO}, env=ENVIRONMENT))
    assert ended.code == 0, ended.err
    run = only_run()
    environment = json.loads((run / "run.json").read_text())["launches"][0]["command"]["environment"]
    assert environment["SGLANG_API_KEY"] == "<set, not shown>"
    assert environment["TOKENIZERS_PARALLELISM"] == "false"
    for words in (
        ("compare", run, run), ("compare", run, run, "--json"), ("compare", run, run, "--markdown"),
        ("history", "--model", "flux-tiny"), ("history", "--model", "flux-tiny", "--json"), ("report", run),
        ("report", run, "--markdown"), ("report", run, "--csv"), ("report", run, "--openmetrics"),
        ("report", run, "--json"), ("report", "--history"), ("attest", "--log", run / "engine.log"), ("validate", run),
        ("baseline.set", run), ("completion", "bash", "--line", "invoke compare "),
    ):  # fmt: skip
        nothing_left(invoke(*words))


def test_a_run_that_fails(bench, nothing_left):
    scenario = NATIVE | {"lines": [f"RuntimeError: {line}" for line in ECHO], "exit": 1, "image": False}
    assert nothing_left(bench("--label", LOOKS, scenario=scenario, env=ENVIRONMENT)).code == 3


def test_a_presets_secrets(invoke, replay, model, preset_file, nothing_left, only_run):
    name = replay(**NATIVE, lines=[*ECHO, f"using {PRESET}"])
    asked = ["--model", "mine", "--preset-file", preset_file, "--engine", name, "--model-path", model()]
    shown = nothing_left(invoke("bench", *asked, "--dry-run", env=ENVIRONMENT))
    assert "HF_TOKEN='<set, not shown>'" in shown.out
    nothing_left(invoke("models", "--preset-file", preset_file, env=ENVIRONMENT))
    nothing_left(invoke("models", "--preset-file", preset_file, "--json", env=ENVIRONMENT))
    nothing_left(invoke("bench", *asked, env=ENVIRONMENT))
    kept = json.loads((only_run() / "run.json").read_text())["preset"]["document"]["environment"]
    assert kept["HF_TOKEN"] == "<set, not shown>"


def test_arms_of_a_comparison(invoke, replay, model, nothing_left, home):
    scenario = NATIVE | {"lines": [*ECHO, f"using {ARM}"]}
    spec = f"model-path={model()} SGLANG_PWD={ARM} SGLANG_URL=https://user:{ADDRESS}@host"
    asked = ["--model", "flux-tiny", "--baseline", f"model-path={model()}", "--engine", replay(**scenario)]
    asked += ["--label", LOOKS]
    ended = nothing_left(invoke("ab", *asked, "--candidate", spec, "--pairs", "3", "--repeats", "1", env=ENVIRONMENT))
    assert (home / "runs").exists(), ended.err
    (folder,) = (home / "runs").iterdir()
    assert "SGLANG_PWD=<set, not shown>" in (folder / "comparison.json").read_text(), ended.err
    for words in (
        ("compare", folder), ("compare", folder, "--json"), ("report", folder), ("report", folder, "--markdown"),
    ):  # fmt: skip
        assert nothing_left(invoke(*words)).code != 1
    dossier = home / "runs" / "dossier"
    assert nothing_left(invoke("evidence", "--from", folder, "--output", dossier)).code == 0
    assert nothing_left(invoke("evidence-check", dossier / "evidence.zip")).code == 0


def test_a_reference(invoke, replay, model, nothing_left, home):
    scenario = {"log": "cpu/diffusers.log", "dump": "cpu/diffusers.json", "lines": ECHO}
    asked = ["--model", "flux-tiny", "--engine", replay(**scenario), "--model-path", model(), "--label", LOOKS]
    ended = nothing_left(invoke("reference", *asked, "--no-warmup", "--steps", "4", env=ENVIRONMENT))
    assert ended.code == 0, ended.err
    nothing_left(invoke("report", "last"))


def test_a_load_test(invoke, model, nothing_left, home, tmp_path):
    log = tmp_path / "log"
    log.mkdir()
    asked = ["--model", "flux-tiny", "--model-path", model(), "--label", LOOKS, "--duration", "0.5", "--rate", "20"]
    with StandIn(log=log, service_s=0.005) as server:
        url = server.url.replace("http://", f"http://user:{ADDRESS}@")
        for more in ([], ["--json"]):
            nothing_left(invoke("loadtest", *asked, "--url", url, *more, env=ENVIRONMENT))
    assert list((home / "runs").glob("*/load.json"))
    nothing_left(invoke("report", "last"))


def test_a_load_test_whose_server_does_not_start(invoke, replay, model, nothing_left):
    asked = ["--model", "flux-tiny", "--engine", replay(**NATIVE, lines=ECHO), "--model-path", model()]
    extra = ("--", "--api-key", ARGUMENT)
    for more in (["--dry-run", *extra], [*extra], []):
        nothing_left(invoke("loadtest", *asked, *more, env=ENVIRONMENT))


@pytest.mark.parametrize(
    "words",
    [
        ("ab", "--candidate", f"SGLANG_PWD={ARM} no=word"),
        ("bench", "--model", LOOKS),
        ("bench", "--model", "flux-tiny", "--", "--api-key", ARGUMENT, f"--hf-token={ARGUMENT}", "--nosuch"),
        ("bench", "--model", "flux-tiny", "--model-path", f"https://user:{ADDRESS}@host/x/y"),
        ("attest", "--log", f"/nowhere/{SHELL}"),
        ("validate", f"/nowhere/{SHELL}"),
        (LOOKS,),
        ("bench", f"--{LOOKS}"),
    ],
    ids=["arm", "model", "arguments", "address", "log", "file", "task", "option"],
)
def test_an_error(invoke, replay, nothing_left, words):
    replay(**NATIVE)
    assert nothing_left(invoke(*words, env=ENVIRONMENT)).code != 0


def test_a_fault_of_ours(invoke, monkeypatch, nothing_left):
    """A bug keeps its traceback, which may quote anything."""

    def fail(*arguments):
        raise KeyError(SHELL)

    monkeypatch.setattr("bench.catalog.presets.listed", fail)
    ended = invoke("models", env=ENVIRONMENT)
    assert "KeyError" in ended.err
    assert CANARY not in ended.err


def test_files_of_others(invoke, tmp_path, nothing_left):
    log = tmp_path / "engine.log"
    log.write_bytes((LOGS / "cpu" / "warmup_request.log").read_bytes() + "\n".join(ECHO).encode())
    nothing_left(invoke("attest", "--log", log, env=ENVIRONMENT | {"HF_TOKEN": PRESET, "A_TOKEN": ARM}))
    trace = tmp_path / "x.trace.json"
    trace.write_text(gzip.decompress(CPU.read_bytes()).decode().replace("aten::", f"{LOOKS} aten::"))
    assert nothing_left(invoke("profile", "--trace", trace, "--full")).code == 0


# --- taken up again ---------------------------------------------------------------------------------------------------


def cut_off(run, **asked):
    """Make a finished run one that was cut off, with changes of what was asked."""
    record = json.loads((run / "run.json").read_text()) | {"complete": False}
    record["asked"] |= {"repeats": 3} | asked
    (run / "run.json").unlink()
    (run / "run.partial.json").write_text(json.dumps(record))


def test_a_resumed_run_says_which_secret_it_needs(invoke, bench, only_run):
    bench("--repeats", "2")
    cut_off(only_run(), environment=[["SGLANG_PWD", "<set, not shown>"]])
    ended = invoke("bench", "--resume", "last")
    assert ended.code == 1
    assert "SGLANG_PWD is a secret, which a record does not hold" in ended.err
    assert "set SGLANG_PWD in the shell" in ended.err
    again = invoke("bench", "--resume", "last", env={"SGLANG_PWD": SHELL})
    assert "is a secret" not in again.err
    assert SHELL not in again.err


def test_a_resumed_run_needs_its_secret_arguments_again(invoke, bench, only_run):
    bench("--repeats", "2")
    cut_off(only_run(), extra=["--api-key=<set, not shown>"])
    ended = invoke("bench", "--resume", "last")
    assert ended.code == 1
    assert "an argument of this run is a secret" in ended.err
    again = invoke("bench", "--resume", "last", "--", f"--api-key={ARGUMENT}")
    assert "is a secret" not in again.err
    assert ARGUMENT not in again.err


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"environment": [["LD_PRELOAD", "/tmp/evil.so"]]}, "LD_PRELOAD decides which code runs"),
        ({"environment": [["PYTHONPATH", "/tmp/evil"]]}, "PYTHONPATH decides which code runs"),
        ({"environment": [["PATH", "/tmp/evil"]]}, "PATH decides which code runs"),
        ({"engine": "source:/tmp/evil"}, "a record may not choose which code runs"),
        ({"repeats": "many"}, "$.asked.repeats: 'many' is not of its type"),
        ({"extra": None}, "not the options of a run"),
    ],
    ids=["LD_PRELOAD", "PYTHONPATH", "PATH", "a checkout", "many", "no list"],
)
def test_somebody_elses_partial_record_runs_no_code(invoke, bench, only_run, asked, says):
    bench("--repeats", "2")
    cut_off(only_run(), **asked)
    ended = invoke("bench", "--resume", "last")
    assert ended.code == 1
    assert says in ended.err


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_AUDIT", "PATH", "PYTHONPATH", "PYTHONSTARTUP", "BASH_ENV"])
def test_a_preset_runs_no_code(invoke, tmp_path, name):
    path = tmp_path / "evil.toml"
    path.write_text(MINE.replace("HF_TOKEN =", f"{name} ="))
    for words in (("validate", path), ("bench", "--model", "mine", "--preset-file", path, "--dry-run")):
        ended = invoke(*words)
        assert ended.code == 1
        assert f"{name} decides which code runs" in ended.err


def test_what_is_only_a_word_is_no_secret(bench):
    record = record_of(bench(env={"TOKENIZERS_PARALLELISM": "false"}))
    assert record["launches"][0]["command"]["environment"]["TOKENIZERS_PARALLELISM"] == "false"
