"""A stand-in for `sglang.multimodal_gen` in sessions: prints a captured log and writes dumps; see replay_engine.py."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from replay_engine import mp4, png

SCENARIO = json.loads((Path(__file__).resolve().parents[1] / "replay.json").read_text())
LOADED = "The server is fired up"
LAUNCH = 0
"""Which launch of this engine this is, from 1; set when it loads."""


def say(lines):
    silenced = SCENARIO.get("without") if SCENARIO.get("without_since", 1) <= LAUNCH else None
    for line in lines:
        if silenced is None or silenced.encode() not in line:
            sys.stdout.buffer.write(line)
    sys.stdout.flush()


def told(line, stages):
    """Return a stage's last line with the time that the dump will hold."""
    for stage in stages:
        if b"[%s] finished in" % stage["name"].encode() in line:
            return line.partition(b" finished in")[0] + b" finished in %.4f seconds\n" % (stage["duration_ms"] / 1000)
    return line


def started_so_far():
    """Count this engine's launches: each has its own noise, and a test's noise is the same each time it runs."""
    with (Path(__file__).resolve().parents[1] / "launches").open("a+") as file:
        file.write("x")
        file.flush()
        return file.tell()


def leave_trace(asked):
    """Leave a captured trace where the engine's profiler would, for a request that asks for one."""
    if asked.get("profile") and "trace" in SCENARIO:
        shutil.copy(SCENARIO["trace"], os.environ["SGLANG_DIFFUSION_TORCH_PROFILER_DIR"])


class DiffGenerator:
    def __init__(self, server_args):
        global LAUNCH  # noqa: PLW0603 - one engine a process
        LAUNCH = started_so_far()
        for _ in range(SCENARIO.get("children", 0)):
            subprocess.Popen(["sleep", "300.125"], start_new_session=True)
        self.args = server_args
        log = Path(SCENARIO["log"]).read_bytes()
        if "BENCH_NVML" in os.environ:
            log = log.replace(b", device=cpu,", b", device=cuda,")
        lines = log.splitlines(keepends=True)
        cut = next((n for n, line in enumerate(lines) if LOADED.encode() in line), len(lines))
        say(lines[:cut])
        self.graphs = "--enable-breakable-cuda-graph=true" in sys.argv
        self.quality = next((word.partition("=")[2] for word in sys.argv if word.startswith("--quality=")), None)
        if self.graphs:
            print("[11-22 08:53:49] [Diffusion BCG] captured 58 segment(s)", flush=True)
        self.request_lines = [line for line in lines[cut:] if b"Metrics dumped" not in line]
        if SCENARIO.get("spins"):
            subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
        self.served = 0
        self.random = random.Random(f"{SCENARIO.get('seed', 0)} {LAUNCH}")
        self.launch = self.random.gauss(0, SCENARIO.get("between", 0))

    @classmethod
    def from_pretrained(cls, model_path, server_args, local_mode):
        if SCENARIO.get("fail_loading"):
            raise RuntimeError("the weights are of another model")
        return cls(server_args)

    def generate(self, sampling_params_kwargs):
        asked = sampling_params_kwargs
        self.served += 1
        total = SCENARIO.get("served_before", 0) + self.served
        if SCENARIO.get("edit_at") == total:
            (Path(__file__).parent / "sglang" / "edited.py").write_text("x = 1\n")
        in_stages = os.environ.get("SGLANG_DIFFUSION_SYNC_STAGE_PROFILING") == "1"
        if SCENARIO.get("die_in_stages_at" if in_stages else "die_at") == total:
            os.kill(os.getpid(), 9)
        if SCENARIO.get("hang_at") == total and SCENARIO.get("hang_in_launch", LAUNCH) == LAUNCH:
            time.sleep(600)
        if SCENARIO.get("fail_at") == total:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if SCENARIO.get("error_line_at") == total and SCENARIO.get("error_in_launch", LAUNCH) == LAUNCH:
            print("[11-22 09:54:08] Error executing request 7ff: CUDA error", flush=True)
            time.sleep(60)
        if SCENARIO.get("fall_back_at") == total:
            print("[11-22 09:46:02] Falling back to diffusers backend", flush=True)
        time.sleep(SCENARIO.get("request_s", 0))
        steps = asked["num_inference_steps"]
        frames = b"num_frames: %d" % (asked["num_frames"] or 1)
        seed = b" seed: %d" % asked["seed"]
        lines = [line.replace(b"num_frames: 1", frames).replace(b" seed: 42", seed) for line in self.request_lines]
        lines = [line.replace(b"infer_steps: 4", b"infer_steps: %d" % steps) for line in lines]
        factor = SCENARIO.get("factor", 1) * (SCENARIO.get("graphs_factor", 1) if self.graphs else 1)
        factor *= 1 + self.launch + self.random.gauss(0, SCENARIO.get("within", 0))
        dump = json.loads(Path(SCENARIO["dump"]).read_text())
        each = 50.0 * factor
        dump["denoise_steps_ms"] = [{"step": n, "duration_ms": each} for n in range(steps)]
        for stage in dump["steps"]:
            if stage["name"] == "DenoisingStage":
                stage["duration_ms"] = each * steps
        say(told(line, dump["steps"]) for line in lines)
        if self.graphs and self.quality not in {None, "lossless"}:
            print(f"[11-22 08:53:49] quality={self.quality} has no captured breakable CUDA graphs", flush=True)
        dump["total_duration_ms"] = sum(stage["duration_ms"] for stage in dump["steps"])
        dump |= {"tag": "server_perf_dump", "timestamp": datetime.now(UTC).isoformat()}
        dump["meta"] = {"model": self.args.model_path}
        Path(asked["perf_dump_path"]).write_text(json.dumps(dump))
        leave_trace(asked)
        print(f"[11-22 08:53:49] Metrics dumped to: {asked['perf_dump_path']}", flush=True)
        output = Path(asked["output_path"]) / asked["output_file_name"]
        if output.suffix == ".mp4":
            frames = SCENARIO.get("frames", asked["num_frames"])
            mp4(output, asked["width"], asked["height"], frames, SCENARIO.get("shifts", ()))
        else:
            shift = SCENARIO.get("shift", 0) + SCENARIO.get("shift_each", 0) * total
            blue = 22 if self.quality == "high" else 21 if self.graphs and SCENARIO.get("graphs_differ") else 20
            png(output, asked["width"], asked["height"], shift=shift, blue=blue)
        if SCENARIO.get("cut_output"):
            output.write_bytes(output.read_bytes()[:200])
        return object()

    def shutdown(self):
        if SCENARIO.get("die_in_shutdown"):
            os._exit(11)


class ServerArgs:
    @classmethod
    def from_cli_args(cls, arguments, unknown):
        return arguments


class Sampling:
    @staticmethod
    def get_cli_args(arguments):
        names = ("prompt", "width", "height", "num_inference_steps", "seed", "num_frames")
        return {name: getattr(arguments, name) for name in names}


def add_multimodal_gen_generate_args(parser):
    parser.add_argument("--model-path")
    parser.add_argument("--prompt")
    for flag in ("--width", "--height", "--num-inference-steps", "--seed", "--num-frames"):
        parser.add_argument(flag, type=int)


def _resolve_cli_sampling_params_cls(server_args):
    return Sampling


def generate_request_id():
    return "replayed"
