"""What broke a reader once is refused, or read, ever since."""

import fuzz
import pytest


@pytest.mark.parametrize(("name", "seed"), [(name, seed) for name in fuzz.READERS for seed in fuzz.seeds(name)])
def test_what_broke_a_reader_once_is_read_or_refused(name, seed, tmp_path, bench, bounded):
    if name == "record":
        bench()
    fuzz.read(name, tmp_path / "file", seed.read_bytes())


bounded = fuzz.bounded
