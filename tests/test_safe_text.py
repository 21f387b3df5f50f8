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
        ("file:///home/ann/x/y.log", "file://.../y.log"),
        ("git+file:///home/ann/x", "git+file://.../x"),
        ("-L/home/ann/lib/x -I/home/ann/inc -isystem/home/ann/inc", "-L.../x -I.../inc -isystem.../inc"),
        ("/data/a,b/ann/x/y", ".../y"),
        ("/home/o'brien/x,/srv/ann/y '/a/b/c'", ".../x,.../y '.../c'"),
        ("-v /home/ann/x:/data/y 2>/home/ann/log", "-v .../x:.../y 2>.../log"),
        ("<https://e.co/x>,/home/ann/y https://e.co/x,/home/ann/y", "<https://e.co/x>,.../y https://e.co/x,.../y"),
    ],
)
def test_the_folders_of_every_local_path_are_masked(text, told):
    assert safe_text.masked(text) == told
    assert safe_text.masked(safe_text.markdown(text)).replace("\\", "") == told


NOT_LOCAL = (
    "http://host/a/b", "https://host:30000/v1/c", "https://e.co/view?p=/a/b/c", "https://e.co/w(x)/y/z",
    "s3://bucket/a/b", "name/of/it", "./a/b/c", "../a/b/c", "~/a/b/c", "$HOME/a/b", "${X}/a/b", "(a)/(b)/c",
    "*.py/**/a/b", "urn:x:2#/properties/a/b", "c++/12/bits/x", ".../y", "and/or", "1/2/3", "/etc",
)  # fmt: skip


@pytest.mark.parametrize("text", NOT_LOCAL)
def test_what_is_no_local_path_stays_whole(text):
    assert safe_text.masked(text) == text
    assert safe_text.masked(safe_text.markdown(text)).replace("\\", "") == text


@given(
    st.lists(st.sampled_from(NOT_LOCAL)),
    st.sampled_from(
        ["", "file://", "-L", "-I", "A=", "--x=", "(", "[", "{", "<", ">", "'", '"', "`", "a:", "a,", "a;", "|", "@"]
    ),
    st.lists(
        st.from_regex(r"[\w.@+~()*#$-]{0,3}([,:;'][\w-])?", fullmatch=True).map(lambda name: f"ann{name}"), min_size=1
    ),
)
def test_whatever_stands_around_it_no_folder_of_a_path_is_left(others, before, folders):
    text = " ".join([*others, f"{before}/{'/'.join(folders)}/last", *others])
    told = " ".join([*others, f"{before}.../last", *others])
    assert safe_text.masked(text) == told
    assert "ann" not in safe_text.masked(safe_text.markdown(text))


@pytest.mark.parametrize("home", ["/home/john doe", "/home/_j* doe"])
def test_a_home_folder_with_a_blank_is_masked_too(monkeypatch, home):
    monkeypatch.setenv("HOME", home)
    text = f"see {home}/models/x.log and {home}, not {home}-2"
    for page in (text, safe_text.markdown(text)):
        assert safe_text.masked(page).startswith("see .../x.log and /..., not .../")
