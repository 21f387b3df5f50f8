"""The dossier of a pull request: measured or taken from A/Bs, refused where unproven, judged again anywhere."""

import json
import shutil
import subprocess
import zipfile

import pytest
from helpers import DATA

from bench import paths


@pytest.fixture(name="archive")
def _archive(invoke, tmp_path):
    ended = invoke("evidence", "--from", DATA / "ab", "--output", tmp_path / "dossier")
    assert ended.code == 0, ended.err
    return tmp_path / "dossier" / "evidence.zip"


def edited(archive, change, *, consistent=False):
    """Write an archive again with its files changed; ``consistent`` gives the manifest the new hashes too."""
    with zipfile.ZipFile(archive) as before:
        contents = {name: before.read(name) for name in before.namelist()}
    change(contents)
    if consistent:
        hashes = {name: paths.sha256_of(data) for name, data in contents.items() if name != "manifest.json"}
        contents["manifest.json"] = json.dumps(hashes).encode()
    path = archive.with_name("edited.zip")
    with zipfile.ZipFile(path, "w") as after:
        for name, data in contents.items():
            after.writestr(name, data)
    return path


def test_the_text_has_upstreams_headings_and_fits_a_screen(archive):
    text = (archive.parent / "pull-request.md").read_text()
    headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["Motivation", "Modifications", "Accuracy Tests", "Benchmarking and Profiling"]
    assert len(text.splitlines()) <= 60
    assert "| flux-tiny | **INCONCLUSIVE** in 3 pairs |" in text
    assert f"sha256 `{paths.sha256(archive)}`" in text


def test_an_archive_is_judged_again(archive, invoke):
    ended = invoke("evidence-check", archive)
    assert ended.code == 0, ended.err
    assert "flux-tiny: baseline: native" in ended.out
    assert "nothing was edited" in ended.out


@pytest.mark.parametrize("consistent", [False, True], ids=["hashes-left", "hashes-too"])
@pytest.mark.parametrize(
    "name",
    [
        "flux-tiny/candidate/launch-1/request-002/perf.json",
        "flux-tiny/baseline/launch-2/engine.log",
        "flux-tiny/candidate/launch-1/request-002/outputs/output.png",
        "pull-request.md",
    ],
    ids=["dump", "log", "picture", "text"],
)
def test_an_edited_file_is_named(name, consistent, archive, invoke):
    path = edited(archive, lambda contents: contents.update({name: contents[name] + b"\n"}), consistent=consistent)
    ended = invoke("evidence-check", path)
    assert ended.code == 5
    assert name.rpartition("/")[2] in ended.err


def test_an_edited_record_is_named_even_if_every_hash_was_made_anew(archive, invoke):
    def faster(contents):
        record = json.loads(contents["flux-tiny/candidate/run.json"])
        record["timings"]["metrics"]["total_ms"] *= 0.9
        contents["flux-tiny/candidate/run.json"] = json.dumps(record).encode()

    ended = invoke("evidence-check", edited(archive, faster, consistent=True))
    assert ended.code == 5
    assert "timings.metrics does not follow from the requests" in ended.err


def test_an_edited_effect_is_named(archive, invoke):
    def faster(contents):
        document = json.loads(contents["flux-tiny/comparison.json"])
        document["comparison"]["effect"] = {"ratio": 0.9, "percent": -10.0}
        contents["flux-tiny/comparison.json"] = json.dumps(document).encode()

    ended = invoke("evidence-check", edited(archive, faster, consistent=True))
    assert ended.code == 5
    assert "it says -10.00 %" in ended.err


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", None], ids=["empty", "broken", "outside"])
def test_what_is_no_archive_is_refused(content, invoke, tmp_path):
    path = tmp_path / "x.zip"
    if content is None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("../outside/comparison.json", "{}")
    else:
        path.write_bytes(content)
    ended = invoke("evidence-check", path)
    assert ended.code == 1
    assert not (tmp_path.parent / "outside").exists()


def test_an_arm_that_is_not_native_has_no_dossier(invoke, tmp_path):
    folder = tmp_path / "ab"
    shutil.copytree(DATA / "ab", folder)
    for launch in (folder / "candidate").glob("launch-*"):
        log = launch / "engine.log"
        log.write_text(log.read_text() + "Falling back to diffusers backend\n")
    ended = invoke("evidence", "--from", folder, "--output", tmp_path / "dossier")
    assert ended.code in (4, 5)
    assert not (tmp_path / "dossier" / "evidence.zip").exists()


@pytest.fixture(name="checkout")
def _checkout(tmp_path):
    """A repository with one commit, that is not SGLang."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "a.py").write_text("x = 1\n")
    for words in (("init", "-q"), ("add", "."), ("-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x")):
        subprocess.run(["git", "-C", folder, *words], check=True)
    return folder


def test_nothing_is_measured_of_a_head_that_changes_nothing(invoke, checkout):
    ended = invoke("evidence", "--base", "HEAD", "--source", checkout, "--models", "flux-tiny")
    assert ended.code == 1
    assert "nothing differs between HEAD and ." in ended.err


def test_an_unknown_revision_is_refused_and_no_worktree_is_left(invoke, checkout):
    (checkout / "a.py").write_text("x = 2\n")
    ended = invoke("evidence", "--base", "HEAD", "--head", "nowhere", "--source", checkout, "--models", "flux-tiny")
    assert ended.code == 1
    listed = subprocess.run(["git", "-C", checkout, "worktree", "list"], capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) == 1
