# /// script
# dependencies = ["nox[uv]>=2026.7.11"]
# ///
"""Environments and where things run. Invoke defines what runs: `invoke --list`."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2026.7.11"
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"
nox.options.error_on_external_run = True
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["lint", "types", "schemas", "tests"]

ROOT = Path(__file__).resolve().parent
CONSTRAINTS = ROOT / "constraints.txt"
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
RUNNER = tuple(PYPROJECT["project"]["dependencies"])
ENGINE_MARKER = "engine.json"
CLOSING_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """How to build one engine environment: its requirement and the options of the installer."""

    requirement: str
    options: tuple[str, ...] = ("--prerelease=allow",)  # sglang pins pre-releases of its own dependencies

    @property
    def digest(self) -> str:
        """Return a hash of this configuration and Python; an environment with another one is rebuilt."""
        content = json.dumps(asdict(self), sort_keys=True) + sys.version
        return hashlib.sha256(content.encode()).hexdigest()


# Add an engine configuration here; sessions, `--engine` and the tests on the real engine follow.
CONFIGURATIONS = {
    "sglang-0.5.23": Configuration(requirement="sglang[diffusion]==0.5.23"),
    "sglang-0.5.17": Configuration(requirement="sglang[diffusion]==0.5.17"),
}
DEFAULT_CONFIGURATION: str = PYPROJECT["tool"]["workbench"]["default-engine"]

# by file: the tests of one file look for processes that those of another would start
WITHOUT_ENGINE = (
    "-m",
    "not engine and not browser",
    "--numprocesses=auto",
    "--dist=loadfile",
    "--no-loadscope-reorder",
)
COMPILED = {"PYTHONDONTWRITEBYTECODE": None}
"""For tests: what they start is compiled once, not at each of its thousand starts."""

NEWEST_PYTHON = "3.13"
"""The newest Python that the tests run on; every dependency has wheels for it."""

HTA = "HolisticTraceAnalysis==0.5.0"
"""The oracle of the trace analysis. It needs jupyterlab at run time, so it gets an environment of its own."""
AIPERF = "aiperf==0.13.0"
"""The oracle of a load test's percentiles, in an environment of its own too."""


def install(session: nox.Session, *requirements: str) -> None:
    """Install requirements at the versions of constraints.txt."""
    session.install("--compile-bytecode", "-c", str(CONSTRAINTS), *requirements, silent=True)


def group(name: str) -> tuple[str, ...]:
    """Return the requirements of a dependency group in pyproject.toml."""
    return tuple(nox.project.dependency_groups(PYPROJECT, name))


def run(session: nox.Session, *argv: str) -> None:
    """Run a program that may hold a GPU, give it time to close if it is interrupted, and end with its exit code.

    A session that fails ends nox with 1 whatever failed, so nox itself is ended here; sessions behind it do not run.
    """
    try:
        session.run(*argv, interrupt_timeout=CLOSING_S, terminate_timeout=CLOSING_S)
    except CommandFailed as error:
        session.log(f"{session.name} ended with exit code {error.return_code}")
        raise SystemExit(error.return_code or 1) from error


def ensure_engine(session: nox.Session, name: str) -> None:
    """Build a configuration's environment unless it is up to date, in a second nox: a session cannot start another."""
    if name in CONFIGURATIONS:
        session.run(
            sys.executable, "-m", "nox", "--noxfile", str(ROOT / "noxfile.py"), "--session", f"engine({name})",
            external=True,
        )  # fmt: skip


def oracle(session: nox.Session, requirement: str, program: str) -> str:
    """Return a program of an environment with an oracle alone, and build it if it is missing."""
    home = Path(session.create_tmp()).resolve() / "oracle"
    session.run("uv", "venv", "--quiet", "--allow-existing", str(home), external=True)
    session.run("uv", "pip", "install", "--quiet", f"--python={home}", requirement, external=True)
    return str(home / "bin" / program)


def newest_python() -> Path | None:
    """Return this machine's interpreter of the newest supported Python, if it has one."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    # pyenv's python3.13 on the PATH fails unless that version is selected, so its versions come first
    interpreters = [
        *sorted(pyenv.glob(f"versions/{NEWEST_PYTHON}.*/bin/python")),
        shutil.which(f"python{NEWEST_PYTHON}"),
    ]
    return next((Path(path) for path in interpreters if path is not None), None)


def invoke(session: nox.Session, verb: str) -> None:
    """Build the engine that the arguments name, then run an Invoke task on it; the task reports an unknown engine."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--engine")
    parser.add_argument("--help", action="store_true")
    own = session.posargs[: session.posargs.index("--")] if "--" in session.posargs else session.posargs
    found, _ = parser.parse_known_args(own)
    install(session, *RUNNER)
    if found.help:
        run(session, "invoke", "--help", verb)
        return
    engine = found.engine or os.environ.get("BENCH_ENGINE") or DEFAULT_CONFIGURATION
    ensure_engine(session, engine)
    given = () if found.engine else (f"--engine={engine}",)
    run(session, "invoke", verb, *given, *session.posargs)


@nox.session(default=False)
def simulate(session: nox.Session) -> None:
    """Print the error rates of the statistics and write them to docs/simulation.md (minutes)."""
    install(session, *RUNNER)
    session.run("python", "-m", "simulations.rates", "docs/simulation.md", *session.posargs)


@nox.session(default=False, tags=["engine"])
@nox.parametrize("name", [nox.param(name, id=name) for name in CONFIGURATIONS])
def engine(session: nox.Session, name: str) -> None:
    """Build one engine's environment (about 10 GB on disk) unless it is up to date."""
    configuration = CONFIGURATIONS[name]
    marker = Path(session.virtualenv.location) / ENGINE_MARKER
    wanted = {"name": name, "requirement": configuration.requirement, "digest": configuration.digest}
    if marker.exists() and json.loads(marker.read_text(encoding="utf-8")) == wanted:
        session.log(f"engine {name} is up to date: {session.virtualenv.location}")
        return
    session.log(f"installing {configuration.requirement}: about 10 GB on disk")
    marker.unlink(missing_ok=True)
    session.install("--exact", *configuration.options, configuration.requirement, silent=False)  # gigabytes: shown
    marker.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Benchmark on an engine environment: nox -s bench -- --model flux-tiny."""
    invoke(session, "bench")


@nox.session(default=False)
def loadtest(session: nox.Session) -> None:
    """Load a server of an engine environment: nox -s loadtest -- --model flux-tiny."""
    invoke(session, "loadtest")


@nox.session(default=False)
def profile(session: nox.Session) -> None:
    """Profile on an engine environment: nox -s profile -- --model flux-tiny."""
    invoke(session, "profile")


@nox.session(default=False)
def accuracy(session: nox.Session) -> None:
    """Check the engine against diffusers on a tiny model of every family: nox -s accuracy [-- --model flux-tiny]."""
    invoke(session, "accuracy")


@nox.session(default=False)
def tour(session: nox.Session) -> None:
    """Learn the workbench in ten minutes on an engine environment: nox -s tour."""
    invoke(session, "tour")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests that need no engine (minutes)."""
    install(session, *RUNNER, *group("tests"), *group("nox"))
    session.run("pytest", *WITHOUT_ENGINE, *session.posargs, env=COMPILED)


@nox.session(default=False)
def tests_newest(session: nox.Session) -> None:
    """Run the same tests on the newest supported Python, where this machine has it."""
    python = newest_python()
    if python is None:
        session.skip(f"this machine has no Python {NEWEST_PYTHON}")
    home = Path(session.virtualenv.location).resolve() / NEWEST_PYTHON  # a session's tmp would become TMPDIR
    requirements = (*RUNNER, *group("tests"), *group("nox"))
    session.run("uv", "venv", "--quiet", "--allow-existing", f"--python={python}", str(home), external=True)
    session.run(
        "uv", "pip", "install", "--quiet", f"--python={home}", "-c", str(CONSTRAINTS), *requirements, external=True
    )
    session.run(
        str(home / "bin" / "python"), "-m", "pytest", *WITHOUT_ENGINE, *session.posargs, env=COMPILED, external=True
    )


@nox.session(default=False, tags=["engine"])
def tests_engine(session: nox.Session) -> None:
    """Run the tests on the real engine, on a CPU, in every engine configuration (20 minutes and more)."""
    install(session, *RUNNER, *group("tests"), *group("nox"))
    for name in CONFIGURATIONS:
        ensure_engine(session, name)
    for chosen, workers in (("engine and alone", 1), ("engine and not alone", 2)):
        run(session, "pytest", "-m", chosen, f"--numprocesses={workers}", "--timeout=1800", *session.posargs)


@nox.session(default=False)
def pages(session: nox.Session) -> None:
    """Open every page in headless Chromium, wide and narrow, light and dark, with JavaScript and without."""
    install(session, *RUNNER, *group("tests"), *group("pages"))
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        session.run("playwright", "install", "chromium", success_codes=[0, 1])  # if it cannot, the tests say so
    session.run("pytest", "-m", "browser", "--numprocesses=0", *session.posargs)


@nox.session(default=False)
def chaos(session: nox.Session) -> None:
    """Kill any process of a launch at random moments, 200 times, on the replay engine (minutes)."""
    install(session, *RUNNER, *group("tests"))
    session.run("pytest", "--numprocesses=0", "tests/chaos.py", *session.posargs)


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """Feed random bytes to every reader of what others wrote, for FUZZ_SECONDS (60) each; what failed is kept."""
    install(session, *RUNNER, *group("tests"))
    session.run("pytest", "--numprocesses=0", "tests/fuzz.py", *session.posargs)


@nox.session(default=False)
def signals_versions(session: nox.Session) -> None:
    """Check signals, flags and qualities against the versions in between, taken from the index (minutes, 150 MB)."""
    install(session, *RUNNER, *group("tests"), "pip")
    session.run("pytest", "--numprocesses=0", "tests/versions.py", *session.posargs)


@nox.session(default=False)
def tests_oracle(session: nox.Session) -> None:
    """Compare the trace analysis with HolisticTraceAnalysis."""
    install(session, *RUNNER, *group("tests"))
    session.run("pytest", "-m", "oracle", *session.posargs, env={"BENCH_HTA_PYTHON": oracle(session, HTA, "python")})


@nox.session(default=False)
def tests_load_oracle(session: nox.Session) -> None:
    """Compare a load test's percentiles with AIPerf's (1.2 GB) on the same schedule."""
    install(session, *RUNNER, *group("tests"))
    aiperf = oracle(session, AIPERF, "aiperf")
    session.run("pytest", "-s", "tests/test_serving_oracle.py", *session.posargs, env={"BENCH_AIPERF": aiperf})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    install(session, *group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types strictly."""
    install(session, *RUNNER, *group("types"), *group("nox"))
    session.run("mypy")


@nox.session
def schemas(session: nox.Session) -> None:
    """Check the schemas against draft 2020-12, and the repository's documents against the schemas."""
    install(session, *RUNNER, *group("schemas"))
    session.run("check-jsonschema", "--check-metaschema", *map(str, sorted((ROOT / "schemas").glob("*.json"))))
    session.run(
        "check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(ROOT / "docs" / "ci" / "gate.yml")
    )
    dumps = sorted((ROOT / "tests" / "data" / "logs").rglob("*.json"))
    session.run("invoke", "validate", *map(str, dumps), *map(str, sorted((ROOT / "bench/catalog/presets").glob("*"))))


@nox.session(default=False)
def benchmark(session: nox.Session) -> None:
    """Measure the workbench itself and print ratios to a baseline of the same run."""
    install(session, *RUNNER, *group("tests"))
    env = {"BENCH_HTA_PYTHON": oracle(session, HTA, "python")}
    for path in sorted((ROOT / "benchmarks").glob("[!_]*.py")):
        session.run("python", str(path), *session.posargs, env=env, success_codes=[0, 1])


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Update constraints.txt from pyproject.toml."""
    session.install("uv", silent=True)
    session.run(
        "uv", "pip", "compile", "--quiet", "--universal", "--python-version=3.11", "--upgrade", "--group=dev",
        "--no-header", "--no-annotate", "pyproject.toml", f"--output-file={CONSTRAINTS}",
    )  # fmt: skip
    note = "# Every version that the environments of noxfile.py install, in one place. Updated by: nox -s lock\n"
    CONSTRAINTS.write_text(note + CONSTRAINTS.read_text(encoding="utf-8"), encoding="utf-8")


if __name__ == "__main__":
    nox.main()
