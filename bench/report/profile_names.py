"""Kernel names, short enough to read: what a C++ name says without its namespaces and template arguments."""

from __future__ import annotations

import functools
import re

NAMESPACES = re.compile(r"\(anonymous namespace\)::|\b[a-z_][\w]*::")
FUNCTOR = re.compile(r"\b(\w*(?:Functor\w*|KernelImpl|FlashAttnFwd\w+|_kernel(?:_cuda)?|cuda_out))\b")
NOT_TELLING = frozenset({"gpu_kernel_impl", "elementwise_kernel", "device_kernel"})


@functools.cache
def short_kernel(name: str) -> str:
    """Return a kernel's name in short: its function and, in angle brackets, the functor that tells what it does."""
    plain = NAMESPACES.sub("", name.removeprefix("void "))
    function, found, arguments = plain.partition("<")
    if not found:
        return plain.split("(")[0].strip()
    function = function.split("(")[0].strip()
    for functor in FUNCTOR.findall(arguments):
        if functor not in NOT_TELLING and functor != function:
            return f"{function}<{functor}>"
    return function
