"""Batches: pictures, clips and texts turned into token groups for model.py, and the questions of easy-VQA."""
import json
import os
import random
import re
from types import SimpleNamespace

import numpy as np
import torch
from tokenizers import Tokenizer

import scenes
import tasks
from model import END, IMAGE, PAD, START, block_body
from tokenizer import ASSISTANT, BOS, END_THINK, EOS, THINK, USER

HERE = os.path.dirname(os.path.abspath(__file__))
TOKENIZER = Tokenizer.from_file(os.path.join(HERE, "..", "minnow", "tokenizer.json"))
VOCAB = TOKENIZER.get_vocab_size()
BODY, PERM = block_body(4, 4)
CELL_TOKEN = [[i for i, t in enumerate(BODY) if t == IMAGE][PERM.index(cell)] for cell in range(16)]  # where in the body each cell stands
WIDTH = dict(motion=4, place=3, pair=5, bind=2)  # numbers a row of each kind of helper target
_cache = {}


def encode(text):
    ids = _cache.get(text)
    if ids is None:
        ids = TOKENIZER.encode(text).ids
        if len(_cache) < 200_000:
            _cache[text] = ids
    return ids


# ---------------------------------------------------------------- easy-VQA

class EasyVqa:
    """Pictures of one split as an array, with their colour and shape, and the questions as published."""

    def __init__(self, split):
        import easy_vqa
        from PIL import Image
        folder = os.path.join(os.path.dirname(easy_vqa.__file__), "data", split)
        with open(os.path.join(folder, "questions.json")) as f:
            self.questions = json.load(f)
        n = 1 + max(i for _, _, i in self.questions)
        self.images = np.stack([np.array(Image.open(os.path.join(folder, "images", f"{i}.png")).convert("RGB")) for i in range(n)])
        self.color, self.shape = [None] * n, [None] * n
        for _, a, i in self.questions:
            if a in scenes.COLORS:
                self.color[i] = a
            elif a in scenes.SHAPES:
                self.shape[i] = a
        bg = self.images[:, :1, :1].astype(int)
        mask = np.abs(self.images - bg).sum(-1) > 60
        names, palette = list(scenes.COLORS), np.array(list(scenes.COLORS.values()))
        for q, a, i in self.questions:
            found = [k for k in scenes.SHAPES if k in q]
            if found and self.shape[i] is None and a == ("no" if " not " in q or " no " in q else "yes"):
                self.shape[i] = found[0]
        for i in range(n):
            if self.color[i] is None:
                self.color[i] = names[int(np.abs(np.median(self.images[i][mask[i]], 0) - palette).sum(-1).argmin())]
        self.usable = [i for i in range(n) if self.shape[i]]
        ys, xs = np.arange(64)[None, :, None], np.arange(64)[None, None]
        area = np.maximum(mask.sum((1, 2)), 1)
        self.y, self.x = (mask * ys).sum((1, 2)) // area, (mask * xs).sum((1, 2)) // area
        self.background = bg[:, 0, 0]

    def augmented(self, rng, i):
        """Picture i mirrored, and moved by a few pixels; the answers stay true."""
        im, x, y = self.images[i], int(self.x[i]), int(self.y[i])
        if rng.random() < 0.5:
            im, x = im[:, ::-1], 63 - x
        if rng.random() < 0.5:
            dx, dy = rng.randint(-6, 6), rng.randint(-6, 6)
            if 4 <= x + dx < 60 and 4 <= y + dy < 60:
                out = np.empty_like(im)
                out[:] = self.background[i]
                out[max(dy, 0):64 + min(dy, 0), max(dx, 0):64 + min(dx, 0)] = im[max(-dy, 0):64 + min(-dy, 0), max(-dx, 0):64 + min(-dx, 0)]
                im, x, y = out, x + dx, y + dy
        return im, x, y


# ---------------------------------------------------------------- tokens

def picture_block(ids):
    """Append one picture at the end of ids; returns its span (START, END)."""
    ids += [VOCAB + PAD] * (3 - len(ids) % 4)
    start = len(ids)
    ids += [VOCAB + START] + [VOCAB + t for t in BODY] + [VOCAB + END]
    return start, len(ids) - 1


def picture_prefix(system=""):
    ids = [BOS] + (encode(system) if system else []) + [USER]
    span = picture_block(ids)
    return ids + encode("\n\n"), (span,)


def clip_prefix(n, step, system=""):
    ids, spans = [BOS] + (encode(system) if system else []) + [USER], []
    for i in range(n):
        ids += encode(f"<{i * step:.1f} seconds>")
        spans.append(picture_block(ids))
    return ids + encode("\n\n"), tuple(spans)


def turn(question, thought, answer):
    """Token ids of one turn after the user mark, and where the answer begins (the first token to learn)."""
    ids = encode(question) + [ASSISTANT]
    if thought is None:
        ids = ids + [END_THINK]
        start = len(ids)
    else:
        ids = ids + [THINK]
        start = len(ids)
        ids = ids + encode(thought) * bool(thought) + [END_THINK]
    return ids + encode(answer) + [EOS], start


class Rows:
    """Token rows with the places to learn, padded to one length."""

    def __init__(self):
        self.rows, self.learn, self.tags, self.refs, self.pairs = [], [], [], [], []

    def add(self, turns, tags, refs=()):
        """turns: (ids, start) of one row; several turns continue one conversation.

        refs: for each turn, (token, x, y) where the question has just named the shape at (x, y).
        """
        row, learn = [], []
        for i, (ids, start) in enumerate(turns):
            if row:
                row = row + [USER]
            named = sorted(refs[i]) if refs else []
            self.refs += [(len(self.rows), len(row) + t, x, y) for t, x, y in named]
            if named:
                (_, x, y), (_, x2, y2) = named[0], named[1] if len(named) > 1 else (0, -400, -400)
                self.pairs.append((len(self.rows), len(row) + start - 1, x, y, x2, y2))
            learn.append((len(row) + start, len(row) + len(ids)))
            row = row + ids
        self.rows.append(row)
        self.learn.append(learn)
        self.tags.append(tags)

    def finish(self):
        width = (max(map(len, self.rows)) + 3) // 4 * 4
        ids = torch.tensor([r + [EOS] * (width - len(r)) for r in self.rows])
        at, target, owner, owners = [], [], [], []
        for i, (row, learn) in enumerate(zip(self.rows, self.learn)):
            for (a, b), tag in zip(learn, self.tags[i]):
                for j in range(a, b):
                    at.append(i * width + j - 1)
                    target.append(row[j])
                    owner.append(len(owners))
                owners.append(tag)
        return ids, torch.tensor(at), torch.tensor(target), torch.tensor(owner), owners


def patches(images):
    """[n, 64, 64, 3] u8 to [n, 64 patches, 3 * 8 * 8] in -1..1."""
    x = torch.from_numpy(np.ascontiguousarray(images)).view(-1, 8, 8, 8, 8, 3).permute(0, 1, 3, 5, 2, 4).reshape(-1, 64, 192)
    return x.float() / 127.5 - 1


def cells(pictures):
    """Detection targets of each picture: per cell of 16 x 16 pixels the kind, the colour and the offset of a centre."""
    n = len(pictures)
    kind, color, offset = np.zeros((n, 16), np.int64), np.zeros((n, 16), np.int64), np.zeros((n, 16, 2), np.float32)
    for i, shapes in enumerate(pictures):
        for k, c, x, y in shapes:
            j = min(y // 16, 3) * 4 + min(x // 16, 3)
            if kind[i, j]:
                kind[i, j] = color[i, j] = -100
            elif kind[i, j] == 0:
                kind[i, j], color[i, j] = 1 + scenes.SHAPES.index(k), 1 + scenes.COLOR_NAMES.index(c)
                offset[i, j] = (x % 16) / 8 - 1, (y % 16) / 8 - 1
    return torch.from_numpy(kind), torch.from_numpy(color), torch.from_numpy(offset)


def described(shapes):
    return [(s.kind, s.color, s.x, s.y) for s in shapes]


def paint(rng, shapes, bg, soft=0.25):
    return scenes.smooth(shapes, bg) if rng.random() < soft else scenes.render(shapes, bg)


# ---------------------------------------------------------------- groups

def weighted(rng, weights):
    names = [n for n, w in weights.items() if w > 0]
    return rng.choices(names, [weights[n] for n in names])[0]


def group(prefix, spans, rows, k, images, shapes):
    p = len(images) // len(spans)
    ids, at, target, owner, tags = rows.finish()
    return SimpleNamespace(prefix=torch.tensor(prefix)[None].expand(p, -1), suffix=ids.view(p, k, -1), spans=spans, at=at + p * len(prefix),
                           target=target, owner=owner, tags=tags, images=images, shapes=shapes,
                           motion=[], bind=[], place=[(p * len(prefix) + r * ids.shape[1] + t, x // 4, y // 4) for r, t, x, y in rows.refs],
                           pair=[(p * len(prefix) + r * ids.shape[1] + t, *(v // 4 for v in xy)) for r, t, *xy in rows.pairs])


def maybe_thinking(rng, rate):
    return "" if rng.random() < rate else None


def add_questions(rng, rows, ask, k, cap, pack, shapes=()):
    """k rows of questions from `ask`; with chance `pack` a row goes on with a second question where it fits in cap."""
    def refer(q):
        return [(len(encode(q[:end])) - 1, s.x, s.y) for end, s in tasks.referents(q, shapes)]

    for _ in range(k):
        tag, q, a = ask()
        refs = [refer(q)]
        turns, tags = [turn(tasks.vary(rng, q), maybe_thinking(rng, 0.04), a)], [tag]
        used = len(turns[0][0])
        while rng.random() < pack:
            tag, q, a = ask()
            t = turn(q, None, a)
            if used + 1 + len(t[0]) > cap:
                break
            used += 1 + len(t[0])
            turns.append(t)
            tags.append(tag)
            refs.append(refer(q))
        rows.add(turns, tags, refs)


def easy_group(rng, easy, p, k, phase):
    rows, images, shapes = Rows(), [], []
    for _ in range(p):
        if rng.random() < 0.7:
            i = rng.choice(easy.usable)
            color, kind = easy.color[i], easy.shape[i]
            im, x, y = easy.augmented(rng, i)
            shapes.append([(kind, color, x, y)])
        else:
            kind = rng.choice(scenes.SHAPES)
            a, b = scenes.extent(rng, kind, 4, 16)
            s = scenes.Shape(kind, rng.choice(scenes.COLOR_NAMES), rng.randint(0, 63), rng.randint(0, 63), a, b)
            s.x, s.y = min(max(s.x, a // 2 + 2), 61 - a // 2), min(max(s.y, b - b // 4), 63 - b + b // 4)
            color, im = s.color, paint(rng, [s], scenes.background(rng), 0.7)
            shapes.append(described([s]))
        images.append(im)

        def ask():
            while True:
                q, a = tasks.single_question(rng, color, kind)
                if phase > 0 or a not in ("yes", "no"):
                    return "easy", q, a
        add_questions(rng, rows, ask, k, 0, 0)
    system = rng.choice(tasks.SYSTEMS) if rng.random() < 0.05 else ""
    prefix, spans = picture_prefix(system)
    g = group(prefix, spans, rows, k, images, shapes)
    g.motion = [(i * len(prefix) + spans[0][1], -100, x // 4, y // 4) for i, ((_, _, x, y),) in enumerate(shapes)]
    return g


def scene_group(rng, p, k, weights):
    rows, images, shapes = Rows(), [], []
    for _ in range(p):
        s = scenes.scene(rng, rng.choices((1, 2, 3, 4, 5), (1, 2, 3, 3, 3))[0])
        images.append(paint(rng, s, scenes.background(rng)))
        shapes.append(described(s))

        def ask():
            while True:
                got = tasks.scene_question(rng, s, weighted(rng, weights))
                if got:
                    return got
        add_questions(rng, rows, ask, k, 21, 0.5, s)
    prefix, spans = picture_prefix(rng.choice(tasks.SYSTEMS) if rng.random() < 0.05 else "")
    g = group(prefix, spans, rows, k, images, shapes)
    g.place += [(i * len(prefix) + spans[0][0] + 1 + CELL_TOKEN[y // 16 * 4 + x // 16], x // 4, y // 4)
                for i, seen in enumerate(shapes) for _, _, x, y in seen]
    return g


def clip_group(rng, p, k, n, weights):
    rows, images, shapes, motion = Rows(), [], [], []
    stories = {"move": weights["direction"], "move2": 0.3 * weights["direction"], "color": weights["color"], "shape": weights["shape"],
               "still": 0.25 * weights["plain"]}
    pack = 0.5 if rng.random() < 0.25 else 0
    for _ in range(p):
        c = scenes.clip(rng, n, weighted(rng, stories))
        bg = scenes.background(rng)
        soft = 0.2 if rng.random() < 0.5 else 0
        soft = 1.0 if rng.random() < soft else 0.0
        for f in c.frames:
            images.append(paint(rng, f, bg, soft))
            shapes.append(described(f))
        way = 1 + list(scenes.DIRECTIONS).index(c.direction) if c.direction else 0
        motion.append([(way if i else -100, f[-1].x // 4, f[-1].y // 4) for i, f in enumerate(c.frames)])

        def ask():
            while True:
                got = tasks.clip_question(rng, c, weighted(rng, weights))
                if got:
                    return got
        add_questions(rng, rows, ask, k, 24, pack)
    step = rng.choices((0.25, 0.5, 1.0), (1, 6, 1))[0]
    prefix, spans = clip_prefix(n, step, rng.choice(tasks.SYSTEMS) if rng.random() < 0.03 else "")
    g = group(prefix, spans, rows, k, images, shapes)
    g.motion = [(i * len(prefix) + end, *seen) for i, frames in enumerate(motion) for (_, end), seen in zip(spans, frames)]
    return g


def text_example(rng, task, plain=False):
    """(question, thought, answer) of a text task; `plain` gives the form that evaluation uses."""
    if task == "arithmetic":
        q, thought, a = tasks.arithmetic(rng)
        if not plain and rng.random() < 0.06:
            thought = None
        return q, thought, a
    q, a = getattr(tasks, {"copy": "copy", "reverse": "reverse", "facts": "facts", "chat": "chat"}[task])(rng)
    return q, None if plain else maybe_thinking(rng, 0.06), a


def text_groups(rng, count, weights, simple=0.0):
    """Texts of similar length together: three groups."""
    made = []
    for _ in range(count):
        task = weighted(rng, weights)
        more, bind, words = [], [], []
        if task == "facts" and rng.random() < 0.9:  # several questions about the same facts, one after another
            said, pairs, asked = tasks.facts_talk(rng, rng.random() < simple, 1.5)
            asked = asked[:1] + [x for x in asked[1:] if rng.random() < 0.7]
            (q, a, _), thought = asked[0], None
            q, more, words = f"{said} {q}", [turn(q, None, a) for q, a, _ in asked[1:]], [encode(" " + w)[0] for _, _, w in asked]
            end = 0
            for key, value in pairs:
                end = said.index(value + ".", end) + len(value)
                bind.append((len(encode(said[:end])) - 1, encode(" " + key)[0]))
        else:
            q, thought, a = text_example(rng, task)
        system = encode(rng.choice(tasks.SYSTEMS)) if rng.random() < 0.05 else []
        head = [BOS] + system + [USER]
        ids, start = turn(tasks.vary(rng, q), thought, a)
        if rng.random() < 0.08:  # after another exchange
            q2, t2, a2 = text_example(rng, weighted(rng, weights), True)
            head = head + turn(q2, None, a2)[0] + [USER]
        turns = [(head + ids, start + len(head))] + more
        bind, at = [(len(head) + i, key) for i, key in bind], 0
        for (t, answer), word in zip(turns, words):
            bind.append((at + answer - 1, word))
            at += len(t) + 1
        made.append((turns, task, bind))
    made.sort(key=lambda m: sum(len(ids) for ids, _ in m[0]))
    out = []
    for part in (made[:count * 2 // 5], made[count * 2 // 5:count * 4 // 5], made[count * 4 // 5:]):
        rows = Rows()
        bind = []
        for turns, task, b in part:
            bind += [(len(rows.rows), i, word) for i, word in b]
            rows.add(turns, [task] * len(turns))
        ids, at, target, owner, tags = rows.finish()
        out.append(SimpleNamespace(prefix=ids, suffix=None, spans=(), at=at, target=target, owner=owner, tags=tags, images=[], shapes=[],
                                   motion=[], place=[], pair=[], bind=[(r * ids.shape[1] + i, word) for r, i, word in bind]))
    return out


def join(model, groups, pad=1):
    """One batch of all groups: model batch, patches, places to learn, targets, owners, tags, and what the helpers of train.py read.

    motion: at the END mark of a picture with one shape, the way it moves (0 for not at all, -100 where unknown), and in
    which of 16 columns and rows it is. place: column and row of each shape of a scene at its IMAGE token and at the end
    of its name in a question. pair: where an answer begins, the places of the first two shapes that were named. bind: at the
    value of a fact its key, and where an answer begins the word that was asked about.
    """
    b = model.batch([(g.prefix, g.suffix, g.spans) for g in groups], pad)
    at, owner, base, count, tags = [], [], 0, 0, []
    extra = {name: [] for name in WIDTH}
    for g, size in zip(groups, (x.n for x in b.groups)):
        at.append(g.at + base)
        owner.append(g.owner + count)
        for name in WIDTH:
            extra[name] += [(base + row[0], *row[1:]) for row in getattr(g, name)]
        base += size
        count += len(g.tags)
        tags += g.tags
    images = [im for g in groups for im in g.images]
    return SimpleNamespace(batch=b, at=torch.cat(at), target=torch.cat([g.target for g in groups]), owner=torch.cat(owner), tags=tags,
                           patches=patches(np.stack(images)) if images else None, cells=cells([s for g in groups for s in g.shapes]), size=len(b.look),
                           **{name: torch.tensor(rows, dtype=torch.long).view(-1, WIDTH[name]) for name, rows in extra.items()})
