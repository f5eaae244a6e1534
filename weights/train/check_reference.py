"""Compare model.py with logits of two independent implementations (see --text and --vision archives)."""
import argparse
import json

import numpy as np
import torch

from model import Model, config


def load_common(m, w, i, hf):
    """Copy layer i; `w` looks a tensor up by its name, `hf` says which of the two spellings is used."""
    L = m.layers[i]
    a, f = L.attn, L.ffn
    n = (lambda x, y: x) if hf else (lambda x, y: y)
    at = n("self_attn.", "attn.")
    L.attn_norm.data, L.ffn_norm.data = w(n("input_layernorm", "attn_norm") + ".weight"), w(n("post_attention_layernorm", "ffn_norm") + ".weight")
    for hc, name in ((L.hc_attn, "attn_hc."), (L.hc_ffn, "ffn_hc.")):
        hc.fn.data, hc.base.data, hc.scale.data = w(name + "fn"), w(name + "base"), w(name + "scale")
    a.wq_a.data, a.wq_b.data = w(at + n("q_a_proj", "wq_a") + ".weight"), w(at + n("q_b_proj", "wq_b") + ".weight")
    a.wkv.data, a.wo_b.data = w(at + n("kv_proj", "wkv") + ".weight"), w(at + n("o_b_proj", "wo_b") + ".weight")
    a.wo_a.data = w(at + n("o_a_proj", "wo_a") + ".weight").flatten(0, -2)
    a.q_norm.data, a.kv_norm.data = w(at + n("q_a_norm", "q_norm") + ".weight"), w(at + "kv_norm.weight")
    a.attn_sink.data = w(at + n("sinks", "attn_sink"))

    def comp(c, p):
        c.wkv.data, c.wgate.data = w(p + n("kv_proj", "wkv") + ".weight"), w(p + n("gate_proj", "wgate") + ".weight")
        c.ape.data, c.norm.data = w(p + n("position_bias", "ape")), w(p + n("kv_norm", "norm") + ".weight")
    if a.ratio:
        comp(a.compressor, at + "compressor.")
    if a.ratio == 4:
        p = at + n("compressor.indexer.", "indexer.")
        a.indexer.wq_b.data = w(p + n("q_b_proj", "wq_b") + ".weight")
        a.indexer.weights_proj.data = w(p + n("scorer.", "") + "weights_proj.weight")
        comp(a.indexer.compressor, p + n("", "compressor."))
    fp = n("mlp.", "ffn.")
    f.gate.data = w(fp + "gate.weight")
    if f.hashed:
        f.tid2eid = w(fp + "gate.tid2eid").long()
    else:
        f.bias = w(fp + "gate.e_score_correction_bias")
    if hf:
        f.w13.data = w(fp + "experts.gate_up_proj").transpose(1, 2).contiguous()
        f.w2.data = w(fp + "experts.down_proj").transpose(1, 2).contiguous()
    else:
        g, u = w(fp + "switch_mlp.gate_proj.weight"), w(fp + "switch_mlp.up_proj.weight")
        f.w13.data = torch.cat([g, u], 1).transpose(1, 2).contiguous()
        f.w2.data = w(fp + "switch_mlp.down_proj.weight").transpose(1, 2).contiguous()
        f.bias_vl = w(fp + "gate.bias_vl")
    s = fp + "shared_experts."
    f.shared13.data = torch.cat([w(s + "gate_proj.weight"), w(s + "up_proj.weight")])
    f.shared2.data = w(s + "down_proj.weight")


def tiny(**kw):
    return config(vocab_size=256, hidden_size=64, moe_intermediate_size=32, n_routed_experts=8, q_lora_rank=32,
                  qk_rope_head_dim=8, head_dim=32, o_groups=2, o_lora_rank=16, index_n_heads=16, index_head_dim=16,
                  index_topk=5, sliding_window=8, hc_sinkhorn_iters=20,
                  yarn=dict(factor=16, original=65536, beta_fast=32, beta_slow=1), **kw)


def report(name, got, want):
    print(f"{name}: largest difference {np.abs(got - want).max():.2e} on values up to {np.abs(want).max():.2f}")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--text")
    ap.add_argument("--vision")
    args = ap.parse_args()
    torch.set_grad_enabled(False)
    if args.text:
        z = np.load(args.text)
        t = lambda k: torch.tensor(z[k])
        m = Model(tiny(num_hidden_layers=3, compress_ratios=[0, 4, 128])).eval()
        for i in range(3):
            load_common(m, lambda k: t(f"model.layers.{i}.{k}"), i, True)
        m.embed.data, m.head.data, m.norm.data = t("model.embed_tokens.weight"), t("lm_head.weight"), t("model.norm.weight")
        m.hc_head.fn.data, m.hc_head.base.data, m.hc_head.scale.data = (t("model.hc_head.hc_" + k) for k in ("fn", "base", "scale"))
        ids = torch.tensor(z["ids"])
        report("text", m(m.batch([(ids, None, ())]), None, torch.arange(ids.numel())).numpy(), z["logits"][0])
        m.c.index_topk = 64  # from here on every entry is selected, as in training
        whole = m(m.batch([(ids, None, ())]), None, torch.arange(150)).numpy()
        for cut in (26, 103, 129):
            rest = ids[:, None, cut:].repeat(1, 3, 1)
            got = m(m.batch([(ids[:, :cut], rest, ())]), None, torch.arange(cut + 3 * (150 - cut))).numpy()
            report(f"prefix of {cut} + suffix", got[cut + 150 - cut:][:150 - cut], whole[cut:])
    if args.vision:
        z = np.load(args.vision, allow_pickle=True)
        t = lambda k: torch.tensor(z["w:" + k])
        m = Model(tiny(num_hidden_layers=4, compress_ratios=[0, 4, 128, 4], num_hash_layers=2, rms_norm_eps=1e-20, vision_dim=32,
                       vision_n_layers=2, vision_n_heads=2, vision_inter_dim=48, vision_patch_size=14,
                       vision_downsample_ratio=3)).eval()
        for i in range(4):
            load_common(m, lambda k: t(f"language_model.model.layers.{i}.{k}"), i, False)
        lm = "language_model."
        m.embed.data, m.head.data, m.norm.data = t(lm + "model.embed_tokens.weight"), t(lm + "lm_head.weight"), t(lm + "model.norm.weight")
        m.hc_head.fn.data, m.hc_head.base.data, m.hc_head.scale.data = (t(lm + "model.hc_head." + k) for k in ("fn", "base", "scale"))
        e = m.eye
        e.proj.data, e.proj_b.data, e.norm.data = t("vision.patch_embed.proj.weight"), t("vision.patch_embed.proj.bias"), t("vision.norm.weight")
        for j, b in enumerate(e.blocks):
            p = f"vision.blocks.{j}."
            b.norm1.data, b.norm2.data = t(p + "norm1.weight"), t(p + "norm2.weight")
            b.wqkv.data, b.wqkv_b.data, b.wo.data, b.wo_b.data = (t(p + "attn." + k) for k in ("wqkv.weight", "wqkv.bias", "wo.weight", "wo.bias"))
            b.w1.data, b.w2.data = t(p + "ffn.w1.weight"), t(p + "ffn.w2.weight")
        e.w1.data, e.w1_b.data, e.w2.data, e.w2_b.data = (t("aligner." + k) for k in ("w1.weight", "w1.bias", "w2.weight", "w2.bias"))
        m.image_special.data = torch.stack([t("image_" + k) for k in ("start", "pad", "newline", "end")])
        gh, gw, lh, lw = z["grid"].tolist()
        feats = e(torch.tensor(z["patches"]).flatten(1)[None], gh, gw)[0]
        report("aligner, reading order", feats.numpy(), z["image_features"])
        ids = torch.tensor(z["ids"]).long()
        flat = ids[0].tolist()
        span = (flat.index(256), flat.index(260))
        b = m.batch([(ids, None, (span,))])
        report("vision", m(b, feats[torch.tensor(z["perm"]).long()], torch.arange(ids.numel())).numpy(), z["logits"][0])


if __name__ == "__main__":
    main()
