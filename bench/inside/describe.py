"""Print what engine this interpreter has, as one JSON object: from package metadata, nothing heavy imported.

`packages` are versions, `direct_urls` what pip wrote of packages that did not come from an index (PEP 610), and
`folder` is where the engine's package lies.

Run by an engine's interpreter, never imported: ENGINE_PYTHON -B describe.py
"""

import importlib.metadata
import importlib.util
import json
import platform

NAMES = ("sglang", "torch", "diffusers", "transformers", "sglang-kernel", "sgl-kernel", "flashinfer-python", "triton")

packages, direct_urls = {}, {}
for name in NAMES:
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        continue
    packages[name] = found.version
    if (text := found.read_text("direct_url.json")) is not None:
        direct_urls[name] = json.loads(text)

spec = importlib.util.find_spec("sglang")
folders = list(spec.submodule_search_locations or []) if spec is not None else []
print(
    json.dumps(
        {
            "python": platform.python_version(),
            "packages": packages,
            "direct_urls": direct_urls,
            "folder": folders[0] if folders else None,
        }
    )
)
