"""Six planted changes on the real engine, in one checkout and one traced launch: each fares as it must."""

import json

import planted
import pytest
from engine_support import CONFIGURATIONS, MINUTES, invoke

from bench.engine import find

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_six_planted_changes_fare_as_they_must(configuration, tmp_path):
    package = planted.checkout_of(find.built()[configuration], tmp_path / "checkout")
    expected = planted.plant_six(package)
    ended = invoke(
        "reach", "--model", "flux-tiny", "--engine", f"source:{tmp_path / 'checkout'}@{configuration}", "--json",
        runs=tmp_path / "runs", timeout=15 * MINUTES,
    )  # fmt: skip
    assert ended.code == 0, ended.out + ended.err
    document = json.loads(ended.out)
    fared = {}
    for what, (file, _) in expected.items():
        (line,) = (number for number, text in enumerate(file.read_text().splitlines(), 1) if f"'{what}'" in text)
        (fared[what],) = (
            part["ran"]
            for part in document["parts"]
            if str(file).endswith(part["file"]) and part["first"] <= line <= part["last"]
        )
    assert fared == {what: fate for what, (_, fate) in expected.items()}
