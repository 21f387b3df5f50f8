"""What the recipes of tiny checkpoints share: their command line, a small VAE, Qwen's tokenizer, and the last step.

A part of the programs beside it (``checkpoint_*.py``), which an engine's interpreter runs; never run by itself.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers import AutoencoderKL
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusers import DiffusionPipeline

INDEX = "model_index.json"

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
QWEN_VOCABULARY = 512
"""Rows of the embedding: more than the tokenizer's 263 words."""


def qwen_tokenizer(kind: type) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE without merges in Qwen's layout; ``kind`` is the class that the pipeline names."""
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *QWEN_SPECIAL]
    vocabulary = {word: number for number, word in enumerate(words)}
    special = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
    try:
        tokenizer = kind(
            vocab=vocabulary,
            merges=[],
            unk_token="<|endoftext|>",
            additional_special_tokens=list(QWEN_SPECIAL),
            **special,
        )
    except (TypeError, ValueError):  # transformers 4 takes files and no vocabulary
        plain = Tokenizer(models.BPE(vocabulary, []))
        plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        plain.decoder = decoders.ByteLevel()
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=plain, additional_special_tokens=list(QWEN_SPECIAL), **special
        )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = 4096
    return tokenizer


def plain_vae(*, shift_factor: float, scaling_factor: float) -> AutoencoderKL:
    """Return a small VAE of 16 latent channels.

    ``sample_size`` is not below any output's side: else the two backends tile differently and their images differ.
    """
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32,) * 4,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        sample_size=1024,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=shift_factor,
        scaling_factor=scaling_factor,
    )


def save_pipeline(pipeline: DiffusionPipeline, out: Path, before_index: Callable[[Path], None] | None = None) -> None:
    """Write a pipeline, let ``before_index`` change it, and only then give it its index: no index, no pipeline."""
    pipeline.save_pretrained(out)
    index = out / INDEX
    hidden = index.rename(out / f".{INDEX}")
    if before_index is not None:
        before_index(out)
    hidden.rename(index)


def main(make: Callable[[Path], None], description: str) -> None:
    """Read the command line of a recipe and make its checkpoint; the same seed gives the same bytes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=("tiny",), required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.manual_seed(arguments.seed)
    make(arguments.out)
