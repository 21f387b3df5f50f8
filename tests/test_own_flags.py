"""An engine that the probed table does not speak for is asked itself, once."""

import json

import pytest

from bench.catalog import flags
from bench.engine import find

PARSER = """
def add_multimodal_gen_generate_args(parser):
    print("importing takes long")
    for flag in {flags!r}:
        parser.add_argument(flag)
"""


@pytest.fixture
def engine(replay, home, monkeypatch):
    """A replay engine of a version that nobody probed, whose package has a parser with these flags."""

    def make(version="0.5.99", extra=(), without=()):
        name = replay(version=version)
        own = [
            flag for flag in flags.table().by_flag if flags.knows("0.5.23", flag) and flag not in ("--help", *without)
        ]
        package = home / "environments" / f"engine-{name}" / "site" / "sglang"
        inside = package / "multimodal_gen" / "runtime" / "entrypoints" / "cli"
        inside.mkdir(parents=True, exist_ok=True)
        (inside / "generate.py").write_text(PARSER.format(flags=[*own, *extra]))
        return name

    return make


def test_a_flag_of_a_new_version_is_taken_and_one_that_it_lost_is_refused(invoke, engine):
    name = engine(extra=["--of-the-future"], without=["--vae-tiling"])
    command = ["bench", "--model", "zimage-base", "--engine", name, "--dry-run", "--"]
    assert invoke(*command, "--of-the-future=1").code == 0
    refused = invoke(*command, "--vae-tiling=true")
    assert refused.code == 1
    assert "sglang 0.5.99 does not know --vae-tiling" in refused.err
    assert invoke(*command, "--nobody-has-this=1").code == 1


def test_what_only_the_harness_adds_is_left_out_where_the_parser_lacks_it(invoke, engine):
    ended = invoke(
        "bench", "--model", "zimage-base", "--dry-run", "--engine", engine(without=["--disable-conditioning-cache"])
    )
    assert ended.code == 0, ended.err
    assert "--disable-conditioning-cache" not in ended.out


def test_the_engine_is_asked_once(invoke, engine, home):
    name = engine()
    command = ["bench", "--model", "zimage-base", "--engine", name, "--dry-run"]
    assert invoke(*command).code == 0
    (kept,) = (home / "cache").glob("*/flags/*.json")
    assert "--prompt" in json.loads(kept.read_text())
    generate = (
        home / "environments" / f"engine-{name}" / "site/sglang/multimodal_gen/runtime/entrypoints/cli/generate.py"
    )
    generate.unlink()
    assert invoke(*command).code == 0


def test_a_probed_version_is_never_asked(invoke, replay, home):
    assert invoke("bench", "--model", "zimage-base", "--engine", replay(), "--dry-run").code == 0
    assert not (home / "cache").exists()


def test_an_engine_that_cannot_be_asked_is_spelled_like_its_neighbours(invoke, engine, home):
    name = engine()
    package = home / "environments" / f"engine-{name}" / "site/sglang/multimodal_gen"
    (package / "runtime/entrypoints/cli/generate.py").write_text("raise ImportError('of another kind')\n")
    ended = invoke("bench", "--model", "zimage-base", "--engine", name, "--dry-run")
    assert ended.code == 0, ended.err
    assert "--warmup-mode=request" in ended.out


@pytest.mark.engine
@pytest.mark.parametrize("version", ["0.5.17", "0.5.23"])
def test_the_probed_table_is_what_the_installed_parser_has(version, tmp_path, monkeypatch):
    from bench.engine import own_flags

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    own = {flag for flag in own_flags.parser_flags(find.find(f"sglang-{version}")) if flag.startswith("--")} - {
        "--help"
    }
    probed = {flag for flag in flags.table().by_flag if flags.knows(version, flag)} - {"--help"}
    assert {flag for flag in probed if "_" not in flag} <= own
    assert own <= probed
