import errno
import json
import os

import jsonschema
import pytest
from helpers import DATA, LOGS, ROOT
from hypothesis import given
from hypothesis import strategies as st

from bench import schema
from bench.errors import InvalidDocument, UsageError
from bench.record import store

GOOD = sorted(LOGS.rglob("*.json"))
BAD = sorted((DATA / "dumps" / "bad").glob("*.json"))


@pytest.mark.parametrize("path", sorted((ROOT / "schemas").glob("*.json")), ids=lambda path: path.stem)
def test_a_schema_is_valid_and_has_its_name(path):
    content = json.loads(path.read_text())
    jsonschema.Draft202012Validator.check_schema(content)
    name = path.stem.removesuffix("-1")
    earlier = path.with_name(f"{path.stem}-1.json").exists()
    assert content["title"] == name
    assert content["$id"] == f"urn:sglang-diffusion-workbench:{name}:{2 if earlier else 1}"


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_dumps_that_engines_wrote_are_valid(invoke, path):
    ended = invoke("validate", path)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"{path}: valid perf-dump\n"


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_dump_is_refused_with_value_rule_and_file(path):
    from bench.record import documents

    with pytest.raises((InvalidDocument, UsageError, schema.BenchError)) as caught:
        documents.validate(path)
    message = str(caught.value)
    assert path.with_suffix(".txt").read_text().strip() in message
    assert f"where: {path}" in message


def test_validate_takes_many_files_and_says_which_are_bad(invoke):
    ended = invoke("validate", GOOD[0], BAD[0], GOOD[1])
    assert ended.code == 1
    assert f"{GOOD[0]}: valid" in ended.out
    assert f"{GOOD[1]}: valid" in ended.out
    assert str(BAD[0]) in ended.err
    assert "error: 1 of 3 is not valid" in ended.err


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("absent.json", None, "no such file"),
        ("list.json", "[1, 2]", "neither a perf dump nor a document of this tool"),
        ("empty.json", "", "not JSON: Expecting value at line 1, column 1"),
        ("binary.json", "\udcff\udcfe", "not JSON"),
        ("record.json", '{"schema": "run-record", "schema_version": 99}', "a run record of version 99"),
        ("true.json", '{"schema": "run-record", "schema_version": true}', "a run record of version True"),
        ("schema.json", '{"schema": []}', "neither a perf dump nor a document of this tool"),
        ("deep.json", "[" * 100_000, "not JSON"),
        ("broken.toml", "[flux", "not TOML"),
        ("preset.toml", '[mine]\ndescription = "x"', "'model' is a required property"),
        ("slip.toml", "[mine]\nwidht = 512", "('widht' was unexpected); did you mean width?"),
        ("flat.toml", 'model = "x"', "a preset must be a table"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(invoke, tmp_path, name, content, says):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    ended = invoke("validate", path)
    assert ended.code == 1
    assert says in ended.err
    assert str(path) in ended.err


def test_a_written_document_is_never_replaced(tmp_path):
    path = tmp_path / "preset.json"
    preset = {"description": "x", "model": "m", "modality": "image", "prompt": "p", "seed": 1}
    schema.write(preset, "preset", path)
    with pytest.raises(UsageError, match="File exists"):
        schema.write(preset | {"seed": 2}, "preset", path)
    assert json.loads(path.read_text())["seed"] == 1
    assert os.listdir(tmp_path) == ["preset.json"]


def test_an_invalid_document_is_not_written_at_all(tmp_path):
    with pytest.raises(InvalidDocument):
        schema.write({"seed": -1}, "preset", tmp_path / "preset.json")
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_no_half_document(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    preset = {"description": "x", "model": "m", "modality": "image", "prompt": "p", "seed": 1}
    with pytest.raises(UsageError, match="No space left on device"):
        schema.write(preset, "preset", tmp_path / "preset.json")
    assert os.listdir(tmp_path) == []


@given(st.text(max_size=40))
def test_run_directories_have_plain_names(tmp_path_factory, name):
    folder = store.new_run("bench", name, tmp_path_factory.mktemp("runs"))
    assert folder.is_dir()
    assert set(folder.name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
