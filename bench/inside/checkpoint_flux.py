"""Make a random-weight FLUX.1 pipeline in diffusers layout, offline.

Run by an engine's interpreter (it needs that engine's torch, diffusers and transformers), never imported:

    ENGINE_PYTHON checkpoint_flux.py --out DIR --size tiny|full [--seed 0]

Weights are drawn from torch's default initialisers with a fixed seed, so a seed gives the same bytes on the same
kind of device and library versions. The latency of a dense model does not depend on the values of its weights.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from checkpoint_tokenizers import CLIP_CONTEXT, clip_tokenizer, save_tokenizers, write_json
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Layer counts and widths of the four models; the values of ``FULL`` are FLUX.1-dev's published configuration."""

    double_blocks: int
    single_blocks: int
    heads: int
    head_dim: int
    rope_axes: tuple[int, int, int]
    clip_vocab: int
    clip_dim: int
    clip_inner: int
    clip_layers: int
    clip_heads: int
    t5_vocab: int
    t5_dim: int
    t5_inner: int
    t5_layers: int
    t5_heads: int
    t5_head_dim: int
    vae_channels: tuple[int, int, int, int]
    vae_layers: int
    vae_groups: int
    latent_channels: int
    image_side: int


SIZES = {
    "tiny": Shapes(
        double_blocks=2,
        single_blocks=2,
        heads=4,
        head_dim=64,
        rope_axes=(16, 24, 24),
        clip_vocab=514,
        clip_dim=64,
        clip_inner=128,
        clip_layers=2,
        clip_heads=4,
        t5_vocab=256,
        t5_dim=64,
        t5_inner=128,
        t5_layers=2,
        t5_heads=4,
        t5_head_dim=16,
        vae_channels=(32, 32, 32, 32),
        vae_layers=1,
        vae_groups=8,
        latent_channels=16,
        image_side=1024,
    ),
    "full": Shapes(
        double_blocks=19,
        single_blocks=38,
        heads=24,
        head_dim=128,
        rope_axes=(16, 56, 56),
        clip_vocab=49408,
        clip_dim=768,
        clip_inner=3072,
        clip_layers=12,
        clip_heads=12,
        t5_vocab=32128,
        t5_dim=4096,
        t5_inner=10240,
        t5_layers=24,
        t5_heads=64,
        t5_head_dim=64,
        vae_channels=(128, 256, 512, 512),
        vae_layers=2,
        vae_groups=32,
        latent_channels=16,
        image_side=1024,
    ),
}


def save(model: torch.nn.Module, folder: Path) -> None:
    """Write one model in bfloat16 and give its memory back."""
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="10GB")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{folder.name}: {parameters / 1e6:,.1f} M parameters", flush=True)
    del model
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def restore_hub_key_names(file: Path) -> None:
    """Give CLIP's tensors the ``text_model.`` prefix of the hub's file.

    transformers 5 saves them without it, and sglang 0.5.17 then loads transformers' CLIP instead of its own.
    """
    prefix = "text_model."
    tensors = {name if name.startswith(prefix) else prefix + name: value for name, value in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def save_models(out: Path, shapes: Shapes) -> None:
    """Write transformer, both text encoders, VAE and scheduler."""
    save(transformer(shapes), out / "transformer")
    save(t5_encoder(shapes), out / "text_encoder_2")
    save(clip_encoder(shapes), out / "text_encoder")
    restore_hub_key_names(out / "text_encoder" / "model.safetensors")
    save(autoencoder(shapes), out / "vae")
    FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
        shift=3.0,
    ).save_pretrained(out / "scheduler")


def transformer(shapes: Shapes) -> torch.nn.Module:
    """Return FLUX.1's transformer."""
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * shapes.latent_channels,
        num_layers=shapes.double_blocks,
        num_single_layers=shapes.single_blocks,
        attention_head_dim=shapes.head_dim,
        num_attention_heads=shapes.heads,
        joint_attention_dim=shapes.t5_dim,
        pooled_projection_dim=shapes.clip_dim,
        guidance_embeds=True,
        axes_dims_rope=shapes.rope_axes,
    )


def t5_encoder(shapes: Shapes) -> torch.nn.Module:
    """Return the second text encoder."""
    return T5EncoderModel(
        T5Config(
            vocab_size=shapes.t5_vocab,
            d_model=shapes.t5_dim,
            d_kv=shapes.t5_head_dim,
            d_ff=shapes.t5_inner,
            num_layers=shapes.t5_layers,
            num_heads=shapes.t5_heads,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        )
    )


def clip_encoder(shapes: Shapes) -> torch.nn.Module:
    """Return the first text encoder."""
    _, vocabulary = clip_tokenizer()
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=shapes.clip_vocab,
            hidden_size=shapes.clip_dim,
            intermediate_size=shapes.clip_inner,
            num_hidden_layers=shapes.clip_layers,
            num_attention_heads=shapes.clip_heads,
            max_position_embeddings=CLIP_CONTEXT,
            projection_dim=shapes.clip_dim,
            bos_token_id=vocabulary["<|startoftext|>"],
            eos_token_id=vocabulary["<|endoftext|>"],
            pad_token_id=vocabulary["<|endoftext|>"],
        )
    )


def autoencoder(shapes: Shapes) -> torch.nn.Module:
    """Return the VAE."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=shapes.vae_channels,
        layers_per_block=shapes.vae_layers,
        latent_channels=shapes.latent_channels,
        norm_num_groups=shapes.vae_groups,
        sample_size=shapes.image_side,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.1159,
        scaling_factor=0.3611,
    )


def model_index() -> dict[str, object]:
    """Return the content of ``model_index.json``."""
    return {
        "_class_name": "FluxPipeline",
        "_diffusers_version": "0.30.0",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def main() -> None:
    """Write the whole pipeline; ``model_index.json`` comes last, so that an unfinished folder is not a pipeline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    shapes = SIZES[arguments.size]

    torch.manual_seed(arguments.seed)
    torch.set_default_dtype(torch.bfloat16)
    arguments.out.mkdir(parents=True, exist_ok=True)
    save_tokenizers(arguments.out)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        save_models(arguments.out, shapes)
    print("shapes:", json.dumps(asdict(shapes)), flush=True)
    write_json(arguments.out / "model_index.json", model_index())


if __name__ == "__main__":
    main()
