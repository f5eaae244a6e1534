"""Exact-match accuracy of greedy answers on fresh examples and on the easy-VQA test questions.

An answer counts when every token of it, and the end mark, is the likeliest one given those before it: what greedy
decoding would produce, found without decoding token by token.
"""
import random

import torch

import data
import model as M
import scenes
import tasks
from tokenizer import BOS, USER

_test = []


def _score(model, groups, hits):
    j = data.join(model, groups)
    rows = model.eye(j.patches, 8, 8)[:, data.PERM].flatten(0, 1) if j.patches is not None else None
    good = model(j.batch, rows, j.at).argmax(-1) == j.target
    wrong = torch.zeros(len(j.tags), dtype=torch.long).index_add(0, j.owner, (~good).long())
    for t, w in zip(j.tags, wrong.tolist()):
        hits.setdefault(t, []).append(w == 0)


def _fixed_rows(questions, k):
    rows = data.Rows()
    for tag, q, a in questions:
        rows.add([data.turn(q, None, a)], [tag])
    return rows


def easy_vqa(model, hits, pictures, step=20):
    if not _test:
        _test.append(data.EasyVqa("test"))
    test = _test[0]
    by = {}
    for q, a, i in test.questions:
        by.setdefault(i, []).append(("easy", q, a))
    prefix, spans = data.picture_prefix()
    most = max(map(len, by.values()))
    for first in range(0, pictures, step):
        chosen = [i for i in range(first, min(first + step, pictures)) if i in by]
        padded = [by[i] + [("skip", q, a) for _, q, a in by[i][:1] * (most - len(by[i]))] for i in chosen]
        rows = _fixed_rows([q for qs in padded for q in qs], most)
        shapes = [[] for _ in chosen]
        _score(model, [data.group(prefix, spans, rows, most, list(test.images[chosen]), shapes)], hits)


def scene_tasks(model, rng, hits, count):
    prefix, spans = data.picture_prefix()
    for t in ("count", "relation", "compare", "attribute", "yesno", "caption"):
        done = 0
        while done < count:
            questions, images = [], []
            while len(images) < 50:
                s = scenes.scene(rng, rng.randint(1, 5))
                got = tasks.scene_question(rng, s, t)
                if got:
                    questions.append(got)
                    images.append(scenes.render(s, scenes.background(rng)))
            _score(model, [data.group(prefix, spans, _fixed_rows(questions, 1), 1, images, [[] for _ in images])], hits)
            done += 50


def clip_tasks(model, rng, hits, count):
    for t, stories in (("direction", ("move", "move", "move2")), ("color", ("color",)), ("shape", ("shape",)), ("plain", ("move", "color", "still"))):
        for n in (4, 5, 6, 7, 8):
            questions, images = [], []
            while len(questions) < count // 5:
                c = scenes.clip(rng, n, rng.choice(stories))
                got = tasks.clip_question(rng, c, t)
                if got:
                    bg = scenes.background(rng)
                    questions.append(got)
                    images += [scenes.render(f, bg) for f in c.frames]
            prefix, spans = data.clip_prefix(n, 0.5)
            _score(model, [data.group(prefix, spans, _fixed_rows(questions, 1), 1, images, [[] for _ in images])], hits)


def text_tasks(model, rng, hits, count):
    for t in ("arithmetic", "facts", "copy", "reverse", "chat"):
        rows = data.Rows()
        for _ in range(count if t != "chat" else 20):
            q, thought, a = data.text_example(rng, t, True)
            ids, start = data.turn(q, thought, a)
            rows.add([([BOS, USER] + ids, start + 2)], [t])
        ids, at, target, owner, tags = rows.finish()
        _score(model, [data.SimpleNamespace(prefix=ids, suffix=None, spans=(), at=at, target=target, owner=owner, tags=tags, images=[], shapes=[], motion=[], place=[], pair=[], bind=[])], hits)


@torch.no_grad()
def evaluate(model, seed=0, easy_pictures=1000, count=200):
    """Accuracy per task."""
    compiled, hits, rng = dict(vars(M.fused)), {}, random.Random(seed + 1_000_003)
    for name in compiled:
        setattr(M.fused, name, getattr(M, name))
    model.eval()
    easy_vqa(model, hits, easy_pictures)
    scene_tasks(model, rng, hits, count)
    clip_tasks(model, rng, hits, count)
    text_tasks(model, rng, hits, count)
    for name, f in compiled.items():
        setattr(M.fused, name, f)
    hits.pop("skip", None)
    return {t: sum(h) / len(h) for t, h in hits.items()}
