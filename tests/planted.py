"""Checkouts of an engine's own Python with changes whose effect is known."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

GIT = (
    "git",
    "-c",
    "user.name=t",
    "-c",
    "user.email=t@example.invalid",
    "-c",
    "commit.gpgsign=false",
    "-c",
    "gc.auto=0",
)
STAGE = "multimodal_gen/runtime/pipelines_core/stages/denoising.py"
"""Where the denoise steps of every family run."""
DATES = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), "2026-01-01T00:00:00Z")


def git(checkout, *words):
    """Run git there with fixed dates, so that the same files give the same commits; return what it prints."""
    return subprocess.run(
        [*GIT, *words], cwd=checkout, check=True, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"} | DATES
    ).stdout


def checkout_of(environment: Path, folder: Path):
    """Make a checkout of the sglang that is installed in an environment, committed and tagged; return its package."""
    installed = next(environment.glob("lib/python*/site-packages/sglang"))
    package = folder / "python" / "sglang"
    shutil.copytree(installed, package, ignore=shutil.ignore_patterns("__pycache__", "test"))
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "as installed")
    version = next(installed.parent.glob("sglang-*.dist-info")).name.removeprefix("sglang-").removesuffix(".dist-info")
    git(folder, "tag", f"v{version}")
    return package


def into_function(text, name, lines, *, which=0):
    """Return a module's text with lines put at the start of a function's body, behind its documentation."""
    head = list(re.finditer(rf"^( *)def {name}\((?:.|\n)*?\)(?: ->[^:\n]*)?:\n", text, re.MULTILINE))[which]
    rest = text[head.end() :]
    documented = re.match(r' *"""(?:.|\n)*?"""\n', rest)
    place = head.end() + (documented.end() if documented else 0)
    return text[:place] + "".join(f"{head[1]}    {line}\n" for line in lines) + text[place:]


def edit(path, change):
    path.write_text(change(path.read_text()))


def plant_six(package):
    """Plant the six changes of issue 17; return (file, a line of it, how it should fare), by what was planted."""
    stage = package / STAGE
    edit(stage, lambda text: into_function(text, "_run_denoising_step", ["planted = 'on the path'"]))
    edit(stage, lambda text: into_function(text, "_run_denoising_step", ["if False:", "    planted = 'dead'"]))
    edit(stage, lambda text: into_function(
        text, "_prepare_denoising_loop", ["if batch.is_warmup:", "    planted = 'only in warm-up'"]
    ))  # fmt: skip
    edit(stage, lambda text: text + "\nPLANTED = 'only at import'\n")
    other = package / "multimodal_gen/runtime/pipelines/diffusers_pipeline.py"
    edit(other, lambda text: into_function(text, "forward", ["planted = 'the diffusers branch'"]))
    family = package / "multimodal_gen/runtime/models/dits/wanvideo.py"
    edit(family, lambda text: into_function(text, "forward", ["planted = 'another family'"], which=-1))
    return {
        "on the path": (stage, "request"),
        "dead": (stage, "never"),
        "only in warm-up": (stage, "warm-up"),
        "only at import": (stage, "import"),
        "the diffusers branch": (other, "never"),
        "another family": (family, "never"),
    }


# --- a history --------------------------------------------------------------------------------------------------------

SLOW, PIXELS, OTHER_FAMILY, BROKEN, PIN = 14, 18, 10, 6, 9
"""Numbers of the commits that do what their names say; 0 is the installed engine, and 24 the last."""

SLOWDOWN = [
    "import time as clock",
    'before = batch.extra.get("planted")',
    "if before is not None:",
    "    clock.sleep(0.08 * (clock.perf_counter() - before))",
    'batch.extra["planted"] = clock.perf_counter()',
]
"""8 % of each denoise step but the first; of a request with 24 steps 7.7 %."""


def _changes(package):
    """Return what each commit does, by its number; a comment in the denoising stage where nothing else is said."""
    stage = package / STAGE
    family = package / "multimodal_gen/runtime/models/dits/wanvideo.py"
    project = package.parent / "pyproject.toml"
    names, renamed = package / "multimodal_gen/planted_names.py", package / "multimodal_gen/planted_words.py"
    missing = "import a_package_that_is_not_there\n"
    return {
        2: ("Add names", lambda: names.write_text("NAME = 'planted'\n")),
        4: ("Rename a module", lambda: names.rename(renamed)),
        BROKEN: ("Import what is not there", lambda: edit(stage, lambda text: text + missing)),
        BROKEN + 1: ("Import it no more", lambda: edit(stage, lambda text: text.removesuffix(missing))),
        PIN: ("Pin another diffusers", lambda: edit(project, lambda text: text.replace("0.37.0", "0.37.1"))),
        OTHER_FAMILY: ("Slow Wan down", lambda: edit(
            family, lambda text: into_function(text, "forward", ["import time", "time.sleep(0.1)"], which=-1)
        )),
        SLOW: ("Tidy the denoise step", lambda: edit(
            stage, lambda text: into_function(text, "_run_denoising_step", SLOWDOWN)
        )),
        PIXELS: ("Scale latents", lambda: edit(
            stage, lambda text: into_function(text, "_run_denoising_step", ["ctx.latents = ctx.latents * 1.01"])
        )),
    }  # fmt: skip


def history_of(environment: Path, folder: Path, count=24):
    """Make a history of an engine's own Python, always with the same hashes; return them, the installed one first."""
    package = checkout_of(environment, folder)
    (package.parent / "pyproject.toml").write_text('[project]\nname = "sglang"\ndependencies = ["diffusers==0.37.0"]\n')
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "Add the project file")
    changes = _changes(package)
    names = [git(folder, "rev-parse", "HEAD").strip()]
    for number in range(1, count + 1):
        comment = f"\n# remark {number}\n"
        subject, change = changes.get(
            number,
            (f"Remark {number}", lambda: edit(package / STAGE, lambda text: text + comment)),  # noqa: B023 - at once
        )
        change()
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", subject)
        names.append(git(folder, "rev-parse", "HEAD").strip())
    return names


if __name__ == "__main__":
    for name in history_of(Path(sys.argv[1]), Path(sys.argv[2])):
        print(name)
