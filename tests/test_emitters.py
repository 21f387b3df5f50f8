"""Whether an engine's source can still say what the signals listen for, on a made-up engine."""

from __future__ import annotations

import shutil

import pytest
from engine_support import CONFIGURATIONS

from bench import paths
from bench.catalog import signals as catalog
from bench.errors import UsageError
from bench.upstream import emitters


def signal(identity: str, pattern: str, **more: object) -> catalog.Signal:
    values = {"severity": "degraded", "means": "", "todo": "", "example": "", "example_is": "constructed"}
    return catalog.Signal(id=identity, category="kernel", pattern=pattern, **(values | more))


@pytest.fixture
def engine(tmp_path):
    def write(source: str, name: str = "runtime/loader.py"):
        path = tmp_path / "sglang" / "multimodal_gen" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
        return tmp_path / "sglang"

    return write


def gone(package, *signals: catalog.Signal, version: str | None = "0.5.23") -> list[str]:
    return [s.id for s in emitters.check(package, signals, version=version).gone]


def unheard(package, *signals: catalog.Signal) -> list[str]:
    return [message.text for message in emitters.check(package, signals, version="0.5.23").unheard]


@pytest.mark.parametrize(
    "source",
    [
        'logger.warning("kernel %s lost, using %d threads", name, n)',
        'logger.warning(f"kernel {name} lost, using {n:.2f} threads")',
        'logger.warning("kernel %s lost, "\n    "using %d threads", name, n)',
        'logger.warning("kernel " + name + " lost, using 4 threads")',
        'logger.warning("kernel {} lost, using {n} threads".format(name, n=n))',
        'message = f"kernel {name} lost, " f"using {n} threads"\nlogger.info(message)',
        'raise ValueError("kernel %s lost, using %d threads" % (name, n))',
    ],
)
def test_a_message_is_found_however_it_is_written(engine, source):
    assert gone(engine(source), signal("a.b", r"kernel \w+ lost, using \d+")) == []


def test_a_signal_whose_message_is_nowhere_is_gone(engine):
    package = engine('logger.warning("kernel found")')
    assert gone(package, signal("a.b", "kernel lost")) == ["a.b"]


def test_a_comment_or_docstring_emits_nothing(engine):
    package = engine('"""Prints that the kernel lost."""\n# the kernel lost\ndef f():\n    "the kernel lost"\n')
    assert gone(package, signal("a.b", "kernel lost")) == ["a.b"]


@pytest.mark.parametrize("name", ["test/test_x.py", ".agents/skills/helper.py", "benchmarks/bench.py"])
def test_what_never_runs_in_a_launch_emits_nothing(engine, name):
    engine("x = 1")
    assert gone(engine('logger.warning("the kernel lost")', name), signal("a.b", "kernel lost")) == ["a.b"]


def test_a_signal_of_another_version_is_not_missed(engine):
    package = engine("x = 1")
    assert gone(package, signal("a.b", "kernel lost", versions="<0.5.17")) == []
    assert gone(package, signal("a.b", "kernel lost", versions="<0.5.17"), version=None) == ["a.b"]


def test_a_librarys_line_is_not_looked_for(engine):
    assert gone(engine("x = 1"), signal("a.b", "kernel lost", emitter="library")) == []


def test_a_named_literal_is_looked_for_instead_of_the_pattern(engine):
    package = engine('logger.info(f"Backends for {component}: {backend}")')
    named = signal("a.b", "Backends for transformer: sdpa", emitter="Backends for ")
    assert gone(package, named) == []
    assert gone(package, signal("a.c", "Backends for transformer: sdpa")) == ["a.c"]


def test_arguments_and_variables_are_not_looked_for(engine):
    assert gone(engine("x = 1"), signal("a.b", "^--backend=diffusers", on="argument")) == []


def test_a_message_about_falling_back_that_nobody_hears_is_reported_with_its_place(engine):
    package = engine('x = 1\nlogger.warning_once("%s failed, falling back to slow", x)')
    (message,) = emitters.check(package, [], version="0.5.23").unheard
    assert (message.text, message.line) == ("1 failed, falling back to slow", 2)
    assert message.file == "multimodal_gen/runtime/loader.py"
    assert unheard(package, signal("a.b", "failed, falling back")) == []
    assert unheard(package, signal("a.b", "Nothing failed, ever", emitter="failed, falling back")) == []


@pytest.mark.parametrize(
    ("source", "heard"),
    [
        ('self.log_warning("We fall back to B")', True),
        ('warnings.warn("Fallback to B")', True),
        ('logger.debug("falling back to B")', False),
        ('raise ValueError("no falling back to B")', False),
        ('button.info("falling back to B")', False),
    ],
)
def test_only_what_is_printed_at_level_info_is_listened_for(engine, source, heard):
    assert bool(unheard(engine(source))) is heard


def test_a_file_in_a_newer_syntax_is_searched_as_text(engine):
    package = engine('logger.info("kernel %s lost", x)\nthis cannot be parsed\n')
    report = emitters.check(package, [signal("a.b", r"kernel \w+ lost")], version="0.5.23")
    assert report.gone == ()
    assert report.unparsed == ("multimodal_gen/runtime/loader.py",)


def test_a_folder_without_an_engine_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no diffusion engine"):
        emitters.check(tmp_path, [], version=None)


def test_a_module_that_no_run_reaches_is_triaged_as_a_whole_and_a_reached_one_is_not(engine):
    line = 'logger.warning("The turbo path is not supported for %s; taking the plain one", name)'
    assert unheard(engine(line, "runtime/disaggregation/new.py")) == []
    assert unheard(engine(line, "runtime/layers/new.py")) != []


def test_what_is_said_to_be_heard_names_a_signal():
    known = {signal.id for signal in catalog.signals()}
    assert {entry.because for entry in catalog.triaged() if entry.kind == "heard"} <= known


@pytest.mark.engine
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_one_new_message_in_a_copy_of_the_engine_is_red_with_its_place(configuration, invoke, replay, home):
    (package,) = paths.ROOT.glob(f".nox/engine-{configuration.replace('.', '-')}/lib/python*/site-packages/sglang")
    copy = home / "environments" / f"engine-{replay(version=configuration.partition('-')[2])}" / "site" / "sglang"
    shutil.copytree(
        package / "multimodal_gen",
        copy / "multimodal_gen",
        ignore=lambda folder, names: [n for n in names if ("." in n and not n.endswith(".py")) or n == "__pycache__"],
        dirs_exist_ok=True,
    )
    green = invoke("signals", "--check-engine", "replay")
    assert green.code == 0, green.out
    module = copy / "multimodal_gen" / "runtime" / "pipelines_core" / "stages" / "decoding.py"
    source = module.read_text(encoding="utf-8")
    module.write_text(f'{source}\n\nlogger.info("Turbo decoding is not supported for %s; taking the plain path", 1)\n')
    red = invoke("signals", "--check-engine", "replay")
    assert red.code == 7
    said = " ".join(red.out.split())
    assert f"stages/decoding.py:{source.count(chr(10)) + 3}: 'Turbo decoding is not supported for 1; taking" in said
    assert "0 signals without an emitter, 1 messages without a signal" in red.err
