import csv
import io
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bench import safe_text

EVIL = {
    "a title": "\x1b]0;owned\x07after",
    "the clipboard (OSC 52)": "\x1b]52;c;ZXZpbA==\x1b\\after",
    "colours": "\x1b[31mafter\x1b[0m",
    "C1 controls": "\x9b31mafter",
    "an OSC of C1": "\x9d52;c;ZXZpbA==\x9cafter",
    "a character set": "\x1b(Bafter",
    "a reset": "\x1bcafter",
}


@pytest.mark.parametrize("text", EVIL.values(), ids=EVIL)
def test_no_control_sequence_reaches_a_terminal(text):
    assert safe_text.terminal(text) == "after"


def test_other_controls_are_shown_and_not_obeyed():
    assert safe_text.terminal("a\x07b\rc\u202ed\x7f") == "a\\x07b\\x0dc\\u202ed\\x7f"
    assert safe_text.terminal("two\nlines\tof it") == "two\nlines\tof it"
    assert safe_text.terminal("two\nlines", keep="") == "two\\x0alines"


@given(st.text())
@example("\x1b\x1b[0m[0m")
@example("\x1b]52;c;no end")
@example("\ud800")
def test_whatever_the_text_nothing_in_it_controls_a_terminal(text):
    safe = safe_text.terminal(text)
    assert not {unicodedata.category(c) for c in safe if c not in "\n\t"} & {"Cc", "Cs"}
    assert not {unicodedata.bidirectional(c) for c in safe} & {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI"}
    assert safe_text.terminal(safe) == safe
    safe.encode()


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs"))))
def test_plain_text_stays_as_it_is(text):
    assert safe_text.terminal(text) == text


MARKUP = (
    "<script>x</script>", "![i](https://x)", "[l](javascript:1)", "a | b", "**b**", "_e_", "@everyone", "`c`", "# h",
    "- item", "1. item", "> quote", "&lt;", "\\*x*", "~~s~~", "---", "===", "www.x.org", "https://x.org", "[x]: y",
    "+ z",
)  # fmt: skip


def seen(source):
    """Return the text that a reader of a page with a table sees; fail if anything in it is markup."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    paragraph, inline, _ = parser.parse(source)
    assert paragraph.type == "paragraph_open", source
    assert {child.type for child in inline.children} <= {"text", "text_special"}, source
    return "".join(child.content for child in inline.children)


@given(st.text("<>[]()!*_`#|~&;@$\\-+=.:/1aw \n", min_size=1) | st.sampled_from(MARKUP))
def test_markdown_shows_markup_as_text(text):
    plain = " ".join(text.split())
    if plain:
        assert seen(safe_text.markdown(text)) == plain


@pytest.mark.parametrize("text", ["https://x.org", "www.x.org", "@everyone", "#123", "a | b", ":smile:"])
def test_what_only_github_takes_for_markup_is_escaped_too(text):
    shown = safe_text.markdown(text)
    assert shown.replace("\\", "") == text != shown


def test_markdown_of_others_stays_on_its_line():
    assert safe_text.markdown("one\n\n- two\r\n") == "one \\- two" or "\n" not in safe_text.markdown("one\n\n- two\r\n")
    assert safe_text.markdown("sglang 0.5.23") == "sglang 0.5.23"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1"])
def test_no_cell_is_a_formula(text):
    file = io.StringIO()
    csv.writer(file).writerow([safe_text.csv_cell(text)])
    (row,) = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert row == ["'" + text]
    assert safe_text.csv_cell("void f<int>(x = 1)") == "void f<int>(x = 1)"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("`invoke ab` measures pairs", "`invoke ab` measures pairs"),
        ("`invoke compare A --metric denoise`, twice", "`invoke compare A --metric denoise`, twice"),
        ("`invoke <b>` and `rm -rf`", r"\`invoke \<b\>\` and \`rm -rf\`"),
        ("``invoke ab``", r"\`\`invoke ab\`\`"),
    ],
)
def test_a_command_of_a_sentence_is_code_and_no_other_backtick(text, told):
    assert safe_text.markdown(text) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("LD_LIBRARY_PATH=/home/x/lib:/home/x/lib64", "LD_LIBRARY_PATH=.../lib:.../lib64"),
        ("--model-path=/srv/models/tiny", "--model-path=.../tiny"),
        (
            "http://host/a/b https://host:30000/v1/c file name/of/it",
            "http://host/a/b https://host:30000/v1/c file name/of/it",
        ),
    ],
)
def test_the_folders_of_every_local_path_are_masked_and_of_no_address(text, told):
    assert safe_text.masked(text) == told
