"""Make a tiny random-weight FLUX.2 [klein] pipeline in diffusers layout, offline.

Run by an engine's interpreter (it needs that engine's torch, diffusers and transformers), never imported:

    ENGINE_PYTHON checkpoint_flux2_klein.py --out DIR --size tiny [--seed 0]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from checkpoint_parts import QWEN_VOCABULARY, main, qwen_tokenizer, save_pipeline
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from transformers import Qwen2TokenizerFast, Qwen3Config, Qwen3ForCausalLM

if TYPE_CHECKING:
    from pathlib import Path

TEXT_DIM = 64
TEXT_LAYERS = 28
"""The pipeline reads the text encoder's hidden states 9, 18 and 27, so there are at least 28 layers."""
LAYERS_READ = 3


def make(out: Path) -> None:
    """Write the whole pipeline."""
    pipeline = Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True,
            base_shift=0.5,
            max_shift=1.15,
            base_image_seq_len=256,
            max_image_seq_len=4096,
            shift=3.0,
            time_shift_type="exponential",
        ),
        vae=AutoencoderKLFlux2(block_out_channels=(32,) * 4, layers_per_block=1, latent_channels=32, norm_num_groups=8),
        text_encoder=Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=QWEN_VOCABULARY,
                hidden_size=TEXT_DIM,
                intermediate_size=2 * TEXT_DIM,
                num_hidden_layers=TEXT_LAYERS,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=32,
                max_position_embeddings=4096,
            )
        ),
        tokenizer=qwen_tokenizer(Qwen2TokenizerFast),
        transformer=Flux2Transformer2DModel(
            in_channels=128,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=128,
            num_attention_heads=2,
            joint_attention_dim=LAYERS_READ * TEXT_DIM,
            guidance_embeds=False,
        ),
        is_distilled=True,
    ).to(torch.bfloat16)
    save_pipeline(pipeline, out)


if __name__ == "__main__":
    main(make, __doc__)
