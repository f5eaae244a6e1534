"""The DeepSeek-V4-Flash-Vision-Exp architecture in plain PyTorch, shaped for fast training on a CPU.

Every per-token operation runs on one flat list of tokens. Attention alone knows about sequences: a batch is a list
of groups, and a group is P prefixes (a picture or a clip, or a whole text) that each continue into k suffixes (the
questions about it). A suffix sees its prefix and itself, exactly as if it were the only question, so the prefix is
computed once for k questions.
"""
import math
from functools import lru_cache
from types import SimpleNamespace

import torch
import torch.nn as nn
import torch.nn.functional as F

START, PAD, IMAGE, NEWLINE, END = range(5)


def config(**changes):
    """The shape of the default model, with `changes` applied."""
    c = dict(
        vocab_size=1024, hidden_size=128, num_hidden_layers=4, compress_ratios=[0, 4, 128, 4], num_attention_heads=4,
        head_dim=64, qk_rope_head_dim=16, q_lora_rank=64, o_groups=2, o_lora_rank=64, sliding_window=128,
        hc_mult=4, hc_sinkhorn_iters=4, hc_eps=1e-6, n_routed_experts=16, num_experts_per_tok=2, n_shared_experts=1,
        moe_intermediate_size=64, num_hash_layers=1, routed_scaling_factor=1.5, swiglu_limit=10.0,
        index_n_heads=4, index_head_dim=32, index_topk=128, rms_norm_eps=1e-6, rope_theta=10000.0,
        compress_rope_theta=160000.0, yarn=dict(factor=4, original=1024, beta_fast=32, beta_slow=1),
        vision_dim=96, vision_n_layers=3, vision_n_heads=3, vision_inter_dim=192, vision_patch_size=8,
        vision_downsample_ratio=2, vision_rope_theta=10000.0)
    c.update(changes)
    return SimpleNamespace(**c)


# ---------------------------------------------------------------- positions and masks

def rope_frequencies(dims, theta, yarn):
    f = theta ** (-torch.arange(0, dims, 2, dtype=torch.float64) / dims)
    if yarn:
        def edge(beta):
            return dims * math.log(yarn["original"] / (beta * 2 * math.pi)) / (2 * math.log(theta))
        low = max(math.floor(edge(yarn["beta_fast"])), 0)
        high = min(math.ceil(edge(yarn["beta_slow"])), dims - 1)
        ramp = ((torch.arange(dims // 2, dtype=torch.float64) - low) / max(high - low, 1e-3)).clamp(0, 1)
        f = f * (1 - ramp) + f / yarn["factor"] * ramp
    return f


class Layout:
    """What attention needs to know of a group and never changes: positions, masks, where pictures stand."""

    def __init__(self, cfg, tp, spans, ts):
        self.tp, self.ts = tp, ts
        self.pos_prefix = torch.arange(tp)
        self.pos_suffix = torch.arange(tp, tp + ts)
        self.prefix, self.suffix = {}, {}
        for r in sorted(set(cfg.compress_ratios)):
            self.prefix[r] = self._mask(cfg, r, spans, 0, tp, 0, tp)
            if ts:
                old = self._mask(cfg, r, spans, tp, tp + ts, 0, tp)
                first = tp // r if r else 0
                own = self._mask(cfg, r, spans, tp, tp + ts, tp, tp + ts, first)
                self.suffix[r] = torch.cat([old[:, :-1], own], 1)

    @staticmethod
    def _mask(cfg, r, spans, q0, q1, k0, k1, first_entry=0):
        """Additive mask [queries, window rows + compressed entries + 1 sink column]."""
        q, k = torch.arange(q0, q1)[:, None], torch.arange(k0, k1)[None]
        seen = (k <= q) & (k > q - cfg.sliding_window)
        for a, b in spans:
            seen |= (q >= a) & (q <= b) & (k >= a) & (k <= b)
        parts = [seen]
        if r:
            w = torch.arange(first_entry, k1 // r)[None]
            parts.append(w < (q + 1) // r)
        parts.append(torch.ones(q1 - q0, 1, dtype=torch.bool))
        seen = torch.cat([p.expand(q1 - q0, -1) for p in parts], 1)
        return torch.zeros(seen.shape).masked_fill(~seen, -1e30)


@lru_cache(maxsize=512)
def layout(cfg_key, tp, spans, ts):
    return Layout(_configs[cfg_key], tp, spans, ts)


_configs = {}


# ---------------------------------------------------------------- small pieces

def rms(x, weight=None, eps=1e-6):
    x = x.float()
    y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return y if weight is None else y * weight


def rotate(x, cos, sin):
    """Interleaved-pair rotation of the last dims of x by tables [.., rd/2] that broadcast over x."""
    rd = cos.shape[-1] * 2
    keep, pe = x[..., :-rd], x[..., -rd:]
    a, b = pe[..., 0::2], pe[..., 1::2]
    pe = torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
    return torch.cat([keep, pe], -1)


def hc_in(X, m, fbase, scale, eps, hc_eps, iters: int):
    """mHC before a sub-layer: the collapsed input, and how the output goes back to the streams.

    m [(2 + n) n, tokens] is the mixing matrix times the flattened streams; tokens come last so that the small n x n
    mathematics runs along long rows.
    """
    n, t = X.shape[1], X.shape[0]
    m = m.float() * torch.rsqrt(X.square().mean((1, 2)) + eps)
    base = fbase[:, None]
    pre = torch.sigmoid(m[:n] * scale[0] + base[:n]) + hc_eps
    post = 2 * torch.sigmoid(m[n:2 * n] * scale[1] + base[n:2 * n])
    c = (m[2 * n:] * scale[2] + base[2 * n:]).view(n, n, t)
    c = torch.exp(c - c.amax(1, keepdim=True))
    c = c / c.sum(1, keepdim=True) + hc_eps
    c = c / (c.sum(0, keepdim=True) + hc_eps)
    for _ in range(iters - 1):
        c = c / (c.sum(1, keepdim=True) + hc_eps)
        c = c / (c.sum(0, keepdim=True) + hc_eps)
    x = sum(pre[i, :, None] * X[:, i] for i in range(n))
    return x, post, c


def hc_out(X, b, post, c):
    """X'_j = post_j b + sum_i C_ij X_i."""
    n = X.shape[1]
    return torch.stack([post[j, :, None] * b + sum(c[i, j, :, None] * X[:, i] for i in range(n)) for j in range(n)], 1)


def swiglu(gu, limit: float):
    g, u = gu.float().chunk(2, -1)
    return F.silu(g.clamp(max=limit)) * u.clamp(-limit, limit)


def head_norm(q, eps):
    return q * torch.rsqrt(q.square().mean(-1, keepdim=True) + eps)


def pool(kv, sc, ape, overlap: bool, first: bool):
    """Per-channel softmax pooling of rows [b, w*r, c] to entries [b, w, dh]; see 2.4 of the format notes.

    With overlap and not `first`, window 0 only lends its A series to window 1 and yields no entry.
    """
    r = ape.shape[0]
    b, n, ch = kv.shape
    kv, sc = kv.float().view(b, n // r, r, ch), sc.float().view(b, n // r, r, ch) + ape
    if overlap:
        dh = ch // 2
        ka, kb, sa, sb = kv[..., :dh], kv[..., dh:], sc[..., :dh], sc[..., dh:]
        if first:
            ka = F.pad(ka[:, :-1], (0, 0, 0, 0, 1, 0))
            sa = F.pad(sa[:, :-1], (0, 0, 0, 0, 1, 0), value=-1e30)
        else:
            ka, sa, kb, sb = ka[:, :-1], sa[:, :-1], kb[:, 1:], sb[:, 1:]
        kv, sc = torch.cat([ka, kb], 2), torch.cat([sa, sb], 2)
    return (torch.softmax(sc, 2) * kv).sum(2)


def matrix(*shape, gain=1.0):
    return nn.Parameter(torch.randn(*shape) * gain / math.sqrt(shape[-1]))


# ---------------------------------------------------------------- the layers

class Compressor(nn.Module):
    def __init__(self, dim, dh, r):
        super().__init__()
        self.r, self.overlap = r, r == 4
        ch = dh * (2 if self.overlap else 1)
        self.wkv, self.wgate = matrix(ch, dim), matrix(ch, dim, gain=0.5)
        self.ape = nn.Parameter(torch.zeros(r, ch))
        self.norm = nn.Parameter(torch.ones(dh))


class Indexer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.wq_b = matrix(c.index_n_heads * c.index_head_dim, c.q_lora_rank)
        self.weights_proj = matrix(c.index_n_heads, c.hidden_size)
        self.compressor = Compressor(c.hidden_size, c.index_head_dim, 4)


class Attention(nn.Module):
    def __init__(self, c, ratio):
        super().__init__()
        self.c, self.ratio = c, ratio
        d, h, dh = c.hidden_size, c.num_attention_heads, c.head_dim
        self.wq_a, self.wq_b, self.wkv = matrix(c.q_lora_rank, d), matrix(h * dh, c.q_lora_rank), matrix(dh, d)
        self.wo_a = matrix(c.o_groups * c.o_lora_rank, h * dh // c.o_groups)
        self.wo_b = matrix(d, c.o_groups * c.o_lora_rank, gain=0.5)
        self.q_norm, self.kv_norm = nn.Parameter(torch.ones(c.q_lora_rank)), nn.Parameter(torch.ones(dh))
        self.attn_sink = nn.Parameter(torch.zeros(h))
        if ratio:
            self.compressor = Compressor(d, dh, ratio)
        if ratio == 4:
            self.indexer = Indexer(c)

    def forward(self, x, batch):
        c = self.c
        h, dh = c.num_attention_heads, c.head_dim
        kind = "c" if self.ratio else "w"
        cos, sin = batch.rope[kind]
        parts = [self.wq_a, self.wkv] + ([self.compressor.wkv, self.compressor.wgate] if self.ratio else [])
        cuts = [p.shape[0] for p in parts]
        y = (x @ torch.cat(parts).t()).float().split(cuts, -1)
        qr = fused.rms(y[0], self.q_norm, c.rms_norm_eps)
        q = (qr @ self.wq_b.t()).float().view(-1, h, dh)
        cos3, sin3 = cos[:, None], sin[:, None]
        q = fused.rotate(fused.head_norm(q, c.rms_norm_eps), cos3, sin3)
        kv = fused.rotate(fused.rms(y[1], self.kv_norm, c.rms_norm_eps), cos, sin)
        outs = []
        at = 0
        for g in batch.groups:
            outs += self._group(g, x, qr, q, kv, y[2:], at)
            at += g.n
        o = torch.cat(outs).view(-1, h, dh)
        o = fused.rotate(o, cos3, -sin3)
        o = o.view(-1, c.o_groups, h * dh // c.o_groups).transpose(0, 1)
        z = torch.bmm(o, self.wo_a.view(c.o_groups, c.o_lora_rank, -1).transpose(1, 2)).transpose(0, 1).flatten(1)
        return (z @ self.wo_b.t()).float()

    def _entries(self, comp, rows, first_entry, first, batchwise):
        kv, sc = rows
        r = self.ratio
        n = kv.shape[1] // r * r
        e = pool(kv[:, :n], sc[:, :n], comp.ape, comp.overlap, first)
        e = rms(e, comp.norm, self.c.rms_norm_eps)
        pos = (first_entry + torch.arange(e.shape[1])) * r
        cos, sin = rope_at(self.c, True, pos)
        return rotate(e, cos, sin)

    def _group(self, g, x, qr, q, kv, cp, at):
        c, lay, r = self.c, g.layout, self.ratio
        h, dh, p, k, tp, ts = c.num_attention_heads, c.head_dim, g.p, g.k, g.layout.tp, g.layout.ts
        a, b = at, at + p * tp
        keys = [kv[a:b].view(p, tp, dh)]
        rows = [t[a:b].view(p, tp, -1) for t in cp]
        if r and tp >= r:
            keys.append(self._entries(self.compressor, rows, 0, True, p))
        zero = keys[0].new_zeros(1, 1, dh)
        kp = torch.cat(keys + [zero.expand(p, 1, dh)], 1)
        bias = self._bias(lay.prefix[r])
        if r == 4 and tp // 4 > c.index_topk:
            bias = self._select(bias.expand(p, -1, -1, -1), x[a:b].view(p, tp, -1), qr[a:b].view(p, tp, -1), tp)
        outs = [attend(q[a:b].view(p, tp * h, dh), kp, bias, dh)]
        if k:
            a, b = b, b + p * k * ts
            own = [kv[a:b].view(p * k, ts, dh)]
            if r and (tp + ts) // r > tp // r:
                w0 = max(tp // r - (1 if self.compressor.overlap else 0), 0)
                cut = w0 * r
                joined = [torch.cat([t[:, None, cut:].expand(p, k, tp - cut, t.shape[-1]).flatten(0, 1),
                                     s[a:b].view(p * k, ts, -1)], 1) for t, s in zip(rows, cp)]
                fresh = tp // r == 0
                own.append(self._entries(self.compressor, joined, tp // r, fresh, p * k))
            ko = torch.cat(own + [zero.expand(p * k, 1, dh)], 1)
            kp = kp[:, :-1]
            qs = q[a:b]
            s1 = torch.bmm(qs.view(p, k * ts * h, dh), kp.transpose(1, 2)).view(p * k, ts * h, -1)
            s2 = torch.bmm(qs.view(p * k, ts * h, dh), ko.transpose(1, 2))
            s = torch.cat([s1, s2], -1).float() * dh ** -0.5
            s = s.view(p * k, ts, h, -1) + self._bias(lay.suffix[r])
            w = torch.softmax(s, -1).to(s1.dtype).view(p * k, ts * h, -1)
            n1 = kp.shape[1]
            o = torch.bmm(w[..., :n1].reshape(p, k * ts * h, n1), kp.to(s1.dtype)).view(p * k, ts * h, dh)
            o = o + torch.bmm(w[..., n1:], ko.to(s1.dtype))
            outs.append(o.float().reshape(-1, dh))
        return outs

    def _bias(self, mask):
        """[1, t, h, s+1]: the mask, with the head's sink in the last column."""
        t, s = mask.shape
        m = mask[:, None, :-1].expand(t, self.c.num_attention_heads, s - 1)
        return torch.cat([m, self.attn_sink[None, :, None].expand(t, -1, 1)], -1)[None]

    def _select(self, bias, x, qr, tp):
        """Restrict the compressed columns to the indexer's top k (only for prompts longer than training ever sees)."""
        c, ix = self.c, self.indexer
        p = x.shape[0]
        keys = self._entries(ix.compressor, [x @ ix.compressor.wkv.t(), x @ ix.compressor.wgate.t()], 0, True, p)
        iq = (qr @ ix.wq_b.t()).view(p * tp, c.index_n_heads, c.index_head_dim)
        cos, sin = rope_at(c, True, torch.arange(tp).repeat(p))
        iq = rotate(iq, cos[:, None], sin[:, None]).view(p, tp, c.index_n_heads, c.index_head_dim)
        w = (x @ ix.weights_proj.t()) * (c.index_head_dim * c.index_n_heads) ** -0.5
        score = (torch.einsum("pthd,psd->pths", iq, keys).relu() * w[..., None]).sum(2)
        n = keys.shape[1]
        visible = torch.arange(n)[None] < ((torch.arange(tp) + 1) // 4)[:, None]
        score = score.masked_fill(~visible, -float("inf"))
        top = score.topk(min(c.index_topk, n), -1).indices
        chosen = torch.zeros_like(score, dtype=torch.bool).scatter(-1, top, True)
        bias = bias.clone()
        bias[..., tp:tp + n] = bias[..., tp:tp + n].masked_fill(~chosen[:, :, None], -1e30)
        return bias


def attend(q, k, bias, dh):
    p, th, _ = q.shape
    s = torch.bmm(q, k.transpose(1, 2))
    lead = bias.shape[1]
    w = torch.softmax(s.float().view(p, lead, -1, s.shape[-1]) * dh ** -0.5 + bias, -1).view(s.shape)
    return torch.bmm(w.to(s.dtype), k.to(s.dtype)).float().reshape(-1, dh)


class Experts(torch.autograd.Function):
    """y = sum over chosen experts of weight * w2(swiglu(w13 x)), over rows sorted by expert.

    Each expert's rows are padded to a multiple of SEGMENT, so that the matrix shapes repeat from step to step. Padding
    rows have weight 0, which keeps them out of the result and of every gradient.
    """

    @staticmethod
    def forward(ctx, x, w13, w2, weight, source, back, ws_mask, counts, k, limit):
        dt = w13.dtype
        xs = x.to(dt)[source // k]
        gu = x.new_empty(len(source), w13.shape[2], dtype=dt)
        at = 0
        for e, n in enumerate(counts):
            if n:
                torch.mm(xs[at:at + n], w13[e], out=gu[at:at + n])
            at += n
        ws = (weight.reshape(-1)[source] * ws_mask).unsqueeze(1)
        h = fused.expert_in(gu, ws, limit)
        y = x.new_empty(len(source), w2.shape[2], dtype=dt)
        at = 0
        for e, n in enumerate(counts):
            if n:
                torch.mm(h[at:at + n], w2[e], out=y[at:at + n])
            at += n
        ctx.save_for_backward(xs, gu, h, w13, w2, ws, source, back)
        ctx.counts, ctx.k, ctx.limit = counts, k, limit
        return fused.gather_sum(y, back.view(-1, k))

    @staticmethod
    def backward(ctx, dout):
        xs, gu, h, w13, w2, ws, source, back = ctx.saved_tensors
        k, limit, dt = ctx.k, ctx.limit, w13.dtype
        dy = dout.to(dt)[source // k]
        dh = torch.empty_like(h)
        dw2 = torch.zeros_like(w2)
        at = 0
        for e, n in enumerate(ctx.counts):
            if n:
                torch.mm(dy[at:at + n], w2[e].t(), out=dh[at:at + n])
                torch.mm(h[at:at + n].t(), dy[at:at + n], out=dw2[e])
            at += n
        dgu, dweight = fused.expert_back(gu, dh, ws, limit)
        dxs = torch.empty_like(xs)
        dw13 = torch.zeros_like(w13)
        at = 0
        for e, n in enumerate(ctx.counts):
            if n:
                torch.mm(dgu[at:at + n], w13[e].t(), out=dxs[at:at + n])
                torch.mm(xs[at:at + n].t(), dgu[at:at + n], out=dw13[e])
            at += n
        dx = fused.gather_sum(dxs, back.view(-1, k))
        return dx, dw13, dw2, dweight[back].view(-1, k), None, None, None, None, None, None


SEGMENT = 64


def segments(flat, experts):
    """Rows sorted by expert in padded segments: source of each padded row, its mask, where each flat row went, counts."""
    order = torch.argsort(flat, stable=True)
    counts = torch.bincount(flat, minlength=experts)
    padded = (counts + SEGMENT - 1) // SEGMENT * SEGMENT
    shift = (padded.cumsum(0) - padded) - (counts.cumsum(0) - counts)
    place = torch.arange(len(flat)) + shift[flat[order]]
    total = int(padded.sum())
    source = torch.zeros(total, dtype=torch.long)
    source[place] = order
    mask = torch.zeros(total)
    mask[place] = 1.0
    back = torch.empty_like(order)
    back[order] = place
    return source, mask, back, counts, padded.tolist()


def gather_sum(y, back):
    return sum(y[back[:, i]].float() for i in range(back.shape[1]))


def expert_in(gu, ws, limit: float):
    return (swiglu(gu, limit) * ws).to(gu.dtype)


def expert_back(gu, dh, ws, limit: float):
    g, u = gu.float().chunk(2, -1)
    gc, uc = g.clamp(max=limit), u.clamp(-limit, limit)
    s = torch.sigmoid(gc)
    act = gc * s
    d = dh.float()
    dweight = (d * act * uc).sum(-1)
    d = d * ws
    dg = d * uc * (s + act * (1 - s)) * (g <= limit)
    du = d * act * (u.abs() <= limit)
    return torch.cat([dg, du], -1).to(gu.dtype), dweight


def silu_mul(gu):
    g, u = gu.float().chunk(2, -1)
    return F.silu(g) * u


PIECES = ("hc_in", "hc_out", "swiglu", "head_norm", "rms", "rotate", "expert_in", "expert_back", "gather_sum", "silu_mul")
fused = SimpleNamespace(**{name: globals()[name] for name in PIECES})


def compile_pieces():
    """Let inductor fuse the element-wise pieces."""
    torch._dynamo.config.cache_size_limit = 256
    for name in PIECES:
        setattr(fused, name, torch.compile(globals()[name], dynamic=True))


class Moe(nn.Module):
    def __init__(self, c, hashed):
        super().__init__()
        self.c, self.hashed = c, hashed
        d, w, e = c.hidden_size, c.moe_intermediate_size, c.n_routed_experts
        self.gate = matrix(e, d)
        self.register_buffer("bias", torch.zeros(e))
        self.register_buffer("bias_vl", torch.zeros(e))
        if hashed:
            t = torch.stack([torch.randperm(e)[:c.num_experts_per_tok] for _ in range(c.vocab_size)])
            self.register_buffer("tid2eid", t)
        self.w13 = nn.Parameter(torch.randn(e, d, 2 * w) / math.sqrt(d))
        self.w2 = nn.Parameter(torch.randn(e, w, d) / math.sqrt(w) * 0.5)
        self.shared13, self.shared2 = matrix(2 * w, d), matrix(d, w, gain=0.5)

    def forward(self, x, batch):
        c, k = self.c, self.c.num_experts_per_tok
        s = torch.sqrt(F.softplus((x @ self.gate.t()).float()))
        with torch.no_grad():
            biased = s + torch.where(batch.is_image[:, None], self.bias_vl, self.bias)
            top = biased.topk(k, -1).indices
            if self.hashed:
                top = torch.where(batch.is_image[:, None], top, self.tid2eid[batch.text_ids])
            source, mask, back, counts, padded = segments(top.flatten(), c.n_routed_experts)
            if self.training:
                img = torch.bincount(top[batch.is_image].flatten(), minlength=c.n_routed_experts)
                self.load = (img, counts - img)
        w = s.gather(1, top)
        w = w / w.sum(-1, keepdim=True) * c.routed_scaling_factor
        dt = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
        y = Experts.apply(x, self.w13.to(dt), self.w2.to(dt), w, source, back, mask, padded, k, c.swiglu_limit)
        sh = fused.swiglu(x @ self.shared13.t(), c.swiglu_limit) @ self.shared2.t()
        return y + sh.float()

    def balance(self, rate):
        """Move the routing biases by the sign of the load error, apart for pictures and text."""
        for load, bias in zip(self.load, (self.bias_vl, self.bias)):
            load = load.float()
            if load.sum() > 0:
                bias += rate * torch.sign(load.mean() - load)


class Hc(nn.Module):
    def __init__(self, c, rows, scales):
        super().__init__()
        n = c.hc_mult
        self.fn = nn.Parameter(torch.randn(rows, n * c.hidden_size) * 0.5 / math.sqrt(n * c.hidden_size))
        base = torch.zeros(rows)
        if rows > n:
            base[2 * n:] = (2.0 * torch.eye(n)).flatten()
        self.base, self.scale = nn.Parameter(base), nn.Parameter(torch.full((scales,), 0.5))


class Layer(nn.Module):
    def __init__(self, c, i):
        super().__init__()
        self.c = c
        rows = (2 + c.hc_mult) * c.hc_mult
        self.attn, self.ffn = Attention(c, c.compress_ratios[i]), Moe(c, i < c.num_hash_layers)
        self.attn_norm, self.ffn_norm = nn.Parameter(torch.ones(c.hidden_size)), nn.Parameter(torch.ones(c.hidden_size))
        self.hc_attn, self.hc_ffn = Hc(c, rows, 3), Hc(c, rows, 3)

    def forward(self, X, batch):
        c = self.c
        for hc, norm, sub in ((self.hc_attn, self.attn_norm, self.attn), (self.hc_ffn, self.ffn_norm, self.ffn)):
            x, post, mix = fused.hc_in(X, hc.fn @ X.flatten(1).t(), hc.base, hc.scale, c.rms_norm_eps, c.hc_eps, c.hc_sinkhorn_iters)
            b = sub(fused.rms(x, norm, c.rms_norm_eps), batch)
            X = fused.hc_out(X, b, post, mix)
        return X


def vit_attention(q, k, v):
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.contiguous(), k.contiguous(), v.contiguous())


class Block(nn.Module):
    """One ViT block; eps 1e-6 whatever the text side uses."""

    def __init__(self, c):
        super().__init__()
        d = c.vision_dim
        self.heads = c.vision_n_heads
        self.norm1, self.norm2 = nn.Parameter(torch.ones(d)), nn.Parameter(torch.ones(d))
        self.wqkv, self.wqkv_b = matrix(3 * d, d), nn.Parameter(torch.zeros(3 * d))
        self.wo, self.wo_b = matrix(d, d, gain=0.5), nn.Parameter(torch.zeros(d))
        self.w1, self.w2 = matrix(2 * c.vision_inter_dim, d), matrix(d, c.vision_inter_dim, gain=0.5)

    def forward(self, x, cos, sin):
        n, t, d = x.shape
        qkv = F.linear(fused.rms(x, self.norm1), self.wqkv, self.wqkv_b).float().view(n, t, 3, self.heads, -1)
        qk = qkv[:, :, :2]
        a, b = qk.chunk(2, -1)
        qk = torch.cat([a * cos - b * sin, b * cos + a * sin], -1).permute(2, 0, 3, 1, 4)
        v = qkv[:, :, 2].transpose(1, 2)
        o = vit_attention(qk[0], qk[1], v).transpose(1, 2).reshape(n, t, d)
        x = x + F.linear(o, self.wo, self.wo_b).float()
        return x + (fused.silu_mul(fused.rms(x, self.norm2) @ self.w1.t()) @ self.w2.t()).float()


class Eye(nn.Module):
    """ViT and aligner: pictures [n, gh*gw, 3*patch*patch] to rows [n, lh*lw, hidden], in reading order."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        d, ds = c.vision_dim, c.vision_downsample_ratio
        self.proj, self.proj_b = matrix(d, 3 * c.vision_patch_size ** 2), nn.Parameter(torch.zeros(d))
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.vision_n_layers))
        self.norm = nn.Parameter(torch.ones(d))
        self.w1, self.w1_b = matrix(c.hidden_size, d * ds * ds), nn.Parameter(torch.zeros(c.hidden_size))
        self.w2, self.w2_b = matrix(c.hidden_size, c.hidden_size), nn.Parameter(torch.zeros(c.hidden_size))

    def forward(self, patches, gh, gw):
        c, ds = self.c, self.c.vision_downsample_ratio
        dh = c.vision_dim // c.vision_n_heads
        inv = rope_frequencies(dh // 2, c.vision_rope_theta, None)
        row, col = torch.arange(gh).repeat_interleave(gw), torch.arange(gw).repeat(gh)
        ang = torch.cat([row[:, None] * inv, col[:, None] * inv], -1)[:, None, None]
        cos, sin = ang.cos().float(), ang.sin().float()
        x = F.linear(patches, self.proj, self.proj_b).float()
        for blk in self.blocks:
            x = blk(x, cos, sin)
        x = rms(x, self.norm)
        n = x.shape[0]
        x = x.view(n, gh, gw, -1)
        x = F.pad(x, (0, 0, 0, -gw % ds, 0, -gh % ds))
        lh, lw = x.shape[1] // ds, x.shape[2] // ds
        x = x.view(n, lh, ds, lw, ds, -1).permute(0, 1, 3, 5, 2, 4).reshape(n, lh * lw, -1)
        x = F.gelu(F.linear(x, self.w1, self.w1_b).float())
        return F.linear(x, self.w2, self.w2_b).float()


@lru_cache(maxsize=None)
def _rope_tables(key, compressed):
    c = _configs[key]
    f = rope_frequencies(c.qk_rope_head_dim, c.compress_rope_theta if compressed else c.rope_theta,
                         c.yarn if compressed else None)
    ang = torch.arange(4096, dtype=torch.float64)[:, None] * f
    return ang.cos().float(), ang.sin().float()


def rope_at(c, compressed, pos):
    cos, sin = _rope_tables(id(c), compressed)
    return cos[pos], sin[pos]


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        _configs[id(c)] = c
        self.embed, self.head = nn.Parameter(torch.randn(c.vocab_size, c.hidden_size) * 0.5), matrix(c.vocab_size, c.hidden_size)
        self.image_special = nn.Parameter(torch.randn(4, c.hidden_size) * 0.5)  # start, pad, newline, end
        self.layers = nn.ModuleList(Layer(c, i) for i in range(c.num_hidden_layers))
        self.norm = nn.Parameter(torch.ones(c.hidden_size))
        self.hc_head = Hc(c, c.hc_mult, 1)
        self.eye = Eye(c)

    def batch(self, groups, pad=1):
        """groups: list of (prefix ids [p, tp], suffix ids [p, k, ts] or None, spans ((start, end), ...))."""
        c, v = self.c, self.c.vocab_size
        b = SimpleNamespace(groups=[])
        ids, pos = [], []
        size = sum(p.numel() + (s.numel() if s is not None else 0) for p, s, _ in groups)
        spare = -size % pad
        if spare:  # whole numbers of `pad` tokens, so that the matrix shapes repeat from step to step
            groups = groups + [(torch.ones(spare // 16, 16, dtype=torch.long), None, ())] * (spare >= 16)
            groups = groups + [(torch.ones(1, spare % 16, dtype=torch.long), None, ())] * (spare % 16 > 0)
        for prefix, suffix, spans in groups:
            p, tp = prefix.shape
            k, ts = (suffix.shape[1], suffix.shape[2]) if suffix is not None else (0, 0)
            lay = layout(id(c), tp, tuple(spans), ts)
            b.groups.append(SimpleNamespace(p=p, k=k, n=p * tp + p * k * ts, layout=lay))
            ids.append(prefix.reshape(-1))
            pos.append(lay.pos_prefix.repeat(p))
            if k:
                ids.append(suffix.reshape(-1))
                pos.append(lay.pos_suffix.repeat(p * k))
        ids, pos = torch.cat(ids), torch.cat(pos)
        b.is_image = ids >= v
        b.text_ids = ids.masked_fill(b.is_image, 0)
        rows = (ids == v + IMAGE).nonzero().squeeze(1)
        code = torch.tensor([0, 1, 4, 2, 3])  # START, PAD, (IMAGE), NEWLINE, END -> row of image_special
        look = torch.where(b.is_image, v + code[(ids - v).clamp(min=0)], ids)
        look[rows] = v + 4 + torch.arange(len(rows))
        b.look = look
        b.rope = {"w": rope_at(c, False, pos), "c": rope_at(c, True, pos)}
        return b

    def forward(self, b, features, at, taps=None):
        """Logits at the flat token indices `at`; `features` are the aligner rows in emission order.

        taps: {layer: token indices}; with it, the normed streams [n, hc_mult * hidden] that leave these layers at these
        tokens are returned too.
        """
        c = self.c
        table = [self.embed, self.image_special] + ([features] if features is not None else [])
        x = F.embedding(b.look, torch.cat(table))
        X = x[:, None].expand(-1, c.hc_mult, -1)
        seen = {}
        for i, layer in enumerate(self.layers):
            X = layer(X, b)
            if taps and i in taps:
                seen[i] = rms(X[taps[i]].flatten(1))
        X = X[at]
        hc, f = self.hc_head, X.flatten(1)
        m = (f @ hc.fn.t()).float() * torch.rsqrt(f.square().mean(-1, keepdim=True) + c.rms_norm_eps)
        pre = torch.sigmoid(m * hc.scale + hc.base) + c.hc_eps
        x = rms((pre.unsqueeze(-1) * X).sum(1), self.norm, c.rms_norm_eps)
        logits = (x @ self.head.t()).float()
        return (logits, seen) if taps else logits


def block_body(lh, lw):
    """Type codes of a picture's body in emission order, and the picture row behind each IMAGE token."""
    rows = [[(IMAGE, r * lw + x) for x in range(lw)] + [(NEWLINE, -1)] for r in range(lh)]
    if lh % 2:
        rows.append([(PAD, -1)] * (lw + 1))
    seq = [rows[r + k][x] for r in range(0, len(rows), 2) for x in range(lw + 1) for k in range(2)]
    if len(seq) % 4:
        seq += [(PAD, -1)] * 2
    return [t for t, _ in seq], [i for t, i in seq if t == IMAGE]
