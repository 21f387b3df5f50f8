import json
import shlex
from dataclasses import replace

import pytest
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from bench.catalog import flags, presets, signals, stages
from bench.engine import command, spelling
from bench.engine.workload import of_preset
from bench.errors import UsageError


def workload(key, **changes):
    return replace(of_preset(presets.get(key)), **changes)


def test_upstreams_flux_is_what_upstream_has():
    flux = presets.get("flux")
    assert (flux.model, flux.width, flux.height, flux.seed, flux.gpus) == (
        "black-forest-labs/FLUX.1-dev", 1024, 1024, 42, 2,
    )  # fmt: skip
    assert (flux.gated, flux.nightly, flux.steps) == (True, "flux1_dev_t2i_1024", None)


def test_a_preset_hash_is_of_its_content_not_of_its_name():
    tiny = presets.get("flux-tiny")
    same = presets._preset("other-name", json.loads(json.dumps(dict(tiny.document))), "here")
    other = presets._preset("flux-tiny", dict(tiny.document) | {"seed": 43}, "here")
    assert same.sha256 == tiny.sha256 != other.sha256


@pytest.mark.parametrize("version", flags.table().versions)
def test_a_tiny_run_is_spelled_for_every_version(version):
    spelled = spelling.spell(workload("flux-tiny"), version)
    assert "--backend=sglang" in spelled
    assert "--log-level=info" in spelled
    modern = Version(version) >= Version("0.5.15")
    assert ("--warmup-mode=request" in spelled, "--warmup" in spelled) == (modern, not modern)
    assert ("--disable-conditioning-cache" in spelled) == (Version(version) >= Version("0.5.21"))
    assert "--enable-torch-compile=false" in spelled


@pytest.mark.parametrize("version", ["0.5.12", "0.5.16", "0.6.1", "not a version"])
def test_a_version_nobody_probed_is_spelled_like_its_neighbours(version):
    assert "--backend=sglang" in spelling.spell(workload("flux-tiny"), version)
    spelling.refuse_unknown(["--of-the-future=1"], version, "here")


def test_no_warm_up_is_said_to_the_engine():
    assert "--warmup-mode=off" in spelling.spell(workload("flux-tiny", warmup=False), "0.5.23")
    assert not [a for a in spelling.spell(workload("flux-tiny", warmup=False), "0.5.11") if "warmup" in a]


@given(st.sampled_from(sorted(flags.table().by_flag)), st.sampled_from(flags.table().versions))
def test_a_flag_is_refused_exactly_where_it_was_refused_by_the_parser(flag, version):
    if version in flags.versions_of(flag):
        spelling.refuse_unknown([f"{flag}=1"], version, "here")
    elif not spelling.COMPONENT_PATH.fullmatch(flag):
        with pytest.raises(UsageError, match="does not know"):
            spelling.refuse_unknown([f"{flag}=1"], version, "here")


@given(st.lists(st.text(min_size=1, max_size=30).filter(lambda word: " \\\n" not in word), max_size=5))
def test_a_shown_command_reads_back_as_itself(words):
    made = command.Command(argv=("sglang", "generate", *words), environment={}, added={"A": "x y"}, directory=ROOT)
    assert shlex.split(command.shown(made).replace(" \\\n", " ")) == ["A=x y", "sglang", "generate", *words]


def test_evidence_matches_its_own_example():
    from bench.fallback.matcher import Matcher, clean

    for entry in signals.evidence():
        assert Matcher([entry.pattern]).find(clean(entry.example)) == [0], entry.id


def test_the_stages_tables_do_not_overlap():
    table = stages.stages()
    assert not table.records & table.silent
    assert table.denoises("DenoisingStage")
    assert not table.denoises(stages.DIFFUSERS_STAGE)


@pytest.mark.parametrize(
    ("versions", "version", "expected"),
    [
        (None, "0.5.11", True),
        (">=0.5.15", "0.5.11", False),
        (">=0.5.10", "0.5.10.post1", True),
        (">=0.5.15", None, True),
    ],
)
def test_an_entry_judges_only_its_versions(versions, version, expected):
    assert signals.applies(versions, version) is expected
