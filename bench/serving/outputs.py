"""What a server answered, read after the load: identity, service time, and the pictures as pixels."""

from __future__ import annotations

import base64
import binascii
from collections import Counter, defaultdict
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson

from bench.fallback import media
from bench.fidelity import similarity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np

    from bench.fidelity.similarity import Similarity
    from bench.serving.client import Exchange
    from bench.serving.request import ImageRequest

SHOWN_CHARACTERS = 200
NEAR_DB = 15.0
BATCHED_LEVELS = 1
"""Of 255: merged requests differed from lone ones by at most this on a CPU (0.5.23, batches of four)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one exchange brought. ``fault`` says why it is a miss; it is None only for pictures as they were asked for.

    ``service_s`` is the server's own execution time, without queueing. ``pixels_sha256`` has one hash for each output.
    """

    server_id: str | None = None
    service_s: float | None = None
    pixels_sha256: tuple[str, ...] = ()
    fault: str | None = None


def read(exchange: Exchange) -> Answer:
    """Return what an exchange brought; every picture is decoded and its size compared with what was asked."""
    if exchange.status is None:
        return Answer(fault=exchange.error or "no answer")
    if exchange.status != HTTPStatus.OK:
        said = (exchange.body or b"")[:SHOWN_CHARACTERS].decode(errors="replace")
        return Answer(fault=f"HTTP {exchange.status}: {said}")
    try:
        content = orjson.loads((exchange.body if exchange.job is None else exchange.job) or b"")
    except orjson.JSONDecodeError as error:
        return Answer(fault=f"the answer is not JSON: {error}")
    if not isinstance(content, dict):
        return Answer(fault="the answer is not a JSON object")
    server_id, service_s = content.get("id"), content.get("inference_time_s")
    known = Answer(
        server_id=server_id if isinstance(server_id, str) else None,
        service_s=float(service_s) if isinstance(service_s, int | float) and service_s > 0 else None,
    )
    hashes, fault = _pictures(content.get("data"), exchange) if exchange.job is None else _video(content, exchange)
    return Answer(server_id=known.server_id, service_s=known.service_s, pixels_sha256=hashes, fault=fault)


def _video(job: Mapping[str, Any], exchange: Exchange) -> tuple[tuple[str, ...], str | None]:
    """Return the hash over the frames of a job's video, and what is wrong with it."""
    asked = exchange.request
    if job.get("status") != "completed":
        return (), f"the job {job.get('status')}: {str(job.get('error'))[:SHOWN_CHARACTERS]}"
    try:
        seen = media.look_at(exchange.body or b"", is_video=True)
    except media.Undecodable as error:
        return (), f"a video does not decode: {error}"
    hashes = (seen.pixels_sha256,)
    if (seen.width, seen.height) != (asked.width, asked.height):
        return hashes, f"a video of {seen.width}x{seen.height}, asked for {asked.width}x{asked.height}"
    wanted = getattr(asked, "frames", None)
    if wanted is not None and seen.frames != wanted:
        return hashes, f"a video of {seen.frames} frames, asked for {wanted}"
    return hashes, "every pixel has the same colour: the model computed NaN, or nothing" if seen.one_colour else None


def _pictures(data: Any, exchange: Exchange) -> tuple[tuple[str, ...], str | None]:
    """Return the hash of each picture, and what is wrong with one of them or with their number."""
    asked = exchange.request
    if not isinstance(data, list) or len(data) != asked.outputs:
        count = len(data) if isinstance(data, list) else "no"
        return (), f"{count} pictures, asked for {asked.outputs}"
    hashes: list[str] = []
    for entry in data:
        try:
            seen = media.look_at(base64.b64decode(entry["b64_json"], validate=True), is_video=False)
        except (KeyError, TypeError, binascii.Error) as error:
            return tuple(hashes), f"no picture in the answer: {type(error).__name__} {error}"
        except media.Undecodable as error:
            return tuple(hashes), f"a picture does not decode: {error}"
        hashes.append(seen.pixels_sha256)
        if (seen.width, seen.height) != (asked.width, asked.height):
            return tuple(hashes), f"a picture of {seen.width}x{seen.height}, asked for {asked.width}x{asked.height}"
        if seen.one_colour:
            return tuple(hashes), "every pixel has the same colour: the model computed NaN, or nothing"
    return tuple(hashes), None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A picture that is another than the one its request must give; ``similarity`` None: one of them is not kept."""

    index: int
    seed: int
    against: str
    similarity: Similarity | None

    @property
    def is_near(self) -> bool:
        """Whether it is the same picture in other numerics; two pictures of different seeds are far below."""
        similar = self.similarity
        return similar is not None and (similar.psnr_db is None or similar.psnr_db >= NEAR_DB)

    @property
    def within_batching(self) -> bool:
        """Whether it is as near as merged requests are."""
        levels = None if self.similarity is None else self.similarity.max_levels
        return levels is not None and levels <= BATCHED_LEVELS


def differences(
    answered: Iterable[tuple[Exchange, Answer]],
    references: Mapping[tuple[str, ...], tuple[str, ...]] | None = None,
    against: str = "",
    kept: Iterable[tuple[Exchange, Answer]] = (),
) -> list[Difference]:
    """Return the pictures that are not the reference's, or not those that most answers to the same request have.

    ``references`` has the pixels' hashes by `asked` of a request, and ``against`` says whose they are; ``kept`` are
    exchanges of other phases whose bodies a reference may be in.
    """
    others = {answer.pixels_sha256: exchange for exchange, answer in kept if exchange.body is not None}
    by_request: dict[tuple[str, ...], list[tuple[Exchange, Answer]]] = defaultdict(list)
    for exchange, answer in answered:
        if answer.fault is None:
            by_request[asked(exchange.request)].append((exchange, answer))
    differing = []
    for key, answers in by_request.items():
        reference = (references or {}).get(key)
        usual = Counter(answer.pixels_sha256 for _, answer in answers).most_common(1)[0][0]
        wanted = reference or usual
        bodies = others | {answer.pixels_sha256: exchange for exchange, answer in answers if exchange.body is not None}
        differing += [
            Difference(
                index=exchange.index,
                seed=exchange.request.seed,
                against=against if reference else "the other answers to this request",
                similarity=similarity_of(bodies[answer.pixels_sha256], bodies[wanted])
                if {answer.pixels_sha256, wanted} <= bodies.keys()
                else None,
            )
            for exchange, answer in answers
            if answer.pixels_sha256 != wanted
        ]
    return differing


def asked(request: ImageRequest) -> tuple[str, ...]:
    """Return what decides a request's pixels, as a key."""
    return (
        request.prompt, str(request.negative_prompt), str(request.seed), str(request.steps),
        f"{request.width}x{request.height}", str(request.outputs), str(request.guidance),
        str(getattr(request, "frames", None)),
    )  # fmt: skip


def similarity_of(one: Exchange, other: Exchange) -> Similarity:
    """Return how alike the first pictures, or the videos, of two answers are that both decode."""
    return similarity.compare(_frames(one), _frames(other))


def _frames(exchange: Exchange) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if exchange.job is not None:
        return media.pictures(exchange.body or b"", is_video=True)
    data = orjson.loads(exchange.body or b"")["data"][0]["b64_json"]
    return media.pictures(base64.b64decode(data), is_video=False)
