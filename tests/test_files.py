import os
from pathlib import Path

import pytest

from bench import files, schema
from bench.catalog import presets
from bench.errors import InvalidPerfDump, UsageError
from bench.fallback import dump
from bench.models import checkpoint, private_cache
from bench.profiling import reader


@pytest.fixture(params=["fifo", "/dev/zero", "link to /dev/zero", "directory", "absent", "too large", "NUL"])
def bad(request, tmp_path):
    path = tmp_path / "file"
    match request.param:
        case "fifo":
            os.mkfifo(path)
        case "/dev/zero":
            return Path("/dev/zero")
        case "link to /dev/zero":
            path.symlink_to("/dev/zero")
        case "directory":
            path.mkdir()
        case "too large":
            path.touch()
            os.truncate(path, 1 << 40)
        case "NUL":
            return Path("a\0b")
    return path


def test_what_is_no_file_of_a_sane_size_is_refused_at_once(bad):
    with pytest.raises(UsageError, match="cannot be read"):
        files.read_bytes(bad)


@pytest.mark.parametrize("read", [schema.read, presets.read_file, dump.load], ids=["document", "presets", "perf dump"])
def test_every_reader_of_documents_refuses_it(bad, read):
    with pytest.raises((UsageError, InvalidPerfDump)):
        read(bad)


def test_a_file_in_proc_that_claims_to_be_empty_is_read():
    assert files.read_bytes(Path("/proc/self/cmdline"))


@pytest.mark.parametrize("number", ["1" * 400, "1e308", "-1e308", "1e999", "NaN"])
def test_a_number_that_nothing_can_be_computed_with_is_refused(number, tmp_path):
    path = tmp_path / "perf.json"
    path.write_text(f'{{"total_duration_ms": {number}}}')
    with pytest.raises(InvalidPerfDump, match="not JSON"):
        dump.load(path)


def test_toml_that_is_nested_too_deep_is_refused(tmp_path):
    path = tmp_path / "presets.toml"
    path.write_text("a = " + "[" * 5000 + "]" * 5000)
    with pytest.raises(UsageError, match="as TOML: nested too deeply"):
        presets.read_file(path)


def test_nothing_is_written_through_a_link(tmp_path):
    target, link = tmp_path / "of_another", tmp_path / "link"
    target.write_text("precious")
    link.symlink_to(target)
    with pytest.raises(UsageError, match="symbolic link"):
        files.append_line(link, "x")
    with pytest.raises(UsageError, match="exists"):
        files.write_text(link, "x")
    files.write_text(link, "x", replace=True)
    assert target.read_text() == "precious"
    assert link.read_text() == "x"
    assert not link.is_symlink()


def test_a_dangling_link_is_not_written_through_either(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError):
        files.write_text(link, "x")
    with pytest.raises(UsageError):
        files.append_line(link, "x")
    assert not (tmp_path / "elsewhere").exists()


def test_a_line_is_added_to_a_file_and_to_nothing_else(tmp_path):
    files.append_line(tmp_path / "ledger", "one")
    files.append_line(tmp_path / "ledger", "two")
    assert (tmp_path / "ledger").read_text() == "one\ntwo\n"
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError):
        files.append_line(tmp_path / "fifo", "x")


@pytest.mark.parametrize("part", ["../x", "..", "/etc/x", "a/../../x", ".", ""])
def test_a_name_cannot_leave_its_folder(tmp_path, part):
    with pytest.raises(UsageError, match="lies outside its folder"):
        files.below(tmp_path, [part])
    assert files.below(tmp_path, ["a", "FLUX.1-dev"]) == tmp_path / "a" / "FLUX.1-dev"


PRESET = """
[mine]
description = "d"
model = "{model}"
modality = "image"
prompt = "p"
seed = 1
{more}
[mine.checkpoint]
recipe = "flux"
size = "tiny"
"""


@pytest.mark.parametrize("model", ["../../../../tmp/x", "/tmp/x", "a/b", "..", ".lock"])
def test_a_presets_model_cannot_leave_the_cache(tmp_path, model):
    path = tmp_path / "presets.toml"
    path.write_text(PRESET.format(model=model, more=""))
    with pytest.raises(UsageError, match="not the name of a folder"):
        presets.read_file(path)
    with pytest.raises(UsageError, match="lies outside its folder"):
        checkpoint.cached_path(presets.Checkpoint(recipe="flux", size="tiny"), "../../x")


@pytest.mark.parametrize("guidance", ["nan", "inf", "-inf", "1e308"])
def test_a_presets_number_is_a_number(tmp_path, guidance):
    path = tmp_path / "presets.toml"
    path.write_text(PRESET.format(model="m", more=f"guidance = {guidance}"))
    with pytest.raises(UsageError, match="too large a number"):
        presets.read_file(path)


def test_the_ledger_of_model_caches_is_not_written_through_a_link(tmp_path):
    root, other = tmp_path / "caches", tmp_path / "of_another"
    root.mkdir()
    (root / private_cache.MARKER).write_text("root\n")
    other.write_text("precious\n")
    (root / private_cache.LEDGER).symlink_to(other)
    with pytest.raises(UsageError, match="symbolic link"):
        private_cache.prepare(root, "x")
    assert other.read_text() == "precious\n"


def test_a_fifo_is_no_trace(tmp_path):
    os.mkfifo(tmp_path / "trace.json")
    with pytest.raises(UsageError, match="not a regular file"):
        reader.read(tmp_path / "trace.json")
