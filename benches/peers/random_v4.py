"""Writes a random model in DeepSeek V4's shape, to measure how decoding slows down with context.

About 290 M parameters: 8 layers of width 1024 that see a window of 128 alone, or 512 compressed entries
that 16 index heads of 128 choose (CSA), or all compressed entries (HCA), as V4-Flash's do; 16 heads of
512; 32 experts of 256 of which a token meets 4, and a shared one. Weights are normal, seeded, in half
precision; of the router by token id there is none. For its size it has four times as much of attention
and of index as V4-Flash. The tokenizer is of single bytes.

Run from anywhere; needs numpy and safetensors:

    python benches/peers/random_v4.py FOLDER
    fathom bench FOLDER -p 0 -n 16 -d 1024,4096,16384,65536 --random-depth --kernels
"""

import argparse
import json
import pathlib

import numpy as np
from random_moe import tokenizer
from safetensors.numpy import save_file

WIDTH, HEADS, HEAD, EXPERTS, INNER, CHOSEN = 1024, 16, 512, 32, 256, 4
RATIOS = [0, 0, 4, 128, 4, 128, 4, 128]
Q_LORA, GROUPS, O_LORA, VOCABULARY, STREAMS = 512, 4, 256, 4096, 4
INDEX_HEADS, INDEX_HEAD = 16, 128

CONFIG = {
    "architectures": ["DeepseekV4ForCausalLM"],
    "model_type": "deepseek_v4",
    "bos_token_id": 0,
    "eos_token_id": 1,
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": len(RATIOS),
    "compress_ratios": RATIOS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 1,
    "head_dim": HEAD,
    "qk_rope_head_dim": 64,
    "q_lora_rank": Q_LORA,
    "o_groups": GROUPS,
    "o_lora_rank": O_LORA,
    "sliding_window": 128,
    "index_n_heads": INDEX_HEADS,
    "index_head_dim": INDEX_HEAD,
    "index_topk": 512,
    "hc_mult": STREAMS,
    "hc_sinkhorn_iters": 20,
    "hc_eps": 1e-6,
    "n_routed_experts": EXPERTS,
    "num_experts_per_tok": CHOSEN,
    "n_shared_experts": 1,
    "moe_intermediate_size": INNER,
    "num_hash_layers": 0,
    "routed_scaling_factor": 1.5,
    "scoring_func": "sqrtsoftplus",
    "swiglu_limit": 10.0,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "compress_rope_theta": 160000.0,
    "rope_scaling": {"type": "yarn", "factor": 16, "original_max_position_embeddings": 65536},
    "max_position_embeddings": 1 << 20,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
}


def compressor(prefix, head, ratio):
    series = 2 if ratio == 4 else 1
    yield f"{prefix}.wkv.weight", (series * head, WIDTH)
    yield f"{prefix}.wgate.weight", (series * head, WIDTH)
    yield f"{prefix}.ape", (ratio, series * head)
    yield f"{prefix}.norm.weight", (head,)


def attention(prefix, ratio):
    yield f"{prefix}.wq_a.weight", (Q_LORA, WIDTH)
    yield f"{prefix}.q_norm.weight", (Q_LORA,)
    yield f"{prefix}.wq_b.weight", (HEADS * HEAD, Q_LORA)
    yield f"{prefix}.wkv.weight", (HEAD, WIDTH)
    yield f"{prefix}.kv_norm.weight", (HEAD,)
    yield f"{prefix}.attn_sink", (HEADS,)
    yield f"{prefix}.wo_a.weight", (GROUPS * O_LORA, HEADS * HEAD // GROUPS)
    yield f"{prefix}.wo_b.weight", (WIDTH, GROUPS * O_LORA)
    if ratio:
        yield from compressor(f"{prefix}.compressor", HEAD, ratio)
    if ratio == 4:
        yield f"{prefix}.indexer.wq_b.weight", (INDEX_HEADS * INDEX_HEAD, Q_LORA)
        yield f"{prefix}.indexer.weights_proj.weight", (INDEX_HEADS, WIDTH)
        yield from compressor(f"{prefix}.indexer.compressor", INDEX_HEAD, ratio)


def feed_forward(prefix):
    yield f"{prefix}.w1.weight", (INNER, WIDTH)
    yield f"{prefix}.w2.weight", (WIDTH, INNER)
    yield f"{prefix}.w3.weight", (INNER, WIDTH)


def connections(prefix, mixed):
    yield f"{prefix}_fn", (mixed, STREAMS * WIDTH)
    yield f"{prefix}_base", (mixed,)
    yield f"{prefix}_scale", (1 if mixed == STREAMS else 3,)


def shapes():
    yield "embed.weight", (VOCABULARY, WIDTH)
    yield "head.weight", (VOCABULARY, WIDTH)
    yield "norm.weight", (WIDTH,)
    yield from connections("hc_head", STREAMS)
    for layer, ratio in enumerate(RATIOS):
        at = f"layers.{layer}"
        for block in ["attn", "ffn"]:
            yield f"{at}.{block}_norm.weight", (WIDTH,)
            yield from connections(f"{at}.hc_{block}", (2 + STREAMS) * STREAMS)
        yield from attention(f"{at}.attn", ratio)
        yield f"{at}.ffn.gate.weight", (EXPERTS, WIDTH)
        yield f"{at}.ffn.gate.bias", (EXPERTS,)
        yield from feed_forward(f"{at}.ffn.shared_experts")
        for expert in range(EXPERTS):
            yield from feed_forward(f"{at}.ffn.experts.{expert}")


def tensors(random):
    for name, shape in shapes():
        if name.endswith(("base", "bias", "sink")):
            yield name, np.zeros(shape, np.float32)
        elif len(shape) == 1:
            yield name, np.ones(shape, np.float32)
        else:
            normal = random.standard_normal(shape, np.float32)
            kind = np.float16 if name.endswith("weight") else np.float32
            yield name, (normal / np.sqrt(shape[1])).astype(kind)


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("folder", type=pathlib.Path)
    folder = args.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
    weights = dict(tensors(np.random.default_rng(1)))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    numbers = sum(w.size for w in weights.values())
    print(f"{folder}: {numbers / 1e6:.0f} M parameters")


if __name__ == "__main__":
    main()
