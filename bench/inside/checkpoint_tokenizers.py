"""CLIP's and T5's tokenizers in their own layouts, built without any file of the hub.

A part of the programs beside it (``checkpoint_*.py``), which an engine's interpreter runs; never run by itself.
"""

from __future__ import annotations

import json
import string
from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

if TYPE_CHECKING:
    from pathlib import Path

CLIP_WORD_END = "</w>"
CLIP_CONTEXT = 77
T5_CONTEXT = 512


def clip_tokenizer() -> tuple[Tokenizer, dict[str, int]]:
    """Return a byte-level BPE without merges, and its vocabulary: CLIP's layout (256 bytes, 256 word-ending bytes)."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(letter + CLIP_WORD_END for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, [], end_of_word_suffix=CLIP_WORD_END, unk_token="<|endoftext|>", fuse_unk=False)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), behavior="removed", invert=True
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    bos, eos = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]
    # TemplateProcessing and not RobertaProcessing: transformers 5.12 and tokenizers 0.23 disagree about the latter.
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        pair="<|startoftext|> $A <|endoftext|> <|startoftext|> $B <|endoftext|>",
        special_tokens=[("<|startoftext|>", bos), ("<|endoftext|>", eos)],
    )
    return tokenizer, vocabulary


def t5_tokenizer() -> Tokenizer:
    """Return a Unigram over printable ASCII in T5's order of special tokens (pad 0, eos 1, unk 2)."""
    letters = [(letter, -3.0) for letter in string.ascii_letters + string.digits + string.punctuation]
    tokenizer = Tokenizer(
        models.Unigram([("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters], unk_id=2)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return tokenizer


def write_json(path: Path, content: object) -> None:
    """Write JSON with a final newline."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def save_tokenizers(out: Path) -> None:
    """Write ``tokenizer/`` (CLIP) and ``tokenizer_2/`` (T5) with the files that the hub's FLUX.1 has."""
    folder = out / "tokenizer"
    folder.mkdir()
    tokenizer, vocabulary = clip_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    special = {"bos_token": "<|startoftext|>"} | dict.fromkeys(("eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    write_json(folder / "special_tokens_map.json", special)
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "CLIPTokenizer", "model_max_length": CLIP_CONTEXT, "do_lower_case": True, **special},
    )

    folder = out / "tokenizer_2"
    folder.mkdir()
    t5_tokenizer().save(str(folder / "tokenizer.json"))
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_json(folder / "special_tokens_map.json", special)
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "T5Tokenizer", "model_max_length": T5_CONTEXT, "extra_ids": 0, **special},
    )
