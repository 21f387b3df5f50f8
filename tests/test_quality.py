"""Quality beside speed, through the real entry points on replay engines: bench, ab and compare with --require."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import DATA, LOGS, NATIVE
from replay_engine import mp4

from bench import schema
from bench.fallback import media
from bench.fidelity import frames


@pytest.fixture
def presets(home, model):
    """Presets of the replay engines' own, so that nothing needs a checkpoint: an image and a video."""
    path = home / "mine.toml"
    common = 'prompt = "p"\nseed = 1\nwidth = 256\nheight = 256\nsteps = 4\n'
    folder = model()
    path.write_text(
        f'[picture]\ndescription = "replayed"\nmodel = "{folder}"\nmodality = "image"\n{common}'
        f'[other]\ndescription = "replayed"\nmodel = "{folder}"\nmodality = "image"\n{common}'
        f'[film]\ndescription = "replayed"\nmodel = "{folder}"\nmodality = "video"\nframes = 20\n{common}'
    )
    return path


@pytest.fixture
def bench(invoke, replay, presets, model, home, monkeypatch):
    """Run `invoke bench` on an engine made (or changed) by the scenario; return how it ended and its record."""
    monkeypatch.setenv("BENCH_GOLDENS", str(home / "goldens"))

    def run(*arguments, engine="replay", preset="picture", repeats=2, **scenario):
        settings = home / "environments" / f"engine-{engine}" / "replay.json"
        if not settings.exists():
            replay(name=engine, **NATIVE)
        settings.write_text(
            json.dumps({"log": str(LOGS / NATIVE["log"]), "dump": str(LOGS / NATIVE["dump"]), **scenario})
        )
        made = ["--model-path", home / "models" / "FLUX.1-dev-tiny"] if preset == "picture" else []
        before = set(home.glob("runs/*/run.json"))
        ended = invoke(
            "bench", "--model", preset, "--preset-file", presets, "--engine", engine, "--repeats", repeats, *made,
            *arguments,
        )  # fmt: skip
        new = set(home.glob("runs/*/run.json")) - before
        record = json.loads(new.pop().read_text()) if new else None
        if record is not None:
            assert schema.violations(record, "run-record") == []
        return ended, record

    return run


@pytest.fixture
def folder(home):
    """Return the run directory of a record."""
    return lambda record: home / "runs" / record["id"]


# --- what cannot be required ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [["bench"], ["ab"], ["compare", "a", "b"]])
def test_a_threshold_that_does_not_exist_is_said_with_those_that_do(invoke, home, verb):
    ended = invoke(*verb, "--require", "losless")
    assert ended.code == 1
    assert "did you mean lossless?" in ended.err
    assert not (home / "runs").exists()


def test_a_matrix_compares_its_own_cells_and_takes_no_threshold(invoke, home):
    ended = invoke("bench", "--model", "flux-tiny", "--matrix", "quality", "--require", "high")
    assert ended.code == 1
    assert "leave --check-accuracy, --require and --update-golden out" in ended.err
    assert not (home / "runs").exists()


def test_a_golden_without_a_reason_is_refused_before_anything_runs(bench, home):
    ended, _ = bench("--update-golden", " ")
    assert ended.code == 1
    assert "updating a golden needs a reason" in ended.err
    assert not (home / "runs").exists()


@pytest.mark.parametrize("preset", ["picture", "other,film"])
def test_a_threshold_without_anything_to_compare_with_is_refused_before_anything_runs(bench, home, preset):
    ended, _ = bench("--require", "lossless", preset=preset)
    assert ended.code == 1
    assert "with a golden or a baseline, and there is neither" in ended.err
    assert "`invoke baseline.set last`" in ended.err
    assert not (home / "runs").exists()


def test_another_configurations_baseline_is_nothing_to_compare_with(bench, baseline):
    baseline()
    ended, record = bench("--require", "lossless", "--steps", "5")
    assert (ended.code, record) == (1, None), "refused before anything runs"
    assert "with a golden or the baseline of this workload, and there is neither" in ended.err


def test_another_configurations_golden_is_nothing_to_compare_with(bench):
    assert bench("--update-golden", "first")[0].code == 0
    ended, record = bench("--require", "lossless", "--steps", "5")
    assert ended.code == 7
    assert "nothing to compare with: golden: none for this configuration; baseline: no baseline is named" in ended.err
    assert record["complete"]
    assert (record["fidelity"]["required"], record["fidelity"]["met"]) == ("lossless", False)
    assert record["timings"]["metrics"]["denoise_ms"] == 250.0, "the number is there; it is the gate that is missed"
    assert "required lossless: MISSED" in ended.out


def test_a_fallback_is_not_scored(bench, baseline):
    baseline()
    ended, record = bench("--require", "high", fall_back_at=1)
    assert ended.code == 4
    assert record["fidelity"] is None


def test_without_being_asked_nothing_is_scored(bench):
    assert bench()[1]["fidelity"] is None


# --- against the baseline ---------------------------------------------------------------------------------------------


@pytest.fixture
def baseline(bench, invoke, folder):
    """Make the record of an engine the baseline."""

    def make(**scenario):
        ended, record = bench(**scenario)
        assert ended.code == 0, ended.err
        assert invoke("baseline.set", folder(record)).code == 0
        return record

    return make


@pytest.mark.parametrize(
    ("shift", "require", "code", "says"),
    [
        (0, "lossless", 0, "required lossless: met"),
        (2, "lossless", 7, "against the baseline: the pixels differ, by up to 2 of 255 levels"),
        (2, "high", 0, "required high: met"),
        (90, "high", 7, "against the baseline: SSIM 0."),
    ],
)
def test_outputs_are_held_against_the_baselines(bench, baseline, shift, require, code, says):
    first = baseline()
    ended, record = bench("--require", require, shift=shift)
    assert ended.code == code, ended.err
    assert says in " ".join(f"{ended.out} {ended.err}".split())
    between = record["fidelity"]["baseline"]["between"]
    assert record["fidelity"]["baseline"]["record"] == first["id"]
    assert between["identical"] is (shift == 0)
    assert (between["likeness"] is None) is (shift == 0)


def test_the_figures_against_the_baseline_are_those_of_their_formulas(bench, baseline):
    """Red is 3 levels off where it is not clipped: PSNR from the definition, over all channels."""
    baseline()
    _, record = bench("--check-accuracy", shift=3)
    red = np.fromfunction(lambda y, x: (x + y) * 7 % 256, (256, 256))
    mse = np.square(np.minimum(255, red + 3) - red).sum() / (256 * 256 * 3)
    likeness = record["fidelity"]["baseline"]["between"]["likeness"]
    assert likeness["psnr_db"] == pytest.approx(10 * np.log10(255**2 / mse))
    assert (likeness["frames"], likeness["max_levels"]) == (1, 3)
    assert record["fidelity"]["met"] is None, "nothing was required"


def test_a_baseline_whose_outputs_are_gone_gives_no_number(bench, baseline, folder):
    record = baseline()
    for output in folder(record).rglob("output.png"):
        output.unlink()
    ended, record = bench("--require", "high", shift=2)
    assert ended.code == 7
    assert "an output of the baseline is missing" in ended.err
    between = record["fidelity"]["baseline"]["between"]
    assert (between["likeness"], between["alike"], between["identical"]) == (None, None, False)
    ended, record = bench("--require", "lossless", shift=2)
    assert ended.code == 7
    assert "the pixels differ by an unknown amount" in ended.err
    ended, record = bench("--require", "lossless")
    assert ended.code == 7, "equal hashes in both records cannot be checked any more"
    assert record["fidelity"]["baseline"]["between"]["identical"] is None


def test_an_output_that_was_changed_since_is_no_witness(bench, baseline, folder):
    record = baseline()
    for output in folder(record).rglob("output.png"):
        shutil.copy(DATA.parent.parent / "tests" / "helpers.py", output)
    ended, _ = bench("--require", "high", shift=2)
    assert ended.code == 7
    assert "request-001/outputs/output.png was changed: its hash differs" in ended.err


def test_a_baseline_that_is_gone_is_said(bench, baseline, folder):
    record = baseline()
    shutil.rmtree(folder(record))
    ended, record = bench("--require", "high")
    assert ended.code == 7
    assert "the named baseline cannot be read" in record["fidelity"]["baseline"]["unknown"]


def test_requests_of_one_run_that_differ_are_told(bench):
    ended, record = bench("--check-accuracy", shift_each=5)
    assert ended.code == 0, ended.err
    assert record["fidelity"]["identical"] is False
    assert "NOT identical in the 2 requests" in ended.out


def test_the_worst_of_several_outputs_decides(bench, baseline):
    """The first request that counts is as the baseline's, the second is not."""
    baseline(repeats=1, shift=90)
    ended, record = bench("--require", "high", shift_each=45, repeats=2)
    assert ended.code == 7
    assert record["fidelity"]["baseline"]["between"]["pairs"] == 2


def test_asked_and_delivered_stand_side_by_side(bench):
    _, record = bench("--check-accuracy", "--steps", "4")
    rows = {row["name"]: row for row in record["fidelity"]["delivered"]}
    assert {name: (row["asked"], row["delivered"], row["agrees"]) for name, row in rows.items()} == {
        "width": (256, 256, True),
        "height": (256, 256, True),
        "frames": (None, 1, None),
        "steps": (4, 4, True),
    }


def test_a_run_that_was_cut_off_is_scored_when_it_is_taken_up(bench, invoke, home, baseline):
    baseline()
    ended, _ = bench("--require", "lossless", repeats=4, die_at=4, shift=2)
    assert ended.code == 3
    partial = next(home.glob("runs/*/run.partial.json"))
    settings = home / "environments" / "engine-replay" / "replay.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"die_at": None}))
    ended = invoke("bench", "--resume", partial.parent)
    assert ended.code == 7, ended.err
    assert "not lossless: against the baseline: the pixels differ" in ended.err


def test_of_several_presets_one_that_misses_its_gate_is_not_lost(bench, baseline):
    baseline()
    ended, _ = bench("--require", "high", preset="other,film", repeats=2)
    assert ended.code == 7, ended.err
    assert "of 2 presets miss what was required" in ended.err
    assert "nothing to compare with" in " ".join(ended.out.split())


# --- golden of a benchmark --------------------------------------------------------------------------------------------


def test_a_golden_of_a_benchmark_is_met_by_the_same_and_by_nothing_else(bench):
    ended, record = bench("--update-golden", "first, looked at")
    assert ended.code == 0, ended.err
    assert (record["fidelity"]["golden"]["status"], record["fidelity"]["golden"]["stored"]) == ("none", 1)
    ended, record = bench("--require", "lossless")
    assert (ended.code, record["fidelity"]["golden"]["status"]) == (0, "equal")
    ended, record = bench("--require", "lossless", shift=1)
    assert (ended.code, record["fidelity"]["golden"]["status"]) == (7, "different")
    assert "not lossless: against golden 1: the pixels differ, by up to 1 of 255 levels" in ended.err


@pytest.mark.parametrize(
    ("arguments", "differs"),
    [
        (["--seed", "9"], "seed 1, here 9"),
        (["--", "--vae-tiling=true"], "launch only here: --vae-tiling=true"),
    ],
)
def test_another_configuration_has_no_golden(bench, arguments, differs):
    bench("--update-golden", "first")
    _, record = bench("--check-accuracy", *arguments)
    golden = record["fidelity"]["golden"]
    assert (golden["status"], golden["picture"]) == ("none", None)
    assert golden["differs"] == [differs]


def test_no_golden_is_made_of_outputs_that_do_not_agree(bench, home):
    ended, record = bench("--update-golden", "looks fine", shift_each=1)
    assert ended.code == 7
    assert "a golden requires identical outputs" in ended.err
    assert record["complete"]
    assert not list(home.glob("goldens/**/golden.json"))


def test_a_broken_golden_is_an_error_and_the_record_is_there(bench, home):
    bench("--update-golden", "first")
    next(home.glob("goldens/**/picture.npz")).write_bytes(b"PK")
    ended, record = bench("--check-accuracy")
    assert ended.code == 1
    assert "the golden's picture cannot be read" in ended.err
    assert record["complete"]
    assert "cannot be read" in record["fidelity"]["golden_unknown"]


# --- compare and ab ---------------------------------------------------------------------------------------------------


def test_compare_shows_quality_beside_speed(bench, invoke, folder):
    _, before = bench()
    _, after = bench(shift=2)
    ended = invoke("compare", folder(before), folder(after), "--markdown", "--require", "high")
    assert ended.code == 9, ended.err
    assert f"| pixels | {before['requests'][0]['outputs'][0]['pixels_sha256'][:12]} |" in ended.out
    assert "- outputs: PSNR 4" in ended.out
    assert "- required high: met" in ended.out
    ended = invoke("compare", folder(before), folder(after), "--json", "--require", "lossless")
    assert ended.code == 7
    assert "not lossless: the pixels differ, by up to 2 of 255 levels" in ended.err
    compared = json.loads(ended.out)[0]
    assert compared["quality"]["between"]["alike"] is False


def test_compare_without_outputs_says_so_and_is_no_pass(bench, invoke, folder):
    _, before = bench()
    _, after = bench(shift=2)
    shutil.rmtree(next(folder(after).rglob("request-001")))
    ended = invoke("compare", folder(before), folder(after), "--require", "high")
    assert ended.code == 7
    assert "an output of the candidate is missing" in ended.err
    assert "the pixels differ, by an unknown amount" in " ".join(ended.out.split())
    assert "PSNR" not in ended.out


def test_two_bare_dumps_have_no_outputs(invoke, home):
    paths = []
    for name in ("a", "b"):
        paths.append(home / f"{name}.json")
        dump = json.loads((LOGS / "cpu/native_0.5.17.json").read_text())
        paths[-1].write_text(json.dumps(dump | {"total_duration_ms": dump["total_duration_ms"] + len(paths)}))
    ended = invoke("compare", *paths)
    assert "outputs: not compared: a bare perf dump has no outputs" in ended.out
    ended = invoke("compare", *paths, "--require", "high")
    assert ended.code == 7
    assert "not high: the outputs cannot be compared: a bare perf dump has no outputs" in ended.err


@pytest.fixture
def ab(invoke, replay, presets, home):
    def run(*arguments, candidate="", preset="picture", words="new", **scenario):
        replay(name="old", **NATIVE, within=0.005)
        replay(name="new", **NATIVE, within=0.005, seed=7, **scenario)
        ended = invoke(
            "ab", "--model", preset, "--preset-file", presets, "--baseline", "old", "--candidate", words,
            "--metric", "denoise", "--repeats", "2", *arguments,
        )  # fmt: skip
        document = json.loads(next(home.glob("runs/*-ab-*/comparison.json")).read_text())
        assert schema.violations(document, "ab-record") == []
        return ended, document

    return run


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--require", "high"], 7)])
def test_faster_but_different_is_said_in_words(ab, arguments, code):
    ended, document = ab(*arguments, factor=0.8, shift=90)
    assert ended.code == code, ended.err
    assert document["comparison"]["verdict"] == "faster"
    assert document["quality"]["different"] is True
    said = " ".join(ended.out.split())
    assert "FASTER BUT DIFFERENT: the outputs are not alike by the threshold high: SSIM 0." in said
    assert re.search(r"; NOT alike by the threshold high \(.*?\): SSIM 0\.", said)
    if code:
        assert "not high: SSIM 0." in ended.err


def test_faster_and_the_same_is_just_faster(ab):
    ended, document = ab("--require", "lossless", factor=0.8)
    assert ended.code == 0, ended.err
    assert document["quality"]["between"]["identical"] is True
    assert "FASTER BUT" not in ended.out
    assert "every pixel equal" in ended.out


def test_faster_and_nearly_the_same_is_different_only_where_that_is_required(ab):
    ended, document = ab("--require", "lossless", factor=0.8, shift=1)
    assert ended.code == 7
    assert document["quality"]["different"] is True
    assert "FASTER BUT DIFFERENT" in ended.out


def test_fewer_steps_are_faster_and_their_outputs_are_held_against_each_other(ab):
    ended, document = ab(words="new steps=2", shift=90)
    assert ended.code == 0, ended.err
    assert document["differences"] == ["steps: 4 against 2"]
    assert "FASTER BUT DIFFERENT" in ended.out


def test_outputs_of_another_seed_are_never_compared(ab):
    ended, document = ab("--require", "high", words="new seed=2", factor=0.8)
    assert ended.code == 7
    assert "the outputs cannot be compared: the requests differ: seed: 1 against 2" in ended.err
    assert document["quality"]["between"]["likeness"] is None
    assert document["quality"]["between"]["alike"] is None
    assert document["quality"]["different"] is False


# --- videos -----------------------------------------------------------------------------------------------------------


def test_a_video_is_compared_frame_by_frame_and_its_worst_frame_counts(bench, baseline):
    """One frame of twenty is far off: the whole stays above 24 dB and 0.92, that frame does not."""
    baseline(preset="film")
    ended, record = bench("--require", "high", preset="film", shifts=[[7, 90]])
    likeness = record["fidelity"]["baseline"]["between"]["likeness"]
    assert (likeness["frames"], likeness["worst_frame"]) == (20, 8)
    assert likeness["psnr_db"] > 24 > likeness["worst_psnr_db"]
    assert ended.code == 7
    assert "in the worst frame" in ended.err
    assert bench("--require", "lossless", preset="film")[0].code == 0


def test_a_video_has_looser_figures_than_an_image(bench, baseline):
    """25 dB in every frame: below the 28 of images, above the 24 of videos."""
    baseline(preset="film")
    ended, record = bench("--require", "high", preset="film", shifts=[[n, 26] for n in range(20)])
    between = record["fidelity"]["baseline"]["between"]
    assert 24 < between["likeness"]["worst_psnr_db"] < 28, between
    assert ended.code == 0, ended.err


def test_a_video_is_a_witness_like_an_image(bench):
    _, record = bench(preset="film")
    output = record["requests"][0]["outputs"][0]
    assert (output["format"], output["width"], output["height"], output["frames"]) == ("h264", 256, 256, 20)
    assert output["pixels_sha256"]
    assert (output["one_colour"], output["fault"]) == (False, None)


def test_a_video_that_does_not_decode_is_no_output(bench):
    ended, record = bench(preset="film", cut_output=True)
    assert ended.code == 3
    assert record["timings"] is None
    assert any(finding["id"] == "output.broken" for finding in record["verdict"]["findings"])


def test_a_video_with_other_frames_is_degraded(bench):
    ended, record = bench(preset="film", frames=17)
    assert record["verdict"]["outcome"] == "degraded", ended.err
    assert "17 frames, asked for 20" in json.dumps(record["verdict"]["findings"])


def test_frames_of_other_numbers_and_kinds_are_faults(tmp_path):
    long, short = tmp_path / "a.mp4", tmp_path / "b.mp4"
    mp4(long, 32, 32, 5)
    mp4(short, 32, 32, 3)
    assert frames.compare(long, short).fault == "frames differ: native has 5, reference has 3"
    assert frames.compare(short, long).fault == "frames differ: native has 3, reference has 5"
    text = tmp_path / "c.png"
    text.write_text("no picture")
    assert "cannot identify image file" in frames.compare(text, text).fault
    assert "one is a video, the other is not" in frames.compare(long, text).fault
    (tmp_path / "d.wav").write_bytes(b"RIFF")
    with pytest.raises(media.Undecodable, match=r"no pixels to compare in a \.wav"):
        list(media.frames(tmp_path / "d.wav"))


def test_the_report_shows_quality_beside_the_number(bench, baseline):
    baseline()
    ended, _ = bench("--check-accuracy")
    lines = [line for line in ended.out.splitlines() if line.startswith(("quality:", "golden:", "baseline:", "deliv"))]
    assert [line.partition(":")[0] for line in lines] == ["quality", "golden", "baseline", "delivered as asked"]
    assert "identical in all 2 requests" in lines[0]
    assert "every pixel equal" in " ".join(ended.out.split())
    assert Path(ended.out.splitlines()[-1].removeprefix("record: ")).is_file()
