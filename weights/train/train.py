"""Train the small default model from nothing: `python train.py` (and again, after a stop, to go on).

The schedule is by wall clock: --minutes in all. The first --eye-minutes teach the ViT and the aligner alone to say what stands
where; the rest trains everything on questions. Accuracies on fresh examples steer the mixture.
"""
import argparse
import json
import math
import os
import random
import signal
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

import data
import model as M
from evaluate import evaluate
from scenes import COLOR_NAMES, SHAPES

BASE = {
    "scene": dict(count=1.0, relation=1.0, compare=1.0, attribute=0.7, yesno=0.5, caption=0.7),
    "clip": dict(direction=2.0, color=1.0, shape=1.0, plain=0.7),
    "text": dict(arithmetic=2.0, facts=3.0, copy=1.0, reverse=1.0, chat=0.08)}
HELP = dict(motion=0.8, place=0.4, pair=0.5, bind=0.2)  # weights of the helper losses
SHARE = dict(easy=1.0, scene=1.6, clip=1.5, text=1.3)


class Muon:
    """Momentum, orthogonalised by five Newton-Schulz steps, for the matrices; scaled so that AdamW's rate fits."""

    def __init__(self, params, momentum=0.95, decay=0.05):
        self.params, self.momentum, self.decay = params, momentum, decay
        self.buf = [torch.zeros_like(p) for p in params]
        self.shapes = {}
        for i, p in enumerate(params):
            a, b = p.shape[-2:]
            self.shapes.setdefault((min(a, b), max(a, b)), []).append(i)

    @torch.no_grad()
    def step(self, lr):
        have = [i for i, p in enumerate(self.params) if p.grad is not None]
        if not have:
            return
        grads, bufs = [self.params[i].grad for i in have], [self.buf[i] for i in have]
        torch._foreach_lerp_(bufs, grads, 1 - self.momentum)
        torch._foreach_lerp_(grads, bufs, self.momentum)
        torch._foreach_mul_([self.params[i] for i in have], 1 - lr * self.decay)
        have = set(have)
        for (small, large), members in self.shapes.items():
            members = [i for i in members if i in have]
            if not members:
                continue
            parts = [self._flat(self.params[i].grad) for i in members]
            x = torch.cat(parts).bfloat16()
            x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
            for _ in range(5):
                a = x @ x.transpose(1, 2)
                x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
            x = x.float() * (0.2 * math.sqrt(large))
            for i, u in zip(members, x.split([len(p) for p in parts])):
                p = self.params[i]
                if p.shape[-2] > p.shape[-1]:
                    u = u.transpose(1, 2)
                p.add_(u.reshape(p.shape), alpha=-lr)

    @staticmethod
    def _flat(g):
        g = g if g.dim() == 3 else g[None]
        return g.transpose(1, 2) if g.shape[1] > g.shape[2] else g


class Detector(nn.Module):
    """What stands in each of the 16 cells, read from the aligner's rows; used in training only."""

    def __init__(self, dim):
        super().__init__()
        self.read = nn.Linear(dim, 4 + 9 + 2)

    def forward(self, rows, cells):
        kind, color, offset = (t.flatten(0, 1) for t in cells)
        y = self.read(F.rms_norm(rows, rows.shape[-1:])).flatten(0, 1)
        there = kind > 0
        weight = 0.25 + 2.0 * there
        ok = (kind >= 0).float() * weight
        loss = sum((F.cross_entropy(a, t.clamp(min=0), reduction="none") * ok).mean() for a, t in ((y[:, :4], kind), (y[:, 4:13], color)))
        place = ((y[:, 13:] - offset)[there]).square().mean()
        right = (y[:, :4].argmax(-1) == kind) & (y[:, 4:13].argmax(-1) == color)
        return loss + place, (right & there).sum() / there.sum().clamp(min=1), place.detach()


def split_params(modules):
    """Matrices for Muon, everything else for AdamW."""
    matrices, rest = [], []
    for m in modules:
        for name, p in m.named_parameters():
            if "indexer" in name:
                p.requires_grad_(False)  # every entry is selected at these lengths: no gradient reaches it
            elif p.dim() >= 2 and not any(s in name for s in ("embed", "head", "hc_", "gate", "ape", "special", "eye.proj", "read")) or "wgate" in name:
                matrices.append(p)
            else:
                rest.append(p)
    return matrices, rest


class Trainer:
    def __init__(self, args):
        self.args = args
        self.c = M.config(vocab_size=data.VOCAB)
        torch.manual_seed(1)
        self.model, self.detector = M.Model(self.c), Detector(self.c.hidden_size)
        self.matrices, self.rest = split_params([self.model, self.detector])
        self.muon = Muon(self.matrices)
        self.adam = torch.optim.AdamW(self.rest, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        wide = self.c.hidden_size * self.c.hc_mult
        self.readers = nn.ModuleDict({k: nn.Linear(wide, n) for k, n in dict(motion=5 + 32, place=32, pair=64, bind=data.VOCAB).items()})
        self.readers_adam = torch.optim.AdamW(self.readers.parameters(), lr=1e-3)
        self.ema = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.rng = random.Random(1)
        self.stop = False
        self.simple = 0.85  # share of one-form questions among the facts, until they are understood
        self.step, self.seconds, self.eye_steps = 0, 0.0, 0
        self.weights = {k: dict(v) for k, v in BASE.items()}
        self.share = dict(SHARE)
        self.log_path = os.path.join(args.out, "log.jsonl")
        self.path = os.path.join(args.out, "state.pt")
        os.makedirs(args.out, exist_ok=True)
        if os.path.exists(self.path):
            self.load()
        self.easy = data.EasyVqa("train")

    def state(self):
        return dict(model=self.model.state_dict(), detector=self.detector.state_dict(), readers=self.readers.state_dict(), adam=self.adam.state_dict(), muon=self.muon.buf,
                    ema=self.ema, rng=self.rng.getstate(), step=self.step, seconds=self.seconds, eye_steps=self.eye_steps,
                    weights=self.weights, share=self.share, simple=self.simple)

    def save(self):
        torch.save(self.state(), self.path + ".new")
        os.replace(self.path + ".new", self.path)

    def load(self):
        s = torch.load(self.path, weights_only=False)
        self.model.load_state_dict(s["model"])
        self.detector.load_state_dict(s["detector"])
        if "readers" in s:
            self.readers.load_state_dict(s["readers"])
        self.adam.load_state_dict(s["adam"])
        self.muon.buf, self.ema = s["muon"], s["ema"]
        self.rng.setstate(s["rng"])
        self.step, self.seconds, self.eye_steps = s["step"], s["seconds"], s["eye_steps"]
        self.share, self.simple = s["share"], s.get("simple", self.simple)
        for kind, own in s["weights"].items():
            self.weights[kind].update(own)
        print(f"resumed at step {self.step}, {self.seconds / 60:.1f} minutes")

    def log(self, **what):
        what = dict(step=self.step, minutes=round(self.seconds / 60, 2), **what)
        with open(self.log_path, "a") as f:
            f.write(json.dumps(what) + "\n")
        print(json.dumps(what), flush=True)

    def update(self, loss, lr):
        loss.backward()
        norm = nn.utils.clip_grad_norm_([p for p in self.matrices + self.rest if p.grad is not None], 1.0)
        if torch.isfinite(norm):
            for g in self.adam.param_groups:
                g["lr"] = lr
            self.adam.step()
            self.muon.step(lr)
        else:
            self.log(skipped=True)
        self.readers_adam.step()
        self.readers_adam.zero_grad(set_to_none=True)
        self.adam.zero_grad(set_to_none=True)
        for p in self.matrices:
            p.grad = None

    def average(self, decay):
        with torch.no_grad():
            now = self.model.state_dict()
            f = [k for k, v in self.ema.items() if v.is_floating_point()]
            torch._foreach_lerp_([self.ema[k] for k in f], [now[k] for k in f], 1 - decay)

    def eye(self):
        """ViT and aligner alone: which shape, which colour, where."""
        a, began, rng = self.args, time.time(), self.rng
        base = self.seconds
        while self.seconds < a.eye_minutes * 60:
            pics, shapes = [], []
            for _ in range(24):
                i = rng.choice(self.easy.usable)
                im, x, y = self.easy.augmented(rng, i)
                pics.append(im)
                shapes.append([(self.easy.shape[i], self.easy.color[i], x, y)])
            for _ in range(72):
                s = data.scenes.scene(rng, rng.choice((1, 2, 3, 4, 5)))
                pics.append(data.paint(rng, s, data.scenes.background(rng)))
                shapes.append(data.described(s))
            with torch.autocast("cpu", torch.bfloat16, enabled=a.bf16):
                rows = self.model.eye(data.patches(data.np.stack(pics)), 8, 8)
            loss, right, place = self.detector(rows, data.cells(shapes))
            self.update(loss, a.lr * min(1, (self.eye_steps + 1) / 50))
            self.eye_steps += 1
            self.seconds = base + time.time() - began
            if self.eye_steps % 50 == 0:
                self.log(eye=self.eye_steps, loss=round(loss.item(), 4), right=round(right.item(), 3), place=round(place.item(), 4))
        if base < a.eye_minutes * 60:
            self.average(0.0)
            self.save()

    def groups(self, phase):
        rng, s = self.rng, self.args.size
        w = {k: dict(v) for k, v in self.weights.items()}
        if phase == 0:
            w["scene"].update(compare=0, yesno=0)
            w["clip"].update(plain=0)
        total = sum(self.share.values())
        pics = lambda name, tokens: max(2, round(s * self.share[name] / total / tokens))
        n = rng.choices((4, 5, 6, 7, 8), (4, 3, 3, 1, 1))[0]
        return [data.easy_group(rng, self.easy, pics("easy", 26 + 5 * 14), 5, phase),
                data.scene_group(rng, pics("scene", 26 + 5 * 21), 5, w["scene"]),
                data.clip_group(rng, pics("clip", 6 + 28 * n + 4 * 14), 4, n, w["clip"])] + data.text_groups(rng, pics("text", 26), w["text"], self.simple)

    def helpers(self, seen, j):
        """Losses of the linear readers that exist in training only: what the inner layers should know (see data.join)."""
        bind, place = seen[1].split([len(j.bind), len(j.place)])
        motion, pair = seen[2].split([len(j.motion), len(j.pair)])

        def loss(name, x, cuts, targets):
            parts = zip(self.readers[name](x).split(cuts, -1), targets[:, 1:].t()) if len(x) else ()
            found = [F.cross_entropy(y, t) for y, t in parts if (t >= 0).any()]
            return sum(found) / len(found) if found else torch.zeros(())
        return dict(motion=loss("motion", motion, (5, 16, 16), j.motion), place=loss("place", place, (16, 16), j.place),
                    pair=loss("pair", pair, (16,) * 4, j.pair), bind=loss("bind", bind, (data.VOCAB,), j.bind))

    def rate(self):
        p = self.seconds / (self.args.minutes * 60)
        fall = min(1.0, max(0.0, (1 - p) / (1 - self.args.hold)))
        return self.args.lr * fall, p

    def rebalance(self, scores):
        """More of what is still wrong: a task's weight follows its error; a kind's share follows its mean error."""
        for kind, own in BASE.items():
            for t, base in own.items():
                if t in scores:
                    self.weights[kind][t] = base * (0.3 + 2.0 * min(0.6, 1 - scores[t]))
        if scores["facts"] > 0.65:
            self.simple = 0.15
        errors = {k: sum(1 - scores[t] for t in own if t in scores) / max(1, sum(t in scores for t in own)) for k, own in BASE.items()}
        errors["easy"] = 1 - scores["easy"]
        for k in SHARE:
            self.share[k] = SHARE[k] * (0.35 + 2.0 * min(0.5, errors[k]))

    def run(self):
        a = self.args
        self.eye()
        if not a.eager:
            M.compile_pieces()
        began, base = time.time(), self.seconds
        shown, tested, saved, losses, first = time.time(), time.time(), time.time(), [], self.step
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stop", True))
        while self.seconds < a.minutes * 60:
            if self.stop:
                self.save()
                return
            lr, p = self.rate()
            lr *= min(1, (self.step - first + 1) / 40, (self.step + 1) / 150)
            phase = int(p > a.first_phase)
            t0 = time.time()
            j = data.join(self.model, self.groups(phase), 256)
            t1 = time.time()
            self.model.train()
            with torch.autocast("cpu", torch.bfloat16, enabled=a.bf16):
                rows = self.model.eye(j.patches, 8, 8)
                logits, seen = self.model(j.batch, rows[:, data.PERM].flatten(0, 1), j.at, {1: torch.cat([j.bind[:, 0], j.place[:, 0]]), 2: torch.cat([j.motion[:, 0], j.pair[:, 0]])})
            ce = F.cross_entropy(logits, j.target, reduction="none")
            per = torch.zeros(len(j.tags)).index_add(0, j.owner, ce)
            size = torch.zeros(len(j.tags)).index_add(0, j.owner, torch.ones(len(ce)))
            loss = (per / size.sqrt()).mean()  # between the mean over tokens and the mean over answers
            eye, _, _ = self.detector(rows, j.cells)
            helpers = self.helpers(seen, j)
            self.update(loss + 0.2 * (1 - p) * eye + min(1, 4 - 4 * p) * sum(HELP[k] * v for k, v in helpers.items()), lr)
            with torch.no_grad():
                for layer in self.model.layers:
                    layer.ffn.balance(0.005 * lr / a.lr)
            self.average(min(0.995, 1 - 1 / (self.step + 10)))
            self.step += 1
            self.seconds = base + time.time() - began
            losses.append((loss.item(), eye.item(), t1 - t0, time.time() - t0, j.size))
            now = time.time()
            if now - shown > 30:
                m = [sum(x) / len(losses) for x in zip(*losses)]
                tag = {}
                with torch.no_grad():
                    for t, v in zip(j.tags, (per / size).tolist()):
                        tag.setdefault(t, []).append(v)
                self.log(loss=round(m[0], 4), see=round(m[1], 4), data_s=round(m[2], 3), step_s=round(m[3], 3), tokens=round(m[4]), lr=round(lr, 6),
                         helpers={k: round(v.item(), 3) for k, v in helpers.items()},
                         tags={t: round(sum(v) / len(v), 3) for t, v in sorted(tag.items())})
                shown, losses = now, []
            if now - saved > 240:
                self.save()
                saved = time.time()
            if now - tested > a.test_every * 60:
                self.test()
                tested = time.time()
        self.save()
        self.test(True)

    def test(self, full=False):
        plain = M.Model(self.c)
        plain.load_state_dict(self.ema)
        t = time.time()
        scores = evaluate(plain, seed=self.step, easy_pictures=1000 if full else 120, count=400 if full else 100)
        self.rebalance(scores)
        self.log(scores={k: round(v, 3) for k, v in scores.items()}, took=round(time.time() - t, 1))


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--out", default=os.path.join(data.HERE, "run"))
    ap.add_argument("--minutes", type=float, default=110, help="training time in all, over all restarts")
    ap.add_argument("--eye-minutes", type=float, default=3)
    ap.add_argument("--first-phase", type=float, default=0.12, help="share of the time without yes/no questions")
    ap.add_argument("--hold", type=float, default=0.4, help="share of the time at the full rate; then it falls to zero")
    ap.add_argument("--lr", type=float, default=2.5e-3)
    ap.add_argument("--size", type=float, default=4200, help="tokens a step, roughly")
    ap.add_argument("--test-every", type=float, default=6, help="minutes")
    ap.add_argument("--bf16", type=lambda s: s != "0", default=True)
    ap.add_argument("--eager", action="store_true", help="no torch.compile")
    args = ap.parse_args()
    torch.set_num_threads(1)
    Trainer(args).run()


if __name__ == "__main__":
    main()
