"""The record names the code that ran: a run whose engine is edited meanwhile does not count."""

import json
import shutil
import subprocess

import pytest
from engine_support import CONFIGURATIONS
from engine_support import invoke as run_engine
from helpers import NATIVE, record_of

from bench.catalog import presets
from bench.engine import find
from bench.models import checkpoint
from bench.run import benchmark


@pytest.fixture(name="site")
def _site(home):
    return home / "environments" / "engine-replay" / "site"


@pytest.fixture(name="again")
def _again(invoke, model):
    """Run `invoke bench` once more on the replay engine that is there."""
    return lambda *words: invoke("bench", "--model", "flux-tiny", "--engine", "replay", "--model-path", model(), *words)


def git(folder, *words):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_an_edited_engine_has_another_code_and_a_restored_one_the_same(bench, again, site):
    first = record_of(bench())["code"]
    assert first["files"] == sum(1 for _ in (site / "sglang").rglob("*.py"))
    assert first["install"] is None
    module = site / "sglang" / "multimodal_gen" / "__init__.py"
    before = module.read_text()
    module.write_text(before + "# edited\n")
    edited = record_of(again())["code"]
    module.write_text(before)
    restored = record_of(again())["code"]
    assert (edited == first, restored == first) == (False, True)


def test_an_engine_that_is_edited_during_a_launch_gives_no_number(bench):
    ended = bench("--repeats", "3", edit_at=2)
    assert ended.code == 4
    record = record_of(ended)
    assert (record["timings"], record["requests"]) == (None, [])
    (finding,) = [found for found in record["verdict"]["findings"] if found["id"] == "engine.code"]
    assert finding["text"] == "sglang/edited.py"


def test_an_engine_that_is_edited_between_two_launches_is_not_started_again(bench, again, site, monkeypatch):
    checked = []

    def edited(running, check=benchmark._edited):
        checked.append(running)
        if len(checked) == 2:
            (site / "sglang" / "new.py").write_text("x = 1\n")
        return check(running)

    monkeypatch.setattr(benchmark, "_edited", edited)
    ended = bench("--repeats", "1", "--launches", "3")
    assert ended.code == 4
    assert "the engine's code changed since the run began (sglang/new.py)" in ended.err
    record = record_of(ended)
    assert (record["complete"], len(record["launches"]), len(record["requests"])) == (False, 1, 1)
    assert (site.parent / "launches").read_text() == "x"


def test_a_run_is_not_resumed_on_other_code(bench, invoke, only_run, site):
    assert bench("--repeats", "4", die_at=3).code == 3
    (site / "sglang" / "new.so").write_bytes(b"\x7fELF")
    ended = invoke("bench", "--resume", only_run())
    assert (ended.code, "changed since the run was started: the code of the engine" in ended.err) == (1, True)


def test_an_editable_install_is_the_checkout_that_it_runs_from(home, replay, again, site):
    """Its metadata says a release; changes that git does not see change the code all the same."""
    replay(**NATIVE)
    checkout = home / "checkout"
    (checkout / "python").mkdir(parents=True)
    (site / "sglang").rename(checkout / "python" / "sglang")
    (checkout / ".gitignore").write_text("_generated.py\n")
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "x")
    origin = {"url": f"file://{checkout}/python", "dir_info": {"editable": True}}
    (site / "sglang-0.5.23.dist-info" / "direct_url.json").write_text(json.dumps(origin))
    python = site.parent / "bin" / "python"
    python.write_text(python.read_text().replace(f'{site}" exec', f'{site}:{checkout}/python" exec'))

    record = record_of(again())
    commit = git(checkout, "rev-parse", "HEAD")
    assert record["engine"]["source"] == {"commit": commit, "changes_sha256": None}
    assert record["launches"][0]["command"]["environment"]["SGLANG_GIT_COMMIT"] == commit
    assert record["code"]["install"] == {"kind": "editable", "url": None, "commit": None, "sha256": None}
    assert str(checkout) not in json.dumps([record["engine"], record["code"]])

    (checkout / "python" / "sglang" / "_generated.py").write_text("x = 1\n")
    changed = record_of(again())
    assert changed["engine"] == record["engine"]
    assert changed["code"]["sha256"] != record["code"]["sha256"]


def test_where_an_engine_was_installed_from_is_told_without_a_password(replay, again, site):
    replay(**NATIVE)
    origin = {"url": "https://me:secret@host.example/sglang.git", "vcs_info": {"vcs": "git", "commit_id": "abc123"}}
    (site / "sglang-0.5.23.dist-info" / "direct_url.json").write_text(json.dumps(origin))
    install = record_of(again())["code"]["install"]
    assert (install["kind"], install["commit"]) == ("vcs", "abc123")
    assert "secret" not in install["url"]


@pytest.mark.parametrize(("lacking", "code"), [("AutoencoderKL", 4), ("T5EncoderModel", 0), (None, 0)])
def test_a_class_that_the_log_calls_native_has_to_be_in_the_engines_code(replay, again, site, lacking, code):
    replay(**NATIVE)
    models = site / "sglang" / "multimodal_gen" / "runtime" / "models"
    models.mkdir(parents=True)
    (models / "registry.py").touch()
    classes = {"FluxTransformer2DModel", "AutoencoderKL", "CLIPTextModel", "T5EncoderModel"} - {lacking}
    (models / "all.py").write_text("".join(f"class {name}:\n    pass\n\n\n" for name in sorted(classes)))
    ended = again()
    assert ended.code == code, ended.err
    found = {f["component"]: f["severity"] for f in record_of(ended)["verdict"]["findings"] if f["component"]}
    severity = {"AutoencoderKL": {"vae": "invalid"}, "T5EncoderModel": {"text_encoder_2": "degraded"}, None: {}}
    assert found == severity[lacking]


OWN_VAE = """import diffusers


class AutoencoderKLFromDiffusers(diffusers.AutoencoderKL):
    pass
"""


@pytest.mark.engine
@pytest.mark.parametrize("engine", CONFIGURATIONS[:1])
def test_a_vae_in_diffusers_own_class_is_refused_before_the_start_and_stopped_at_its_load(engine, tmp_path):
    cached, _ = checkpoint.cached(
        find.find(engine), presets.get("flux-tiny").checkpoint, "black-forest-labs/FLUX.1-dev"
    )
    folder = tmp_path / cached.name
    shutil.copytree(cached, folder)
    config = folder / "vae" / "config.json"
    mapped = {"auto_map": {"AutoModel": "modeling_vae.AutoencoderKLFromDiffusers"}}
    config.write_text(json.dumps(json.loads(config.read_text()) | mapped))
    (folder / "vae" / "modeling_vae.py").write_text(OWN_VAE)
    words = ("bench", "--model", "flux-tiny", "--engine", engine, "--model-path", folder)
    refused = run_engine(*words, runs=tmp_path / "runs")
    assert (refused.code, "component.own_code" in refused.err) == (4, True), refused.err
    assert not (tmp_path / "runs").exists()
    stopped = run_engine(*words, "--no-precheck", runs=tmp_path / "runs")
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/run.json"))
    (decisive, *_) = record["verdict"]["findings"]
    assert (stopped.code, decisive["id"], decisive["component"]) == (4, "component.own_code", "vae")
    assert decisive["source"] == "log"
