"""Input images from a server on this machine: checked, and stored whole or not at all."""

import http.server
import io
import json
import threading

import pytest
from PIL import Image

CAT = "cat.png"


def picture(colour):
    file = io.BytesIO()
    image = Image.effect_noise((300, 200), 80).convert("RGB")
    image.putpixel((0, 0), colour)
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def server():
    """A server that has `files`, breaks off after `cut` bytes once, and counts its answers."""

    class Handler(http.server.BaseHTTPRequestHandler):
        files, cut, served = {}, None, 0

        def do_GET(self):
            content = self.files.get(self.path.strip("/"))
            if content is None:
                self.send_error(404)
                return
            Handler.served += 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if Handler.cut is not None:
                content, Handler.cut = content[: Handler.cut], None
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    Handler.address = f"http://127.0.0.1:{served.server_port}"
    yield Handler
    served.shutdown()
    served.server_close()
    thread.join()


@pytest.fixture
def assets(invoke, home):
    folder = home / "assets"

    def run(*arguments):
        return invoke("assets", *arguments, env={"BENCH_ASSETS": str(folder), "no_proxy": "*"})

    run.folder = folder
    return run


def left_over(folder):
    return sorted(path.name for path in folder.iterdir())


def test_no_network_says_which_preset_needs_what(assets):
    ended = assets("--mirror", "http://127.0.0.1:9")
    assert ended.code == 10
    assert "mova_single_person.jpg: download failed" in ended.out
    assert "needed by: mova-360p, mova-720p" in ended.out
    assert "could not fetch 4 of 4 images" in ended.err
    assert left_over(assets.folder) == []


def test_an_image_is_fetched_once_and_then_is_here(assets, server):
    server.files[CAT] = picture((1, 2, 3))
    first = assets("--only", CAT, "--mirror", server.address)
    assert first.code == 0, first.err
    assert "cat.png: fetched" in first.out
    assert left_over(assets.folder) == [CAT, "cat.png.sha256"]
    second = assets("--only", CAT, "--mirror", server.address)
    assert "cat.png: here" in second.out
    assert server.served == 1


def test_a_download_that_was_cut_leaves_nothing(assets, server):
    server.files[CAT], server.cut = picture((1, 2, 3)), 5000
    first = assets("--only", CAT, "--mirror", server.address)
    assert first.code == 10
    assert "download failed: it broke off" in first.out
    assert left_over(assets.folder) == []
    assert assets("--only", CAT, "--mirror", server.address).code == 0


def test_what_is_no_image_is_not_kept(assets, server):
    server.files[CAT] = b"<html>please log in</html>"
    ended = assets("--only", CAT, "--mirror", server.address)
    assert ended.code == 10
    assert "not an image" in ended.out
    assert left_over(assets.folder) == []


def test_an_image_that_was_changed_is_found_and_can_be_fetched_again(assets, invoke, server, replay):
    server.files[CAT] = picture((1, 2, 3))
    assets("--only", CAT, "--mirror", server.address)
    (assets.folder / CAT).write_bytes(picture((7, 7, 7)))
    ended = assets("--only", CAT, "--mirror", server.address)
    assert ended.code == 10
    assert "image hash mismatch" in ended.out
    checked = invoke(
        "doctor", "--model", "wan-ti2v", "--engine", replay(), "--json", env={"BENCH_ASSETS": str(assets.folder)}
    )
    line = next(line for line in json.loads(checked.out)["lines"] if line["id"] == "image")
    assert line["state"] == "fail"
    assert assets("--only", CAT, "--again", "--mirror", server.address).code == 0
    assert assets("--only", CAT).code == 0


def test_one_that_fails_does_not_stop_the_others(assets, server):
    server.files[CAT] = picture((1, 2, 3))
    ended = assets("--mirror", server.address)
    assert ended.code == 10
    assert "cat.png: fetched" in ended.out
    assert "mova_single_person.jpg: the server refuses: 404" in ended.out
    assert "could not fetch 3 of 4 images" in ended.err


def test_a_users_own_file_is_accepted(assets, tmp_path):
    mine = tmp_path / "mine.png"
    mine.write_bytes(picture((4, 5, 6)))
    ended = assets("--own", f"cat.png={mine}")
    assert ended.code == 0, ended.err
    assert (assets.folder / CAT).read_bytes() == mine.read_bytes()
    assert "300x200 PNG" in assets("--list").out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--only", "dog.png"), "no image is called 'dog.png'"),
        (("--own", "cat.png"), "--own takes NAME=FILE"),
        (("--own", "cat.png=/no/such.png"), "the input image is missing"),
        (("--only", "cat.png", "--mirror", "file:///etc"), "not an http(s) URL"),
    ],
)
def test_a_users_mistake_is_one_clear_error(assets, arguments, says):
    ended = assets(*arguments)
    assert ended.code in (1, 10)
    assert says in ended.out + ended.err


def test_a_hash_that_the_catalogue_has_is_the_only_one_that_is_taken(monkeypatch, tmp_path, server):
    from bench.catalog.assets import Asset
    from bench.errors import UsageError
    from bench.models import images

    monkeypatch.setenv("BENCH_ASSETS", str(tmp_path / "assets"))
    server.files[CAT] = picture((1, 2, 3))
    wanted = Asset(name=CAT, url=f"{server.address}/{CAT}", sha256="0" * 64)
    with pytest.raises(UsageError, match="image hash mismatch"):
        images.fetch(wanted, mirror=None, again=False)
    assert left_over(tmp_path / "assets") == []


def test_every_image_of_a_preset_is_in_the_catalogue():
    from bench.catalog import assets, presets

    assert {p.image for p in presets.built_in().values() if p.image} == set(assets.listed())
