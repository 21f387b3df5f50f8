"""The run record: its types are its schema, version 1 is read, and one place says what is comparable."""

import json
import typing
from pathlib import Path

import pytest
from helpers import ROOT

from bench import schema
from bench.catalog import qualities
from bench.errors import UsageError
from bench.models import checkpoint, identity
from bench.record import comparable, names, store, types

SCHEMA = json.loads((ROOT / "schemas" / "run-record.json").read_text())
EVIDENCE = sorted((ROOT / "docs" / "evidence").rglob("run.json"))
OLD = [path for path in EVIDENCE if json.loads(path.read_text())["schema_version"] == 1]
ITEMS = SCHEMA["properties"]
TYPES = (
    (types.Record, SCHEMA),
    (types.Launch, ITEMS["launches"]["items"]),
    (types.Request, ITEMS["requests"]["items"]),
    (types.Workload, ITEMS["workload"]),
    (types.Host, ITEMS["host"]),
    (types.Timings, ITEMS["timings"]),
    (types.StageTable, ITEMS["stages"]),
    (types.Instrument, SCHEMA["$defs"]["instrument"]),
    (types.Output, SCHEMA["$defs"]["output"]),
    (types.File, SCHEMA["$defs"]["file"]),
)


@pytest.mark.parametrize(("kind", "part"), TYPES, ids=[kind.__name__ for kind, _ in TYPES])
def test_a_type_has_the_fields_of_its_schema_and_each_is_required(kind, part):
    assert set(typing.get_type_hints(kind)) == set(part["properties"]) == set(part["required"])


@pytest.mark.parametrize("path", OLD, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_record_of_version_1_is_read_in_the_present_shape(path):
    before = path.read_bytes()
    record = store.read(path)
    assert schema.violations(record, "run-record") == []
    assert (record["schema_version"], record["methodology"]) == (2, 1)
    assert record["instrument"]["stage_sync"] is json.loads(before)["workload"]["sync_stages"]
    assert path.read_bytes() == before


@pytest.fixture(name="record")
def _record():
    return store.read(ROOT / "docs" / "evidence" / "eager" / "run.json")


def changed(record, place, value):
    other = json.loads(json.dumps(record))
    *path, last = place.split(".")
    inner = other
    for name in path:
        inner = inner[name]
    inner[last] = value
    return other


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        ("methodology", 2, "methodology: 1 against 2"),
        ("instrument.stage_sync", False, "synchronised stages: on against off"),
        ("instrument.profiler", True, "profiler: off against on"),
        ("workload.quality_meaning", "exact", "meaning of the quality: None against 'exact'"),
        ("workload.steps", 3, "steps"),
    ],
)
def test_what_is_not_comparable_is_named(record, place, value, told):
    (line,) = comparable.differences(record, changed(record, place, value))
    assert line.startswith(told)
    assert comparable.differences(record, record) == []


def test_a_cell_is_of_one_version_and_machine_and_a_family_of_neither(record):
    places = (("engine.version", "9.9.9"), ("host.identity", "0" * 64), ("code", {"sha256": "1"}), ("host.cores", 999))
    for place, value in places:
        other = changed(record, place, value)
        assert comparable.cell(other) != comparable.cell(record)
        assert comparable.family(other) == comparable.family(record)
    assert comparable.family(changed(record, "workload.steps", 3)) != comparable.family(record)
    assert comparable.same_machine(record, record) is None, "version 1 does not name the host"


@pytest.mark.parametrize(
    ("version", "quality", "meaning"),
    [
        ("0.5.17", None, "exact"),
        ("0.5.23", None, "rounding"),
        ("0.5.23", "exact", "exact"),
        ("0.5.23", "extra-high", "rounding"),
        ("0.5.23", "high", "approximate"),
        ("0.5.17", "exact", None),
        ("0.5.10.post1", None, "exact"),
        ("0.5.19", None, "exact"),
        ("0.5.21", None, "exact"),
        ("0.5.20", "extra-high", "rounding"),
        ("0.5.21", "extra-high", "rounding"),
        ("0.5.22", None, "rounding"),
        ("0.5.15", "lossless", None),
        ("0.5.24", None, None),
    ],
)
def test_a_quality_means_what_its_version_says(version, quality, meaning):
    assert qualities.meaning(version, quality) == meaning


# --- what a run is called ---------------------------------------------------------------------------------------------


def _named_runs(root):
    """Make three finished runs and one that is going on."""
    made = []
    for place, (label, file) in enumerate([("before", "run.json"), (None, "run.json"), ("my run!", "run.json")]):
        name = "-".join(filter(None, ("flux-tiny", label and store.safe(label))))
        folder = root / f"2026112{place}T100000Z-bench-{name}-00000{place}"
        folder.mkdir(parents=True)
        (folder / file).write_text(json.dumps({"label": label}))
        made.append(folder)
    going = root / "20261129T100000Z-bench-flux-tiny-0000ff"
    going.mkdir()
    (root / "last-notes.txt").touch()
    return made


@pytest.mark.parametrize(
    ("word", "place"),
    [("last", 2), ("last~1", 1), ("last~2", 0), ("before", 0), ("my run!", 2), ("000001", 1)],
)
def test_a_run_is_known_by_its_names(tmp_path, word, place):
    made = _named_runs(tmp_path)
    assert names.resolve(Path(word), root=tmp_path) == made[place]


@pytest.mark.parametrize(
    ("place", "document"),
    [
        ("load.json", {"label": "mine"}),
        ("load-comparison.json", {"label": "mine"}),
        ("accuracy.json", {"label": "mine"}),
        ("baseline/run.json", {"label": "mine"}),
        ("campaign.json", {"schema": "campaign", "asked": {"options": {"label": "mine"}}}),
        ("campaign.json", {"schema": "campaign", "asked": {"options": {"run": {"label": "mine"}}}}),
        ("campaign.json", {"schema": "campaign", "asked": {"run": {"label": "mine"}}}),
    ],
)
def test_whatever_was_measured_is_known_by_its_label(tmp_path, place, document):
    folder = tmp_path / "20261130T033859Z-load-flux-tiny-mine-a61ca2"
    (folder / place).parent.mkdir(parents=True)
    (folder / place).write_text(json.dumps(document))
    assert names.resolve(Path("mine"), (place,), tmp_path) == folder
    with pytest.raises(UsageError, match="no run is called"):
        names.resolve(Path("tiny-mine"), (place,), tmp_path)


def _campaign(kind):
    asked = {"options": {"label": "mine"}}
    return {"schema": "campaign", "schema_version": 1, "kind": kind, "id": "x", "asked": asked, "finished": []}


@pytest.mark.parametrize("word", ["a61ca2", "mine"])
@pytest.mark.parametrize(
    ("held", "document", "says", "todo"),
    [
        ("campaign.json", _campaign("ab"), "an A/B that was cut off", "`invoke ab --resume a61ca2` goes on with it"),
        (
            "campaign.json",
            _campaign("batch"),
            "a batch of several presets that was cut off",
            "`invoke bench --resume a61ca2` goes",
        ),
        ("comparison.json", {"label": "mine"}, "an A/B", "`invoke compare a61ca2` alone shows its verdict"),
        ("load.json", {"label": "mine"}, "a load test", "`invoke report a61ca2` writes its page"),
        (
            "matrix.json",
            {"cells": [{"name": "lossless-eager", "record": "x"}]},
            "a matrix",
            "mine-a61ca2/lossless-eager",
        ),
        (
            "summary.json",
            {"rows": [{"record": "x/2-bench-0000ff/run.json"}]},
            "a batch of several presets",
            "2-bench-0000ff",
        ),
        ("probe.json", {}, "a probe of a device", "`invoke validate a61ca2` checks it"),
    ],
)
def test_a_name_of_another_kind_of_record_says_which_and_what_takes_it(home, word, held, document, says, todo):
    folder = home / "runs" / "20261130T033859Z-x-flux-tiny-mine-a61ca2"
    (folder / "arm").mkdir(parents=True)
    (folder / held).write_text(json.dumps(document))
    if held != "campaign.json":
        (folder / "arm" / "run.json").write_text(json.dumps({"label": "mine"}))
    for called in (word, str(folder), *([] if held == "campaign.json" else [str(folder / held)])):
        with pytest.raises(UsageError) as error:
            names.resolve(Path(called), ("run.json",))
        assert error.value.what == f"this is {says}"
        assert todo in error.value.todo
        assert error.value.where == str(folder)


def test_a_run_inside_a_sweep_is_known_by_its_six_digits(tmp_path):
    run = tmp_path / "sweep-mine" / "cells" / "f00" / "1" / "runs" / "20261130T033859Z-bench-flux-tiny-a61ca2"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    assert names.resolve(Path("a61ca2"), root=tmp_path) == run
    with pytest.raises(UsageError, match="no run is called"):
        names.resolve(Path("a61ca3"), root=tmp_path)


@pytest.mark.parametrize("word", ["last~3", "tiny", "flux-tiny", "0000ff", "000009", "nothing", "last~", "~1"])
def test_a_name_of_no_run_is_refused_with_the_ways_to_name_one(tmp_path, word):
    _named_runs(tmp_path)
    with pytest.raises(UsageError, match=r"too far back|no run is called") as error:
        names.resolve(Path(word), root=tmp_path)
    assert error.value.todo


def test_a_place_stays_what_it_is(tmp_path):
    assert names.resolve(tmp_path, root=tmp_path / "none") == tmp_path
    assert names.resolve(Path("no/such"), root=tmp_path) == Path("no/such")


def test_the_weights_of_a_folder_are_told_apart_by_what_they_hold(tmp_path):
    def model(name, header=b"{}", config="{}"):
        folder = tmp_path / name / "vae"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(config)
        (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
        return identity.of_model(str(tmp_path / name), {})

    known = model("a")
    assert known == model("b"), "the folder's name is not part of it"
    assert len({known, model("c", header=b'{"w": 1}'), model("d", config='{"auto_map": 1}')}) == 3
    assert identity.of_model("owner/not-here", {"HF_HUB_CACHE": str(tmp_path)}) is None


@pytest.mark.parametrize("large", [False, True])
def test_a_synthetic_checkpoint_edited_under_its_manifest_is_another(tmp_path, monkeypatch, large):
    vae = tmp_path / "tiny" / "vae"
    vae.mkdir(parents=True)
    (vae / "config.json").write_text("{}")
    made = {
        "sha256": checkpoint.sha256(tmp_path / "tiny"),
        "outline_sha256": identity.of_folder(tmp_path / "tiny", without=checkpoint.MANIFEST),
    }
    (tmp_path / "tiny" / checkpoint.MANIFEST).write_text(json.dumps(made))
    if large:
        monkeypatch.setattr(checkpoint, "LARGEST_HASHED_BYTES", 0)
    assert checkpoint.content_sha256(tmp_path / "tiny", made) == made["sha256"]
    (vae / "config.json").write_text('{"auto_map": 1}')
    assert checkpoint.content_sha256(tmp_path / "tiny", made) not in (None, made["sha256"])


def _comparable_with(**changes):
    record = {
        "weights": {"kind": "real", "sha256": "a", "model": "m"},
        "launches": [{"delivered": {"infer_steps": 4, "guidance_scale": 3.5}}],
        "devices": {"kind": "cpu", "items": []},
        "host": {"cpu": "X", "cores": 2},
        "workload": dict.fromkeys(
            ("width", "height", "frames", "steps", "seed", "warmup", "quality", "quality_meaning", "image")
        )
        | {"gpus": 1},
        "methodology": 2,
        "instrument": {"stage_sync": False, "profiler": False},
        "preset": {"sha256": "p"},
    }
    return record | changes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weights": {"kind": "real", "sha256": "b", "model": "m"}}, "weights: m (a) against m (b)"),
        ({"weights": {"kind": "real", "sha256": None, "model": "n"}}, "weights: m (a) against n (no hash)"),
        ({"launches": [{"delivered": {"infer_steps": 2}}]}, "steps, as delivered: 4 against 2"),
        ({"launches": [{"delivered": {"guidance_scale": 5.0}}]}, "guidance, as delivered: 3.5 against 5.0"),
        ({"host": {"cpu": "X", "cores": 64}}, "CPU cores: 2 against 64"),
        ({"workload": _comparable_with()["workload"] | {"image": {"name": "x", "sha256": "1"}}}, "input image"),
    ],
)
def test_what_was_delivered_has_to_agree(changes, says):
    assert comparable.differences(_comparable_with(), _comparable_with()) == []
    (line,) = comparable.differences(_comparable_with(), _comparable_with(**changes))
    assert says in line
