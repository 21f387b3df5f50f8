"""Which variables of a user reach an engine: those that a record names, and those that are known to be of no weight.

Any other stays outside. A library reads variables that nobody here has heard of (once ``NVPL_BLAS_DEBUG_CPU_TYPE``),
and one that does not reach the engine cannot change it unseen.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bench import redact

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

RECORDED_PREFIXES = (
    "SGLANG_", "SGL_", "CUDA_", "NVIDIA_", "NCCL_", "TORCH", "PYTORCH_", "TRITON_", "FLASHINFER_", "HF_", "OMP_",
    "MKL_", "KMP_", "HIP_", "ROCR_", "ASCEND_", "XLA_", "CUBLAS_", "CUDNN_", "TOKENIZERS_", "LD_", "ONEDNN_", "DNNL_",
    "ATEN_", "GOMP_", "MALLOC_", "OPENBLAS_", "BLIS_", "TCMALLOC_", "PYTHON", "CUTE_", "CUTEDSL_", "CUTLASS_", "B12X_",
    "FLASH_ATTENTION_", "TRTLLM_", "TVM_", "DG_", "MINIMAX_", "MOSS_", "DIFFUSERS_", "TRANSFORMERS_", "ACCELERATE_",
    "USE_", "ENABLE_", "INDUCTOR_", "AOT_INDUCTOR_", "NVSHMEM_", "UCX_", "GLOO_", "HCCL_", "HSA_", "ROCM_", "MIOPEN_",
    "AITER_", "NPU_", "MUSA_", "ZE_", "PT_HPU_", "FSDP_", "NUMEXPR_", "GLIBC_", "VLLM_", "NVPL_", "NVCC_", "MAX_JOBS",
    "CC", "CXX", "CFLAGS", "CPPFLAGS", "LDFLAGS", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH",
    "NIX_LD", "FI_", "JEMALLOC_", "ARM_",
)  # fmt: skip
"""Variables that can change what a launch does or how fast: they go into the record."""

OF_NO_WEIGHT = re.compile(
    r"HOME|USER|LOGNAME|SHELL|PATH|PWD|HOSTNAME|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|TMP|TEMP|XDG_\w+|PYENV_\w+"
    r"|TERM|COLORTERM|COLUMNS|LINES|NO_COLOR|FORCE_COLOR|CI|GITHUB_ACTIONS"
    r"|(?i:https?|ftp|all|no)_(?i:proxy)|(?:SSL|GIT_SSL)_\w+|\w+_CA_BUNDLE|BENCH_\w+"
)
"""Where things lie, how a terminal shows them, how the hub is reached, and the workbench's own."""


def reaches_the_engine(name: str) -> bool:
    """Tell whether a variable of the user is handed on to an engine."""
    return is_recorded(name) or OF_NO_WEIGHT.fullmatch(name) is not None


def is_recorded(name: str) -> bool:
    """Tell whether a variable can change what a launch does or how fast."""
    return name.startswith(RECORDED_PREFIXES)


def recorded(environment: Mapping[str, str], added: Collection[str] = ()) -> dict[str, str]:
    """Return those of a launch's variables that a record names: those that can matter and those that were ``added``.

    Secrets are told only as such.
    """
    names = sorted(name for name in environment if name in added or is_recorded(name))
    return {name: redact.value(name, environment[name]) for name in names}
