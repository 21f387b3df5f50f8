"""A simulated NVML: what BENCH_NVML (a JSON file) says of each GPU, sample by sample; found first by PYTHONPATH.

Each GPU is an object; a list as a value is one value for each sample, the last one staying.
"""

import json
import os
from types import SimpleNamespace

NVML_CLOCK_SM = 1
NVML_TEMPERATURE_GPU = 0
NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
NVML_VOLATILE_ECC = 0

IDLE = {
    "name": "NVIDIA H200", "memory": 150_754_820_096, "used": 600_000_000, "load": 0, "sm": 345, "sm_max": 1980,
    "temperature": 31, "power": 75_000, "reasons": 1, "ecc": 1, "ecc_errors": 0, "mig": 0, "processes": [],
}  # fmt: skip


class NVMLError(Exception):
    """As the real one."""


def _gpus():
    with open(os.environ["BENCH_NVML"]) as file:
        return json.load(file)


_asked: dict[tuple[int, str], int] = {}


def _value(handle, name):
    value = (IDLE | _gpus()[handle]).get(name)
    # processes are a list by themselves: a list of lists changes with the samples
    if isinstance(value, list) and (name != "processes" or (value and isinstance(value[0], list))):
        turn = _asked[handle, name] = _asked.get((handle, name), -1) + 1
        value = value[min(turn, len(value) - 1)]
    if value is None:
        raise NVMLError(f"{name}: not supported")
    return value


def nvmlInit():
    if "BENCH_NVML" not in os.environ:
        raise NVMLError("no driver")


def nvmlShutdown():
    pass


def nvmlSystemGetDriverVersion():
    return "580.95.05"


def nvmlDeviceGetCount():
    return len(_gpus())


def nvmlDeviceGetHandleByIndex(index):
    return index


def nvmlDeviceGetName(handle):
    return _value(handle, "name")


def nvmlDeviceGetUUID(handle):
    return f"GPU-{handle:08x}-0000"


def nvmlDeviceGetMemoryInfo(handle):
    return SimpleNamespace(total=_value(handle, "memory"), used=_value(handle, "used"))


def nvmlDeviceGetUtilizationRates(handle):
    return SimpleNamespace(gpu=_value(handle, "load"))


def nvmlDeviceGetEccMode(handle):
    return [_value(handle, "ecc")] * 2


def nvmlDeviceGetMigMode(handle):
    return [_value(handle, "mig")] * 2


def nvmlDeviceGetPowerUsage(handle):
    return _value(handle, "power")


def nvmlDeviceGetComputeRunningProcesses(handle):
    return [SimpleNamespace(pid=pid, usedGpuMemory=1 << 30) for pid in _value(handle, "processes")]


def nvmlDeviceGetClockInfo(handle, kind):
    return _value(handle, "sm")


def nvmlDeviceGetMaxClockInfo(handle, kind):
    return _value(handle, "sm_max")


def nvmlDeviceGetTemperature(handle, kind):
    return _value(handle, "temperature")


def nvmlDeviceGetCurrentClocksThrottleReasons(handle):
    return _value(handle, "reasons")


def nvmlDeviceGetTotalEccErrors(handle, kind, counter):
    return _value(handle, "ecc_errors")
