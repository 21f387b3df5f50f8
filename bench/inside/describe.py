"""Print what engine this interpreter has, as one JSON object: versions from package metadata, nothing heavy imported.

Run by an engine's interpreter, never imported: ENGINE_PYTHON -B describe.py
"""

import importlib.metadata
import json
import platform

NAMES = ("sglang", "torch", "diffusers", "transformers", "sglang-kernel", "sgl-kernel", "flashinfer-python", "triton")


def version(name: str) -> str | None:
    """Return an installed distribution's version, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


print(
    json.dumps(
        {
            "python": platform.python_version(),
            "packages": {name: found for name in NAMES if (found := version(name)) is not None},
        }
    )
)
