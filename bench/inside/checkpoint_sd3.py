"""Make a tiny random-weight Stable Diffusion 3 pipeline in diffusers layout, offline.

Run by an engine's interpreter (it needs that engine's torch, diffusers and transformers), never imported:

    ENGINE_PYTHON checkpoint_sd3.py --out DIR --size tiny [--seed 0]

The tokenizers are those of the FLUX.1 recipe beside this file: both families read CLIP and T5.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from checkpoint_parts import main, plain_vae, save_pipeline
from checkpoint_tokenizers import clip_tokenizer, save_tokenizers
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

CLIP_DIM = 64
T5_DIM = 128
HEADS, HEAD_DIM = 2, 64


def clip_encoder() -> CLIPTextModelWithProjection:
    """Return one of the two CLIP text encoders; SD3 reads their last layer but one, so there are three."""
    _, vocabulary = clip_tokenizer()
    end = vocabulary["<|endoftext|>"]
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(vocabulary),
            hidden_size=CLIP_DIM,
            intermediate_size=2 * CLIP_DIM,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=77,
            projection_dim=CLIP_DIM,
            bos_token_id=vocabulary["<|startoftext|>"],
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def make(out: Path) -> None:
    """Write the whole pipeline."""
    with tempfile.TemporaryDirectory() as scratch:
        save_tokenizers(Path(scratch))
        clip = AutoTokenizer.from_pretrained(f"{scratch}/tokenizer")
        t5 = AutoTokenizer.from_pretrained(f"{scratch}/tokenizer_2")
    pipeline = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=32,
            in_channels=16,
            num_layers=2,
            attention_head_dim=HEAD_DIM,
            num_attention_heads=HEADS,
            joint_attention_dim=T5_DIM,  # both CLIPs side by side, padded to T5's width
            caption_projection_dim=HEADS * HEAD_DIM,
            pooled_projection_dim=2 * CLIP_DIM,
            out_channels=16,
            pos_embed_max_size=96,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=plain_vae(shift_factor=0.0609, scaling_factor=1.5305),
        text_encoder=clip_encoder(),
        tokenizer=clip,
        text_encoder_2=clip_encoder(),
        tokenizer_2=clip,
        text_encoder_3=T5EncoderModel(
            T5Config(
                vocab_size=256,
                d_model=T5_DIM,
                d_kv=32,
                d_ff=2 * T5_DIM,
                num_layers=2,
                num_heads=4,
                feed_forward_proj="gated-gelu",
                tie_word_embeddings=False,
            )
        ),
        tokenizer_3=t5,
    ).to(torch.bfloat16)
    save_pipeline(pipeline, out, before_index=restore_hub_key_names)


def restore_hub_key_names(out: Path) -> None:
    """Give both CLIPs' tensors the ``text_model.`` prefix of the hub's files; the projection has none there either.

    transformers 5 saves them without it, and sglang then loads transformers' CLIP instead of its own.
    """
    for name in ("text_encoder", "text_encoder_2"):
        file = out / name / "model.safetensors"
        tensors = {
            key if key.startswith(("text_model.", "text_projection.")) else f"text_model.{key}": value
            for key, value in load_file(file).items()
        }
        save_file(tensors, file, metadata={"format": "pt"})


if __name__ == "__main__":
    main(make, __doc__)
