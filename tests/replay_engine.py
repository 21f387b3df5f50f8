"""A stand-in for `sglang` that emits a captured log and dump: for failures that cannot be provoked in the real engine.

Reads the scenario in replay.json beside its environment. Never used where the real engine could run.
"""

import argparse
import json
import os
import struct
import subprocess
import sys
import time
import zlib
from datetime import UTC, datetime
from pathlib import Path


def rows_of(width, height, colours=2, shift=0, blue=20):
    """Return the rows of an RGB picture; ``shift`` makes its red brighter."""
    return [
        bytes(v for x in range(width) for v in ((min(255, (x + y) * 7 % 256 + shift) if colours > 1 else 0), 10, blue))
        for y in range(height)
    ]


def png(path, width, height, colours=2, shift=0, blue=20):
    """Write an RGB image by hand: the engine under test must not need our libraries."""
    rows = b"".join(b"\0" + row for row in rows_of(width, height, colours, shift, blue))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def mp4(path, width, height, frames, shifts=()):
    """Write a video whose frames are the picture; ``shifts`` makes frames (by number, from 0) brighter."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p"
        for number in range(frames):
            picture = av.VideoFrame(width, height, "rgb24")
            plane = picture.planes[0]
            rows = rows_of(width, height, shift=dict(shifts).get(number, 0))
            plane.update(b"".join(row.ljust(plane.line_size, b"\0") for row in rows))
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def save(scenario, path, asked):
    """Write the picture of a scenario."""
    size = scenario.get("size", asked)
    png(path, *size, colours=scenario.get("colours", 2), shift=scenario.get("shift", 0))
    if "png_says" in scenario:  # a size that its pixels do not have
        header = b"IHDR" + struct.pack(">IIBBBBB", *scenario["png_says"], 8, 2, 0, 0, 0)
        content = path.read_bytes()
        path.write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])


def serve():
    """Become the server that the scenario names, if it names one and one is asked for."""
    settings = Path(sys.argv[0]).resolve().parent.parent / "replay.json"
    program = json.loads(settings.read_text()).get("serves")
    if program is not None and sys.argv[1] == "serve":
        os.execv(sys.executable, [sys.executable, program, str(settings), *sys.argv[2:]])


def main():
    scenario = json.loads((Path(sys.argv[0]).resolve().parent.parent / "replay.json").read_text())
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("verb")
    for flag in ("--model-path", "--output-path", "--output-file-name", "--perf-dump-path", "--prompt"):
        parser.add_argument(flag)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--seed", type=int, default=42)
    asked, _ = parser.parse_known_args()

    if "download" in scenario:
        # as the hub's client does: blobs that grow, in the cache that the environment names
        blobs = Path(os.environ["HF_HUB_CACHE"]) / "models--owner--model" / "blobs"
        blobs.mkdir(parents=True)
        (blobs / "weights.safetensors").write_bytes(b"x" * scenario["download"])
        (blobs / "next.incomplete").write_bytes(b"x")
        token = Path(os.environ.get("HF_TOKEN_PATH", "/nowhere"))
        (blobs / "token_seen").write_text(token.read_text() if token.is_file() else "none")
    for session in (False, True)[: scenario.get("children", 0)]:
        subprocess.Popen(["sleep", "300.125"], start_new_session=session)
    out = sys.stdout.buffer
    if "log" in scenario:
        for line in Path(scenario["log"]).read_bytes().splitlines(keepends=True):
            out.write(line.replace(b" seed: 42", b" seed: %d" % asked.seed))
            out.flush()
            if "pause_after" in scenario and scenario["pause_after"].encode() in line:
                time.sleep(scenario["pause_s"])
    for text in scenario.get("lines", ()):
        out.write(text.encode() + b"\n")
    out.flush()
    if "flood_bytes" in scenario:
        line = b"[11-22 08:53:49] an ordinary line of an engine that talks too much, number 0123456789 of very many\n"
        block = line * 1000
        for _ in range(scenario["flood_bytes"] // len(block)):
            out.write(block)
        out.flush()
    if kind := scenario.get("dump_is"):
        make = {"folder": os.mkdir, "fifo": os.mkfifo}.get(kind, lambda path: os.symlink(kind, path))
        make(asked.perf_dump_path)
    elif "dump" in scenario:
        dump = json.loads(Path(scenario["dump"]).read_text())
        dump |= {"timestamp": datetime.now(UTC).isoformat()}
        dump["meta"] = {"prompt": [asked.prompt], "model": asked.model_path}
        dump |= scenario.get("dump_changes", {})
        Path(asked.perf_dump_path).write_text(json.dumps(dump))
    if scenario.get("image", True):
        save(scenario, Path(asked.output_path) / asked.output_file_name, (asked.width, asked.height))
    linger(scenario)
    sys.stdout.flush()
    os._exit(scenario.get("exit", 0))


def linger(scenario):
    time.sleep(scenario.get("linger_s", 0))
    while "linger_until" in scenario and not os.path.exists(scenario["linger_until"]):
        time.sleep(0.1)


if __name__ == "__main__":
    serve()
    main()
