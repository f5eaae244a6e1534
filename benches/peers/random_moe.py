"""Writes random mixtures of experts in DeepSeek V3's shape as GGUF files, for speed alone.

About 300 M parameters: 8 layers of width 768, latent attention with 12 heads, 32 experts of 512 of
which a token meets 4, and a shared one. Weights are normal, seeded. The tokenizer, of single bytes,
is there because llama.cpp wants one.

Run from the repository's root, after `cargo build --release`; needs numpy and safetensors:

    python benches/peers/random_moe.py FOLDER
    node benches/peers/llama.mjs FOLDER/moe_q8_0.gguf

Makes moe_q8_0.gguf and moe_q4_0.gguf in FOLDER with `fathom quantize`.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy as np
from safetensors.numpy import save_file

WIDTH, LAYERS, HEADS, EXPERTS, INNER = 768, 8, 12, 32, 512
DENSE, VOCABULARY = 2048, 4096
Q_LORA, KV_LORA, NOPE, ROPE, VALUE = 384, 256, 64, 32, 64

CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "bos_token_id": 0,
    "eos_token_id": 1,
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": DENSE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "q_lora_rank": Q_LORA,
    "kv_lora_rank": KV_LORA,
    "qk_nope_head_dim": NOPE,
    "qk_rope_head_dim": ROPE,
    "v_head_dim": VALUE,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "n_routed_experts": EXPERTS,
    "n_shared_experts": 1,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": INNER,
    "n_group": 1,
    "topk_group": 1,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "num_nextn_predict_layers": 0,
    "torch_dtype": "float16",
}


def tokenizer():
    """A byte-level BPE of bytes, in the symbols of GPT-2, and one merge."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    unseen = [byte for byte in range(256) if byte not in seen]
    symbols = [chr(byte) for byte in seen] + [chr(256 + i) for i in range(len(unseen))]
    vocabulary = {symbol: 2 + i for i, symbol in enumerate([*symbols, "th"])}
    marks = [
        {"id": i, "content": mark, "special": True, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False}
        for i, mark in enumerate(["<s>", "</s>"])
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": marks,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": ["t h"]},
    }


def feed_forward(prefix, inner):
    yield f"{prefix}.gate_proj.weight", (inner, WIDTH)
    yield f"{prefix}.up_proj.weight", (inner, WIDTH)
    yield f"{prefix}.down_proj.weight", (WIDTH, inner)


def shapes():
    """Every tensor's name and shape; vectors are norms, but for the routers' biases."""
    yield "model.embed_tokens.weight", (VOCABULARY, WIDTH)
    yield "model.norm.weight", (WIDTH,)
    yield "lm_head.weight", (VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        yield f"{at}.input_layernorm.weight", (WIDTH,)
        yield f"{at}.post_attention_layernorm.weight", (WIDTH,)
        yield f"{at}.self_attn.q_a_proj.weight", (Q_LORA, WIDTH)
        yield f"{at}.self_attn.q_a_layernorm.weight", (Q_LORA,)
        yield f"{at}.self_attn.q_b_proj.weight", (HEADS * (NOPE + ROPE), Q_LORA)
        yield f"{at}.self_attn.kv_a_proj_with_mqa.weight", (KV_LORA + ROPE, WIDTH)
        yield f"{at}.self_attn.kv_a_layernorm.weight", (KV_LORA,)
        yield f"{at}.self_attn.kv_b_proj.weight", (HEADS * (NOPE + VALUE), KV_LORA)
        yield f"{at}.self_attn.o_proj.weight", (WIDTH, HEADS * VALUE)
        if layer == 0:
            yield from feed_forward(f"{at}.mlp", DENSE)
            continue
        yield f"{at}.mlp.gate.weight", (EXPERTS, WIDTH)
        yield f"{at}.mlp.gate.e_score_correction_bias", (EXPERTS,)
        yield from feed_forward(f"{at}.mlp.shared_experts", INNER)
        for expert in range(EXPERTS):
            yield from feed_forward(f"{at}.mlp.experts.{expert}", INNER)


def tensors(random):
    for name, shape in shapes():
        if name.endswith("bias"):
            yield name, np.zeros(shape, np.float32)
        elif len(shape) == 1:
            yield name, np.ones(shape, np.float16)
        else:
            normal = random.standard_normal(shape, np.float32)
            yield name, (normal / np.sqrt(shape[1])).astype(np.float16)


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("folder", type=pathlib.Path)
    args.add_argument("--fathom", default="target/release/fathom")
    args = args.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as made:
        made = pathlib.Path(made)
        (made / "config.json").write_text(json.dumps(CONFIG, indent=2))
        (made / "tokenizer.json").write_text(json.dumps(tokenizer()))
        weights = dict(tensors(np.random.default_rng(1)))
        save_file(weights, made / "model.safetensors", metadata={"format": "pt"})
        for kind in ["q8_0", "q4_0"]:
            out = args.folder / f"moe_{kind}.gguf"
            subprocess.run(
                [args.fathom, "quantize", made, out, "--type", kind, "--force"], check=True
            )


if __name__ == "__main__":
    main()
