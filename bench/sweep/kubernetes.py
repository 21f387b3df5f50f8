"""The cells of a sweep as Kubernetes Jobs: a document to apply, which nothing here runs.

Source of the fields: the Kubernetes API reference, Job v1 (batch) and PodSpec v1 (core).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bench.errors import UsageError
from bench.sweep.folder import KUBERNETES, SWEEP

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.sweep.folder import Folder

LONGEST_NAME = 63
"""Of a label's value and of a pod's host name (RFC 1123)."""
MARGIN_S = 300
"""The cell's own limit comes first, so that it can say so itself."""
GPU = "nvidia.com/gpu"
VOLUME = "runs"


def jobs(folder: Path, sweep: Mapping[str, Any], *, image: str, claim: str, retries: int) -> dict[str, Any]:
    """Return a List of one Job for each cell of a sweep's document.

    ``image`` holds the checkout as its working directory and the engine; ``claim`` names the volume claim that holds
    the folder of the runs, which is mounted where it is here.
    """
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [_job(folder, sweep["name"], cell, image, claim, retries) for cell in sweep["cells"]],
    }


def leave(folder: Folder) -> None:
    """Let a sweep go on elsewhere if no Job may begin a cell of it any more: Kubernetes is not asked.

    Raises:
        UsageError: its cells are Jobs, some have no result, and the sweep is not cancelled.
        InvalidDocument: its document violates its schema.
    """
    if not (folder.path / SWEEP).is_file() or folder.is_cancelled():
        return
    if not may_run(folder, folder.read()):
        return
    raise UsageError(
        "cells of this sweep are still Jobs on Kubernetes",
        where=folder.path,
        todo=f"end them first: delete them with kubectl, then invoke sweep-cancel {folder.path}",
    )


def may_run(folder: Folder, document: Mapping[str, Any]) -> bool:
    """Tell whether the cells of a sweep's document are Jobs and some have no result."""
    return document["executor"] == KUBERNETES and not all(folder.result(cell["id"]) for cell in document["cells"])


def again(sweep: str) -> str:
    """Return how Jobs begin again that were applied before: Kubernetes takes the same Job for done."""
    label = f"sweep={_name(sweep)}"
    return f"Jobs that were applied before do not begin again; delete those first: kubectl delete jobs -l {label}"


def _job(folder: Path, sweep: str, cell: Mapping[str, Any], image: str, claim: str, retries: int) -> dict[str, Any]:
    name = _name(sweep)
    labels = {"sweep": name, "cell": cell["id"], "kind": cell["kind"]}
    container = {
        "name": "cell",
        "image": image,
        "command": ["python3", "-m", "bench.sweep.cell", str(folder), cell["id"]],
        "volumeMounts": [{"name": VOLUME, "mountPath": str(folder.parent)}],
        **({"resources": {"limits": {GPU: str(cell["gpus"])}}} if cell["gpus"] else {}),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{name[: LONGEST_NAME - len(cell['id']) - 1].rstrip('-')}-{cell['id']}",
            "labels": labels,
        },
        "spec": {
            "backoffLimit": retries,
            "activeDeadlineSeconds": int(cell["limit_s"]) * (retries + 1) + MARGIN_S,
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [container],
                    "volumes": [{"name": VOLUME, "persistentVolumeClaim": {"claimName": claim}}],
                },
            },
        },
    }


def _name(text: str) -> str:
    """Return a sweep's name as Kubernetes takes it: lower case, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:LONGEST_NAME].strip("-") or "sweep"
