"""What broke a reader once is refused, or read, ever since."""

import hashlib

import fuzz
import pytest

SEEDS = [(name, seed) for name in fuzz.READERS for seed in fuzz.seeds(name)]


@pytest.mark.parametrize(("name", "seed"), SEEDS)
def test_a_seed_is_named_by_the_hash_of_its_content(name, seed):
    """A seed that was edited, by a formatter too, may break nothing any more."""
    assert seed.name == hashlib.sha256(seed.read_bytes()).hexdigest()[:12]


@pytest.mark.parametrize(("name", "seed"), SEEDS)
def test_what_broke_a_reader_once_is_read_or_refused(name, seed, tmp_path, bench, bounded):
    if name == "record":
        bench()
    fuzz.read(name, tmp_path / "file", seed.read_bytes())


bounded = fuzz.bounded
