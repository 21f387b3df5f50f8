import json
import os

import pytest

from bench.errors import InvalidDocument
from bench.record import index


class Reader:
    """Reads a number out of a file and counts how often."""

    def __init__(self):
        self.read = []

    def __call__(self, path):
        self.read.append(path.parent.name)
        try:
            value = json.loads(path.read_text())
        except ValueError as error:
            raise InvalidDocument("not JSON") from error
        return value if value != "other" else None


@pytest.fixture
def runs(tmp_path):
    for name, content in {"b": "2", "a": "1", "broken": "{", "other": '"other"'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(content)
    return tmp_path


def answers(runs, reader=None, question="number"):
    reader = reader or Reader()
    good, faults = index.answers(runs, "run.json", question, reader)
    return {path.parent.name: value for path, value in good}, {path.parent.name: why for path, why in faults}, reader


def test_each_file_is_read_once(runs):
    first, second = answers(runs), answers(runs)
    assert first[:2] == second[:2] == ({"a": 1, "b": 2}, {"broken": "not JSON"})
    assert list(first[0]) == ["a", "b"]
    assert sorted(first[2].read) == ["a", "b", "broken", "other"]
    assert second[2].read == []


def test_a_reader_that_is_interrupted_keeps_what_it_read(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "KEPT_AT_ONCE", 3)
    for number in range(8):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "run.json").write_text("1")

    class Interrupted(Reader):
        def __call__(self, path):
            if path.parent.name == "7":
                raise KeyboardInterrupt
            return super().__call__(path)

    with pytest.raises(KeyboardInterrupt):
        answers(tmp_path, Interrupted())
    good, _, reader = answers(tmp_path)
    assert len(good) == 8
    assert reader.read == ["6", "7"]


def test_what_changed_came_or_went_is_seen(runs):
    answers(runs)
    (runs / "a" / "run.json").write_text("11")
    (runs / "c").mkdir()
    (runs / "c" / "run.json").write_text("3")
    (runs / "b" / "run.json").unlink()
    good, _, reader = answers(runs)
    assert good == {"a": 11, "c": 3}
    assert sorted(reader.read) == ["a", "c"]
    assert answers(runs)[2].read == []


def test_a_change_that_keeps_the_size_is_seen(runs):
    answers(runs)
    path = runs / "a" / "run.json"
    path.write_text("7")
    os.utime(path, ns=(path.stat().st_mtime_ns + 1,) * 2)
    assert answers(runs)[0]["a"] == 7


def test_another_question_is_asked_anew(runs):
    answers(runs)
    assert len(answers(runs, question="another")[2].read) == 4
    assert answers(runs)[2].read == []


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"x" * 5000])
def test_a_broken_index_is_made_anew(runs, content):
    (runs / index.INDEX).write_bytes(content)
    assert answers(runs)[0] == {"a": 1, "b": 2}
    assert answers(runs)[2].read == []


def test_an_index_of_another_shape_is_made_anew_or_done_without(runs):
    import sqlite3

    with sqlite3.connect(runs / index.INDEX) as other:
        other.execute("create table files (x)")
    assert answers(runs)[0] == {"a": 1, "b": 2}


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_an_index_that_cannot_be_used_is_done_without(runs, kind, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "file"
    place = runs / index.INDEX
    {"link": lambda: place.symlink_to(elsewhere), "folder": place.mkdir, "fifo": lambda: os.mkfifo(place)}[kind]()
    assert answers(runs)[0] == {"a": 1, "b": 2}
    assert not elsewhere.exists()


def test_a_fifo_or_a_loop_of_links_is_not_waited_for(runs):
    (runs / "fifo").mkdir()
    os.mkfifo(runs / "fifo" / "run.json")
    (runs / "loop").symlink_to(runs)
    assert answers(runs)[0] == {"a": 1, "b": 2}
