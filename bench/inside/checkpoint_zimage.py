"""Make a tiny random-weight Z-Image pipeline in diffusers layout, offline.

Run by an engine's interpreter (it needs that engine's torch, diffusers and transformers), never imported:

    ENGINE_PYTHON checkpoint_zimage.py --out DIR --size tiny [--seed 0]
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from checkpoint_parts import QWEN_VOCABULARY, main, plain_vae, qwen_tokenizer, save_pipeline
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

if TYPE_CHECKING:
    from pathlib import Path

TEXT_DIM = 128


def transformer() -> ZImageTransformer2DModel:
    """Return the transformer; diffusers leaves the padding tokens uninitialised or zero, a trained model does not."""
    made = ZImageTransformer2DModel(
        in_channels=16,
        dim=256,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,  # 256 / 2 = 128 = the sum of the rotary axes
        n_kv_heads=2,
        cap_feat_dim=TEXT_DIM,
    )
    for parameter in made.parameters():
        if parameter.ndim == 1 and parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.02)
    for token in (made.x_pad_token, made.cap_pad_token):
        torch.nn.init.normal_(token, std=0.02)
    return made


def name_layers_twice(out: Path) -> None:
    """Add the names by which sglang reads the layer and head counts.

    Its Z-Image ignores diffusers' ``n_layers`` and ``n_heads`` and would expect 30 of each (seen in 0.5.23).
    """
    path = out / "transformer" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"num_layers": config["n_layers"], "num_attention_heads": config["n_heads"]}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def make(out: Path) -> None:
    """Write the whole pipeline."""
    pipeline = ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=plain_vae(shift_factor=0.1159, scaling_factor=0.3611),
        text_encoder=Qwen3Model(
            Qwen3Config(
                vocab_size=QWEN_VOCABULARY,
                hidden_size=TEXT_DIM,
                intermediate_size=2 * TEXT_DIM,
                num_hidden_layers=3,
                num_attention_heads=4,
                num_key_value_heads=2,
                head_dim=32,
                max_position_embeddings=4096,
            )
        ),
        tokenizer=qwen_tokenizer(Qwen2Tokenizer),
        transformer=transformer(),
    ).to(torch.bfloat16)
    save_pipeline(pipeline, out, before_index=name_layers_twice)


if __name__ == "__main__":
    main(make, __doc__)
