"""The dossier of a pull request: measured or taken from A/Bs, refused where unproven, judged again anywhere."""

import json
import shutil
import signal
import subprocess
import zipfile

import pytest
from conftest import write_session_modules
from helpers import DATA, NATIVE, ROOT, invoke_command, processes_like, wait_for_task, wait_until

from bench import paths, schema
from bench.engine import source
from bench.report import dossier
from bench.stats.comparison import UNCLAIMED


def git(folder, *words):
    command = ["git", "-C", folder, "-c", "user.name=x", "-c", "user.email=x", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


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
    absent = invoke("evidence-check", archive.with_name("absent.zip"))
    assert absent.code == 1
    assert "error: not an archive that can be read: No such file or directory\n" in absent.err


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


def other_subject(contents):
    contents["subject.json"] = json.dumps(
        json.loads(contents["subject.json"]) | {"base": "a", "head": "b", "changes": ["x"]}
    ).encode()


@pytest.mark.parametrize("consistent", [False, True], ids=["hashes-left", "hashes-too"])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda contents: contents.update({"pull-request.md": b"\xff"}), "pull-request.md"),
        (lambda contents: contents.update({"subject.json": b"[]"}), "subject.json"),
        (other_subject, ""),
        (lambda contents: contents.pop("pull-request.md"), "pull-request.md is gone"),
        (lambda contents: contents.pop("subject.json"), "subject.json is gone"),
    ],
    ids=["binary text", "a list as subject", "other subject", "without text", "without subject"],
)
def test_what_the_dossier_itself_rests_on_is_judged_too(change, named, consistent, archive, invoke):
    ended = invoke("evidence-check", edited(archive, change, consistent=consistent))
    assert ended.code in (1, 5)
    assert ended.err.startswith("error: ")
    assert named in ended.err


def test_an_archive_without_its_manifest_is_refused(archive, invoke):
    ended = invoke("evidence-check", edited(archive, lambda contents: contents.pop("manifest.json")))
    assert ended.code == 5
    assert "manifest.json is gone" in ended.err


def test_nothing_in_the_text_contradicts_the_effect_beside_it(archive):
    text = (archive.parent / "pull-request.md").read_text()
    (row,) = (line for line in text.splitlines() if line.startswith("| flux-tiny | **"))
    assert row.count("%") == 2  # the effect and its interval: no second figure of another kind
    assert "| total time |" in row
    assert "/home/" not in text


def test_the_text_claims_no_size_of_what_was_measured_under_disturbance():
    names = ("comparison.json", "baseline/run.json", "candidate/run.json")
    document, *records = (schema.read(DATA / "ab" / name) for name in names)
    document["comparison"]["reason"] += f"; {UNCLAIMED}"
    told = dossier.text({"changes": None}, {"flux-tiny": (document, *records)})
    (row,) = (line for line in told.splitlines() if line.startswith("| flux-tiny | **"))
    assert "| not claimed: measured under disturbance |" in row
    assert "%" not in row


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--models", "flux-tiny"), "--models would be ignored"),
        (("--pairs", "4", "--head", "x"), "--head, --pairs would be ignored"),
        (("--base", "main"), "exclude each other"),
    ],
)
def test_what_would_be_ignored_is_refused(words, says, invoke, tmp_path):
    ended = invoke("evidence", "--from", DATA / "ab", "--output", tmp_path / "dossier", *words)
    assert ended.code == 1
    assert says in ended.err
    assert not (tmp_path / "dossier").exists()


def test_a_folder_that_is_there_is_refused_before_anything_is_measured(invoke, checkout, tmp_path):
    (checkout / "a.py").write_text("x = 2\n")
    (tmp_path / "there").mkdir()
    ended = invoke("evidence", "--base", "HEAD", "--source", checkout, "--output", tmp_path / "there")
    assert ended.code == 1
    assert "the output folder exists already" in ended.err


def test_an_ab_that_was_cut_off_has_no_dossier(invoke, tmp_path):
    folder = tmp_path / "ab"
    shutil.copytree(DATA / "ab", folder)
    document = json.loads((folder / "comparison.json").read_text())
    document |= {"complete": False, "failure": {"exit_code": 130, "what": "interrupted"}}
    (folder / "comparison.json").write_text(json.dumps(document))
    ended = invoke("evidence", "--from", folder, "--output", tmp_path / "dossier")
    assert ended.code == 1
    assert "this A/B was cut off" in ended.err
    assert not (tmp_path / "dossier").exists()


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
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "x")):
        git(folder, *words)
    return folder


def test_nothing_is_measured_of_a_head_that_changes_nothing(invoke, checkout):
    ended = invoke("evidence", "--base", "HEAD", "--source", checkout, "--models", "flux-tiny")
    assert ended.code == 1
    assert "nothing differs between HEAD and ." in ended.err


def test_a_file_that_git_does_not_know_yet_is_a_change(checkout):
    (checkout / "b.py").write_text("y = 1\n")
    assert source.changes(checkout, "HEAD", ".") == [" b.py (not yet added)"]


@pytest.mark.parametrize(("base", "says"), [("nowhere", "no revision 'nowhere' here"), ("--help", "no revision")])
def test_a_base_that_git_does_not_know_is_no_lack_of_changes(base, says, invoke, checkout, home):
    ended = invoke("evidence", f"--base={base}", "--source", checkout, "--models", "flux-tiny")
    assert ended.code == 1
    assert says in ended.err
    assert not (home / "runs").exists()


def test_a_folder_outside_of_git_is_refused(invoke, tmp_path):
    ended = invoke("evidence", "--base", "main", "--source", tmp_path, "--models", "flux-tiny")
    assert ended.code == 1
    assert "no revision 'main' here" in ended.err


def test_an_unknown_revision_is_refused_and_no_worktree_is_left(invoke, checkout):
    (checkout / "a.py").write_text("x = 2\n")
    ended = invoke("evidence", "--base", "HEAD", "--head", "nowhere", "--source", checkout, "--models", "flux-tiny")
    assert ended.code == 1
    assert len(git(checkout, "worktree", "list").splitlines()) == 1


# --- measured from a checkout -----------------------------------------------------------------------------------------

PACKAGE = "python/sglang/multimodal_gen/__init__.py"
GENERATOR = """import multimodal_gen
from multimodal_gen import DiffGenerator

multimodal_gen.SCENARIO |= {scenario}
"""


@pytest.fixture(name="sglang")
def _sglang(tmp_path, replay):
    """A checkout over a replay engine's dependencies, in a folder whose name a shell would split, and `evidence`."""
    replay(name="under", **NATIVE, within=0.002, trace=str(DATA / "traces" / "flux-h200.trace.json.gz"))
    folder = tmp_path / "my checkout"
    write_session_modules(folder / "python" / "sglang")
    (folder / PACKAGE).write_text(GENERATOR.format(scenario={}))
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "as released")
    git(folder, "tag", "v0.5.23")

    def change(**scenario):
        git(folder, "checkout", "-qb", "change")
        (folder / PACKAGE).write_text(GENERATOR.format(scenario=scenario))
        git(folder, "commit", "-qam", "change", "--allow-empty")
        return folder

    return change


def measured(checkout, tiny, *words):
    common = (
        "--source",
        checkout,
        "--engine",
        "under",
        "--models",
        "flux-tiny",
        "--preset-file",
        tiny,
        "--repeats",
        "2",
    )
    return ("evidence", "--base", "main", *common, *words)


def test_a_change_of_ten_percent_is_measured_and_proven(invoke, sglang, tiny, tmp_path):
    checkout = sglang(factor=1.1, seed=7)
    ended = invoke(*measured(checkout, tiny, "--head", "change", "--output", tmp_path / "dossier"))
    assert ended.code == 0, ended.err
    assert "| flux-tiny | **SLOWER** in 3 pairs | total time |" in ended.out
    assert f" {PACKAGE} | 2 +-" in ended.out
    base, head = (commit[:12] for commit in git(checkout, "rev-parse", "main", "change").split())
    assert f"main (commit {base}) against change (commit {head}):" in ended.out
    assert str(tmp_path) not in ended.out
    checked = invoke("evidence-check", tmp_path / "dossier" / "evidence.zip")
    assert checked.code == 0, checked.err
    assert len(git(checkout, "worktree", "list").splitlines()) == 1


def other_kernels(**said):
    """Return what says something else of the kernels of an archive."""

    def change(contents):
        document = json.loads(contents["flux-tiny/comparison.json"])
        document["reach"]["kernels"] |= said
        contents["flux-tiny/comparison.json"] = json.dumps(document).encode()

    return change


def test_the_profile_diff_of_both_sides_is_in_the_archive_and_follows_from_their_traces(invoke, sglang, tiny, tmp_path):
    checkout = sglang(factor=1.1, seed=7, trace=str(DATA / "traces" / "flux-h100-0.5.23.trace.json.gz"))
    words = measured(checkout, tiny, "--head", "change", "--output", tmp_path / "dossier", "--prove-kernels")
    ended = invoke(*words)
    assert ended.code == 0, ended.err
    (line,) = (line for line in ended.out.splitlines() if line.startswith("- flux-tiny: kernels: of "))
    assert "appeared" in line
    archive = tmp_path / "dossier" / "evidence.zip"
    with zipfile.ZipFile(archive) as packed:
        told = packed.read("flux-tiny/profile-diff.md").decode()
        names = packed.namelist()
    assert line.partition("kernels: of ")[2] in told
    assert "ms a step" in told
    (trace,) = (name for name in names if name.startswith("flux-tiny/reach/kernels/traces/"))
    assert invoke("evidence-check", archive).code == 0
    for change, named in (
        (lambda contents: contents.update({trace: contents[trace] + b"x"}), "is not the trace that was recorded"),
        (
            lambda contents: contents.update({"flux-tiny/profile-diff.md": b"no change"}),
            "profile-diff.md does not follow",
        ),
        (other_kernels(changes=[]), "the kernels that differ do not follow from the traces"),
        (other_kernels(names=1), "the kernels that differ do not follow from the traces"),
        (other_kernels(launches=None), "something is said of kernels that were not traced"),
        (other_kernels(launches=None, unknown="why"), "something is said of kernels that were not traced"),
    ):
        checked = invoke("evidence-check", edited(archive, change, consistent=True))
        assert (checked.code, named in checked.err) == (5, True), checked.err


def test_a_change_that_never_runs_ends_before_the_first_pair(invoke, home, sglang, tiny):
    checkout = sglang()
    (checkout / "python" / "sglang" / "unused.py").write_text("def unused():\n    return 1\n")
    ended = invoke(*measured(checkout, tiny))
    assert ended.code == 9, ended.err
    assert "the change never ran: no changed line ran on the measured path" in ended.err
    (reach,) = (home / "runs").glob("*-evidence-flux-tiny-*/*-ab-*/reach/reach.json")
    assert json.loads(reach.read_text())["lines"]["never"] == 2
    assert not list((home / "runs").glob("*/*-ab-*/*/launch-*")), "no pair was measured"
    assert not list((home / "runs").rglob("evidence.zip"))
    assert not list((home / "runs").rglob("campaign.json")), "without its checkouts none can go on"


def test_a_model_that_cannot_be_measured_costs_no_pair_of_another(invoke, home, sglang, tiny):
    checkout = sglang(factor=1.1)
    with tiny.open("a") as file:
        file.write(tiny.read_text().replace("[flux-tiny]", "[two]").replace('model = "', 'model = "/nowhere'))
    words = ["flux-tiny,two" if word == "flux-tiny" else word for word in measured(checkout, tiny, "--head", "change")]
    ended = invoke(*words)
    assert ended.code == 10, ended.err
    assert list((home / "runs").glob("*/*-ab-flux-tiny-*/reach/reach.json")), "the first can be measured"
    assert not list((home / "runs").glob("*/*-ab-*/*/launch-*")), "no pair was measured"
    assert not list((home / "runs").rglob("campaign.json")), "without its checkouts none can go on"


def test_an_interrupt_gives_advice_that_can_be_followed(home, sglang, tiny):
    checkout = sglang(hang_at=1, hang_in_launch=3)
    task = subprocess.Popen(
        invoke_command(*measured(checkout, tiny)),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_task(
        task, lambda: list((home / "runs").glob("*-evidence-flux-tiny-*/*-ab-*/*/launch-1")), "nothing was begun"
    )
    task.send_signal(signal.SIGINT)
    _, err = task.communicate(timeout=60)
    wait_until(lambda: not processes_like("session_worker.py", home / "runs"), "an engine is still there")
    assert task.returncode == 130
    assert "ab --resume" not in err
    assert "`invoke evidence` again" in err
    assert not list((home / "runs").rglob("campaign.json")), "without its checkouts none can go on"
    assert f"'source:{checkout}@under'" in err
    assert len(git(checkout, "worktree", "list").splitlines()) == 1


def test_the_texts_of_an_archive_of_an_earlier_workbench_are_not_judged(archive, invoke):
    def earlier(contents):
        subject = json.loads(contents["subject.json"])
        contents["subject.json"] = json.dumps(subject | {"schema_version": 1}).encode()
        contents["pull-request.md"] += b"as it was worded then\n"

    ended = invoke("evidence-check", edited(archive, earlier, consistent=True))
    assert ended.code == 0, ended.err
    told = "no record was edited; its texts are of an earlier workbench and were not judged"
    assert told in " ".join(ended.out.split())
