import json
import os
import shlex

import pytest
from helpers import ROOT
from hypothesis import given
from hypothesis import strategies as st

from bench import redact

CANARY = "c4n4ryS3cretV4lue"
TOKEN = "hf_Abcdefghijklmnopqrstuvwxyz012345"


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN", "SGLANG_SECRET", "DB_PASSWORD", "MYSQL_PASSWD", "SGLANG_PWD", "HF_AUTH", "SGLANG_API_KEY",
        "AWS_CREDENTIALS", "GITHUBTOKEN", "hf_token", "api-key", "WANDB_APIKEY",
    ],
)  # fmt: skip
def test_a_secrets_name_is_known(name):
    assert redact.is_secret(name)
    assert redact.variables({name: CANARY}) == {name: redact.HIDDEN}


@pytest.mark.parametrize(
    "name", ["TOKENIZERS_PARALLELISM", "PWD", "OMP_NUM_THREADS", "KEYBOARD", "AUTHOR", "key", "HF_HOME", "MONKEY"]
)
def test_an_innocent_name_is_shown(name):
    assert redact.variables({name: "false"}) == {name: "false"}


@pytest.mark.parametrize(
    "text",
    [
        f"HF_ENDPOINT=https://user:{CANARY}@host/path",
        f"https://{CANARY}@host",
        f"https://us@er:{CANARY}@host/x",
        f"https://host/x?token={CANARY}&a=1",
        f"HF_TOKEN={CANARY} steps=20",
        f"--api-key {CANARY} --seed 1",
        f"--api-key={CANARY}",
        f"SGLANG_API_KEY='{CANARY}'",
        f'{{"HF_TOKEN": "{CANARY}"}}',
        f"Authorization: Bearer {CANARY}",
    ],
)
def test_a_secret_in_a_text_is_hidden(text):
    assert CANARY not in redact.text(text)


def test_a_token_is_known_by_its_look_wherever_it_is():
    assert redact.text(f"401 for {TOKEN}, sorry") == f"401 for {redact.HIDDEN}, sorry"
    assert redact.value("ANYTHING", f"x{TOKEN[2:]} {TOKEN}").endswith(redact.HIDDEN)


def test_a_secret_that_is_known_is_found_everywhere():
    known = redact.values({"HF_TOKEN": CANARY, "HOME": "/home/me"})
    assert known == {CANARY}
    assert redact.text(f"cannot log in with {CANARY}", known) == f"cannot log in with {redact.HIDDEN}"


def test_a_document_loses_its_secrets_and_nothing_else():
    document = {
        "preset": {"key": "flux", "environment": {"HF_TOKEN": CANARY, "OMP_NUM_THREADS": "1"}, "steps": 4},
        "argv": ["sglang", "--api-key", CANARY, "--seed=1", f"--hf-token={CANARY}"],
        "spec": f"steps=4 HF_TOKEN={CANARY}",
        "none": None,
    }
    shown = redact.document(document)
    assert CANARY not in json.dumps(shown)
    assert shown["preset"] == {
        "key": "flux", "environment": {"HF_TOKEN": redact.HIDDEN, "OMP_NUM_THREADS": "1"}, "steps": 4
    }  # fmt: skip
    assert shown["argv"] == ["sglang", "--api-key", redact.HIDDEN, "--seed=1", f"--hf-token={redact.HIDDEN}"]
    assert shown["none"] is None


def names(schema):
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for inner in schema.values():
            yield from names(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from names(inner)


def test_no_member_of_our_own_documents_is_taken_for_a_secret():
    schemas = [json.loads(path.read_text()) for path in (ROOT / "schemas").glob("*.json")]
    assert [name for schema in schemas for name in names(schema) if redact.is_secret(name)] == []


@given(st.text(), st.text("abcdefXYZ0123456789", min_size=8))
def test_whatever_stands_around_it_a_known_secret_goes(text, secret):
    assert secret not in redact.text(f"{text}{secret}{text}", {secret}).replace(redact.HIDDEN, "")


@pytest.mark.parametrize("text", [f"HF_TOKEN='{CANARY}' a=1", f"HF_TOKEN={CANARY} a=1", f"--api-key {CANARY} --seed=1"])
def test_what_is_hidden_stays_as_it_is(text):
    shown = redact.text(text)
    assert redact.text(shown) == shown
    assert redact.text(shlex.join(["A_TOKEN=" + redact.HIDDEN])) == shlex.join(["A_TOKEN=" + redact.HIDDEN])


def test_an_option_after_a_secrets_name_without_a_value_is_no_secret():
    redact.learn({}, ["--hub-token", "--output-file-name=output.png", "--api-key", "s3cr3t-value"])
    assert redact.known() - redact.values(os.environ) == {"s3cr3t-value"}
