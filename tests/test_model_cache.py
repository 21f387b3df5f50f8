"""A model cache of a run's own: what is removed is what was made, and the ledger says what happened."""

import functools
import json
import os
import signal
import subprocess

import pytest
from helpers import ROOT, invoke_command, wait_for_task

from bench.errors import UsageError
from bench.models import private_cache

MARKER = private_cache.MARKER
UNFINISHED = "*/huggingface/hub/*/blobs/*.incomplete"


@pytest.fixture
def bench(bench, tmp_path):
    """Run `invoke bench` on an engine that downloads."""
    run = functools.partial(bench, download=1000)
    run.root = tmp_path / "caches"
    return run


def ledger(root):
    return [json.loads(line) for line in (root / private_cache.LEDGER).read_text().splitlines()]


def left_over(root):
    return sorted(path.name for path in root.iterdir() if path.name not in (MARKER, private_cache.LEDGER))


def test_a_runs_downloads_are_removed_and_said(bench):
    ended = bench("--model-cache-root", bench.root, "--cleanup-model-cache")
    assert ended.code == 0, ended.err
    assert left_over(bench.root) == []
    made, removing, removed = ledger(bench.root)
    assert (made["event"], made["bytes"]) == ("made", 0)
    assert (removing["event"], removing["weight_files"]) == ("removing", 1)
    assert removing["bytes"] > 1000
    assert (removed["event"], removed["exists"], removed["bytes"]) == ("removed", False, 0)


def test_without_cleanup_the_cache_stays(bench):
    assert bench("--model-cache-root", bench.root).code == 0
    (folder,) = left_over(bench.root)
    assert (bench.root / folder / "huggingface/hub/models--owner--model/blobs/weights.safetensors").exists()
    assert [line["event"] for line in ledger(bench.root)] == ["made", "kept"]


def test_a_failed_run_is_cleaned_up_too(bench):
    ended = bench("--model-cache-root", bench.root, "--cleanup-model-cache", log="cpu/awq_sglang.log")
    assert ended.code == 4
    assert left_over(bench.root) == []
    assert ledger(bench.root)[-1]["event"] == "removed"


@pytest.fixture
def downloading(bench, replay, model):
    """A run in mid-download that is to remove its cache at the end."""
    engine = replay(download=5000, lines=["loading"], linger_s=600, image=False)
    command = invoke_command(
        "bench", "--model", "flux-tiny", "--engine", engine, "--model-path", model(),
        "--model-cache-root", bench.root, "--cleanup-model-cache",
    )  # fmt: skip
    task = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for_task(task, lambda: list(bench.root.glob(UNFINISHED)), "the engine has not begun to download")
    return task


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_mid_download_leaves_the_ledger_true(bench, downloading, number):
    downloading.send_signal(number)
    _, said = downloading.communicate()
    assert downloading.returncode == 130, said
    assert "Traceback" not in said
    assert left_over(bench.root) == []
    _, removing, removed = ledger(bench.root)
    assert (removing["event"], removing["weight_files"], removing["exists"]) == ("removing", 1, True)
    assert (removed["event"], removed["exists"]) == ("removed", False)


def test_kill_9_leaves_a_ledger_that_claims_nothing(bench, downloading):
    downloading.kill()
    downloading.communicate()
    assert [line["event"] for line in ledger(bench.root)] == ["made"]
    assert len(left_over(bench.root)) == 1


def test_a_folder_that_was_not_made_here_is_refused_before_anything_starts(bench, home):
    bench.root.mkdir()
    (bench.root / "thesis.txt").write_text("years of work")
    ended = bench("--model-cache-root", bench.root, "--cleanup-model-cache")
    assert ended.code == 1
    assert "was not created by the workbench" in ended.err
    assert sorted(os.listdir(bench.root)) == ["thesis.txt"]
    assert not (home / "runs").exists()


@pytest.mark.parametrize("place", ["/", "~", str(ROOT)])
def test_a_broad_folder_is_refused(place):
    from pathlib import Path

    with pytest.raises(UsageError, match="such a general folder"):
        private_cache.prepare(Path(place), "x")


def swapped(cache):
    (cache.folder / MARKER).write_text("another word\n")


def unmarked(cache):
    (cache.folder / MARKER).unlink()


def linked(cache):
    other = cache.root.parent / "other"
    cache.folder.rename(other)
    cache.folder.symlink_to(other)


def no_root(cache):
    (cache.root / MARKER).unlink()


@pytest.mark.parametrize("change", [swapped, unmarked, linked, no_root])
def test_a_cleanup_pointed_at_what_it_did_not_make_refuses(tmp_path, change):
    cache = private_cache.prepare(tmp_path / "caches", "x")
    (cache.folder / "precious").write_text("x")
    change(cache)
    with pytest.raises(UsageError, match="nothing was removed"):
        private_cache.remove(cache)
    assert list(tmp_path.rglob("precious"))
    assert ledger(cache.root)[-1]["event"] == "refused"


def seed(tmp_path):
    hub = tmp_path / "seed" / "hub" / "models--owner--model"
    (hub / "blobs").mkdir(parents=True)
    (hub / "blobs" / "abc").write_bytes(b"weights")
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("rev")
    (hub / "snapshots" / "rev").mkdir(parents=True)
    (hub / "snapshots" / "rev" / "model.safetensors").symlink_to("../../blobs/abc")
    return tmp_path / "seed"


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_seed_is_read_and_never_changed(bench, tmp_path):
    source = seed(tmp_path)
    before = contents(source)
    cache = private_cache.prepare(bench.root, "x", [source])
    shown = cache.folder / "huggingface" / "hub" / "models--owner--model"
    assert (shown / "snapshots" / "rev" / "model.safetensors").read_bytes() == b"weights"
    (shown / "refs" / "main").write_text("newer")
    assert private_cache.stats(cache.folder)["weight_files"] == 0, "a seed's weights are not the run's download"
    private_cache.remove(cache)
    assert contents(source) == before


def test_a_seed_through_the_task_and_one_that_is_none(bench, tmp_path):
    ended = bench("--model-cache-root", bench.root, "--cleanup-model-cache", "--seed-model-cache-root", tmp_path / "no")
    assert ended.code == 1
    assert "not a Hugging Face cache" in ended.err
    assert not bench.root.exists()


def test_the_users_token_keeps_working(bench, tmp_path):
    hf = tmp_path / "hf"
    hf.mkdir()
    (hf / "token").write_text("hf_mine")
    ended = bench("--model-cache-root", bench.root, env={"HF_HOME": str(hf)})
    assert ended.code == 0, ended.err
    (seen,) = bench.root.rglob("token_seen")
    assert seen.read_text() == "hf_mine"
    assert "hf_mine" not in ended.out


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_cleanup_without_a_root_is_a_mistake(bench, more):
    ended = bench("--cleanup-model-cache", *more)
    assert ended.code == 1
    assert "--model-cache-root" in ended.err
