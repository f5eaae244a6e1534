"""Write the averaged weights of a run as a model folder (official tensor names, bf16), then load that folder and test it.

    python export.py run/state.pt ../minnow            write, reload, test on the whole easy-VQA test split and fresh examples
    python export.py --test ../minnow                  only the second half
"""
import argparse
import json
import os

import torch
from safetensors.torch import load_file, save_file

import data
import model as M
from evaluate import evaluate
from tokenizer import SPECIAL

MAX_POSITIONS = 4096


def names(c):
    """(official name, attribute path, transform) of every tensor that maps one to one."""
    out = [("embed.weight", "embed"), ("head.weight", "head"), ("norm.weight", "norm")]
    out += [(f"hc_head_{k}", f"hc_head.{k}") for k in ("fn", "base", "scale")]
    for i, ratio in enumerate(c.compress_ratios):
        L = f"layers.{i}."
        out += [(L + f"{n}.weight", L + n) for n in ("attn_norm", "ffn_norm")]
        out += [(L + f"hc_{s}_{k}", L + f"hc_{s}.{k}") for s in ("attn", "ffn") for k in ("fn", "base", "scale")]
        A = L + "attn."
        out += [(A + f"{n}.weight", A + n) for n in ("wq_a", "wq_b", "wkv", "wo_a", "wo_b", "q_norm", "kv_norm")]
        out += [(A + "attn_sink", A + "attn_sink")]
        comps = [A + "compressor."] * bool(ratio) + [A + "indexer.compressor."] * (ratio == 4)
        for C in comps:
            out += [(C + n + ("" if n == "ape" else ".weight"), C + n) for n in ("wkv", "wgate", "ape", "norm")]
        if ratio == 4:
            out += [(A + f"indexer.{n}.weight", A + f"indexer.{n}") for n in ("wq_b", "weights_proj")]
        G = L + "ffn."
        out += [(G + "gate.weight", G + "gate"), (G + "gate.bias", G + "bias"), (G + "gate.bias_vl", G + "bias_vl")]
        if i < c.num_hash_layers:
            out.append((G + "gate.tid2eid", G + "tid2eid"))
        out.append((G + "shared_experts.w2.weight", G + "shared2"))
    out += [("vision.patch_embed.proj.weight", "eye.proj"), ("vision.patch_embed.proj.bias", "eye.proj_b"), ("vision.norm.weight", "eye.norm")]
    for b in range(c.vision_n_layers):
        V, E = f"vision.blocks.{b}.", f"eye.blocks.{b}."
        out += [(V + "norm1.weight", E + "norm1"), (V + "norm2.weight", E + "norm2"), (V + "attn.wqkv.weight", E + "wqkv"),
                (V + "attn.wqkv.bias", E + "wqkv_b"), (V + "attn.wo.weight", E + "wo"), (V + "attn.wo.bias", E + "wo_b"),
                (V + "mlp.w1.weight", E + "w1"), (V + "mlp.w2.weight", E + "w2")]
    out += [(f"aligner.{n}.{k}", f"eye.{n}{s}") for n in ("w1", "w2") for k, s in (("weight", ""), ("bias", "_b"))]
    return out


def keeps_f32(name):
    return any(s in name for s in ("hc_", "gate.bias", "attn_sink", "ape"))


def to_official(c, state):
    t = {official: state[own] for official, own in names(c)}
    for i in range(c.num_hidden_layers):
        G = f"layers.{i}.ffn."
        w = c.moe_intermediate_size
        for e in range(c.n_routed_experts):
            both = state[G + "w13"][e].t()
            t[G + f"experts.{e}.w1.weight"], t[G + f"experts.{e}.w3.weight"] = both[:w], both[w:]
            t[G + f"experts.{e}.w2.weight"] = state[G + "w2"][e].t()
        t[G + "shared_experts.w1.weight"], t[G + "shared_experts.w3.weight"] = state[G + "shared13"].split(w)
    for i, n in enumerate(("image_start", "image_pad", "image_newline", "image_end")):
        t[n] = state["image_special"][i]
    return {k: (v if v.dtype == torch.int64 else v.float() if keeps_f32(k) else v.bfloat16()).contiguous().clone() for k, v in t.items()}


def from_official(c, t):
    state = {own: t[official] for official, own in names(c)}
    for i in range(c.num_hidden_layers):
        G = f"layers.{i}.ffn."
        E = [G + f"experts.{e}." for e in range(c.n_routed_experts)]
        state[G + "w13"] = torch.stack([torch.cat([t[e + "w1.weight"], t[e + "w3.weight"]]).t() for e in E])
        state[G + "w2"] = torch.stack([t[e + "w2.weight"].t() for e in E])
        state[G + "shared13"] = torch.cat([t[G + "shared_experts.w1.weight"], t[G + "shared_experts.w3.weight"]])
    state["image_special"] = torch.stack([t[n] for n in ("image_start", "image_pad", "image_newline", "image_end")])
    return {k: v if v.dtype == torch.int64 else v.float() for k, v in state.items()}


def config_json(c):
    own = ("vocab_size hidden_size num_hidden_layers compress_ratios num_attention_heads head_dim qk_rope_head_dim q_lora_rank o_groups "
           "o_lora_rank sliding_window hc_mult hc_sinkhorn_iters hc_eps n_routed_experts num_experts_per_tok n_shared_experts "
           "moe_intermediate_size num_hash_layers routed_scaling_factor swiglu_limit index_n_heads index_head_dim index_topk rms_norm_eps "
           "rope_theta compress_rope_theta vision_dim vision_n_layers vision_n_heads vision_inter_dim vision_patch_size "
           "vision_downsample_ratio vision_rope_theta").split()
    j = {"architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4", "torch_dtype": "bfloat16", "bos_token_id": 0, "eos_token_id": 1}
    j.update({k: getattr(c, k) for k in own})
    j.update(num_key_value_heads=1, scoring_func="sqrtsoftplus", topk_method="noaux_tc", norm_topk_prob=True, hidden_act="silu",
             tie_word_embeddings=False, attention_bias=False, attention_dropout=0.0, num_nextn_predict_layers=0,
             max_position_embeddings=MAX_POSITIONS, initializer_range=0.02, use_cache=True,
             rope_scaling={"type": "yarn", "rope_type": "yarn", "factor": c.yarn["factor"], "original_max_position_embeddings": c.yarn["original"],
                           "beta_fast": c.yarn["beta_fast"], "beta_slow": c.yarn["beta_slow"]},
             vision_max_n_token=25, vision_min_pixels=4096, vision_max_wh_ratio=8,
             # It was never shown the long effort paragraphs: high effort is plain <think>.
             fathom_prompt_style="v4")
    return j


def write(c, state, out):
    os.makedirs(out, exist_ok=True)

    def dump(name, value):
        with open(os.path.join(out, name), "w", encoding="utf-8") as f:
            json.dump(value, f, indent=2, ensure_ascii=False)
            f.write("\n")
    save_file(to_official(c, state), os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
    dump("config.json", config_json(c))
    dump("generation_config.json", {"bos_token_id": 0, "eos_token_id": 1, "do_sample": False})
    dump("tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "pad_token": SPECIAL[1],
        "add_bos_token": False, "add_eos_token": False, "clean_up_tokenization_spaces": False, "model_max_length": MAX_POSITIONS})


def test(folder, count):
    c = M.config(vocab_size=data.VOCAB)
    m = M.Model(c)
    m.load_state_dict(from_official(c, load_file(os.path.join(folder, "model.safetensors"))))
    return evaluate(m, seed=77, easy_pictures=1000, count=count)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("state", nargs="?")
    ap.add_argument("folder")
    ap.add_argument("--test", action="store_true", help="do not write")
    ap.add_argument("--count", type=int, default=500, help="fresh examples a task")
    args = ap.parse_args()
    torch.set_num_threads(1)
    if not args.test:
        s = torch.load(args.state, weights_only=False)
        write(M.config(vocab_size=data.VOCAB), s["ema"], args.folder)
        print(f"written: step {s['step']}, {s['seconds'] / 60:.1f} minutes of training")
    for t, v in test(args.folder, args.count).items():
        print(f"{t:12} {100 * v:6.2f}%")


if __name__ == "__main__":
    main()
