"""Faults of the red team's list that belong to no other file: docs/faults.md names each by its number."""

import json
import os
import re
import struct
import zlib

import pytest
from helpers import NATIVE, ROOT, record_of

from bench import paths
from bench.catalog import presets
from bench.fallback import media
from bench.models import checkpoint, identity

PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
NUMBERS = range(1, 34)
"""Those of the red team's list."""


def named():
    """Yield each test that the page names: its file, and its name or an empty one for the whole file."""
    for row in re.findall(r"^\| \d+ \|.*\| (.*) \|$", PAGE, re.MULTILINE):
        file = None
        for word in re.findall(r"[\w.]*\.py(?:::\w+)?|::\w+", row):
            file = word.partition("::")[0] or file
            yield file, word.partition("::")[2]


@pytest.mark.parametrize(("file", "name"), sorted(set(named())))
def test_a_test_that_the_page_names_is_there(file, name):
    source = (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert not name or f"def {name}(" in source


def test_every_number_has_its_test():
    assert {int(number) for number in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)} == set(NUMBERS)


def claims(path, width, height):
    """Write a PNG of a hundred bytes that says that it has this size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    )
    return path


# --- 17: pictures that claim to be huge -------------------------------------------------------------------------------


def test_an_image_that_claims_a_gigapixel_is_not_decoded(tmp_path):
    with pytest.raises(media.Undecodable, match="30000x30000: more than 256 megapixels"):
        media.look(claims(tmp_path / "a.png", 30_000, 30_000))


@pytest.mark.parametrize("limit", ["LARGEST_PIXELS", "MOST_PIXELS"])
def test_a_video_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch, limit):
    from replay_engine import mp4

    path = tmp_path / "a.mp4"
    mp4(path, 64, 64, 4)
    assert media.look(path).frames == 4
    monkeypatch.setattr(media, limit, 64 * 64 - 1)
    with pytest.raises(media.Undecodable, match="more than 0 "):
        media.look(path)


def test_an_input_image_that_claims_a_gigapixel_is_refused(invoke, replay, model, tmp_path):
    bomb = claims(tmp_path / "a.png", 30_000, 30_000)
    asked = ["--model", "firered-edit-1.0", "--engine", replay(**NATIVE), "--model-path", model()]
    ended = invoke("bench", *asked, "--image", bomb)
    assert ended.code == 1
    assert "not an image: Image size (900000000 pixels)" in ended.err
    ended = invoke("assets", "--own", f"cat.png={bomb}", env={"BENCH_ASSETS": str(tmp_path / "assets")})
    assert ended.code == 1
    assert "not an image" in ended.err
    assert not (tmp_path / "assets" / "cat.png").exists()


# --- 23: what is waited for -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--log", "--dump"])
def test_a_fifo_is_not_judged(invoke, tmp_path, option):
    fifo, log = tmp_path / "fifo", tmp_path / "engine.log"
    os.mkfifo(fifo)
    log.write_text("a line\n")
    words = ["--log", fifo] if option == "--log" else ["--log", log, "--dump", fifo]
    ended = invoke("attest", *words)
    assert ended.code != 0
    assert "not a regular file" in ended.out + ended.err


# --- 30: baselines ----------------------------------------------------------------------------------------------------


def test_no_baseline_is_written_through_a_link(invoke, bench, only_run, home, tmp_path):
    run = record_of(bench())["id"]
    other = tmp_path / "of_another"
    other.write_text('{"precious": "yes"}')
    (home / "runs" / "baselines.json").symlink_to(other)
    ended = invoke("baseline.set", home / "runs" / run)
    assert other.read_text() == '{"precious": "yes"}', ended.err
    assert ended.code == 0
    assert run in invoke("baseline.show").out


# --- 31 and 32: words that mean something else ------------------------------------------------------------------------


def test_a_word_that_belongs_to_no_flag_is_refused(bench, home):
    ended = bench("--", "foo")
    assert ended.code == 1
    assert "'foo' does not belong to any flag of the engine" in ended.err
    assert not (home / "runs").exists()


@pytest.mark.parametrize(("word", "on"), [("1", True), ("true", True), ("YES", True), ("0", False), ("banana", False)])
def test_what_the_engine_reads_as_true_is_recorded_as_on(bench, word, on):
    record = record_of(bench(env={"SGLANG_DIFFUSION_SYNC_STAGE_PROFILING": word}))
    assert record["instrument"]["stage_sync"] is on


def test_a_misspelt_metric_is_named(invoke, bench):
    bench()
    ended = invoke("history", "--model", "flux-tiny", "--metric", "denoize")
    assert ended.code == 1
    assert "did you mean --metric denoise?" in ended.err


def test_a_record_that_cannot_be_read_is_named_and_the_others_are_shown(invoke, bench, home):
    run = home / "runs" / record_of(bench())["id"]
    broken = home / "runs" / "20260101T000000Z-bench-broken-000000"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    ended = invoke("history", "--model", "flux-tiny")
    assert ended.code == 0
    assert run.name[-6:] in ended.out
    assert f"left out: {broken / 'run.json'}" in ended.err.replace("\n", "")


# --- 33: what a failed preflight leaves -------------------------------------------------------------------------------


def test_a_comparison_that_cannot_start_leaves_no_folder(invoke, replay, model, home):
    asked = ["--model", "flux-tiny", "--engine", replay(**NATIVE), "--baseline", f"model-path={model()}"]
    ended = invoke("ab", *asked, "--candidate", "model-path=/nowhere", "--pairs", "2")
    assert ended.code != 0
    assert not list((home / "runs").glob("*")), ended.err


@pytest.mark.parametrize("cut", [True, False])
def test_a_cached_checkpoint_that_was_cut_to_half_is_named(invoke, replay, cut):
    preset = presets.get("flux-tiny")
    folder = checkpoint.cached_path(preset.checkpoint, preset.model)
    folder.mkdir(parents=True)
    weights = folder / "a.safetensors"
    weights.write_bytes((2).to_bytes(8, "little") + b"{}" + bytes(100))
    outline = identity.of_folder(folder, without=checkpoint.MANIFEST)
    (folder / checkpoint.MANIFEST).write_text(json.dumps({"sha256": "0" * 64, "outline_sha256": outline}))
    if cut:
        os.truncate(weights, 50)
    ended = invoke("bench", "--model", "flux-tiny", "--engine", replay(**NATIVE))
    assert ("was damaged or edited" in ended.err) is cut
    assert ended.code == cut, ended.err


# --- what costs itself alone ------------------------------------------------------------------------------------------


def test_an_output_that_cannot_be_read_costs_a_run_its_verdict_and_not_its_record(invoke, bench, only_run, monkeypatch):
    """The disk fails, or somebody clears up, between the run's end and the reading."""
    hashed = paths.sha256

    def vanishes(path):
        if path.suffix == ".png":
            raise PermissionError(13, "Permission denied", str(path))
        return hashed(path)

    monkeypatch.setattr(paths, "sha256", vanishes)
    ended = bench()
    assert ended.code == 3, ended.err
    record = json.loads((only_run() / "run.json").read_text())
    assert "output.broken" in {finding["id"] for finding in record["verdict"]["findings"]}
    (output,) = record["launches"][0]["rejected"]["outputs"]
    assert (output["sha256"], output["size_bytes"]) == (None, None)
    assert invoke("validate", only_run()).code == 0


def test_a_record_whose_requests_lack_a_metric_is_judged(invoke, bench, only_run):
    bench()
    record = json.loads((only_run() / "run.json").read_text())
    del record["requests"][0]["metrics"]["step_median_ms"]
    (only_run() / "run.json").write_text(json.dumps(record))
    ended = invoke("compare", only_run(), only_run())
    assert ended.code == 5
    assert "timings.metrics does not follow from the requests" in ended.err
