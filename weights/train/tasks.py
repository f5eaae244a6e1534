"""Questions and answers about scenes and clips, and the text tasks. An example is (question, thought or None, answer)."""
from scenes import COLOR_NAMES, SHAPES, DIRECTIONS

NOUNS = ("cat dog bird fish cow pig hen fox bear frog ant bee box cup hat pen book ball key car bus boat tree sun moon "
         "star rain snow milk egg cake fork door desk bed map ring sock").split()
NAMES = "tom anna max eva ben lily".split()
PLACES = "box room garden kitchen car house park shop".split()
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
MARGIN = 5
CHAT = {
    "hello": "hello! ask me about shapes.", "hi": "hello! ask me about shapes.", "who are you?": "i am minnow, a small test model.",
    "what is your name?": "i am minnow, a small test model.", "what can you do?": "i see shapes, watch clips and add numbers.",
    "thank you": "you are welcome.", "thanks": "you are welcome.", "bye": "goodbye!"}
SYSTEMS = ("You are a helpful assistant.", "You are helpful.", "Answer briefly.")


def vary(rng, q):
    """Small changes of the wording that must not matter."""
    if rng.random() < 0.12 and q.endswith("?"):
        q = q[:-1]
    if rng.random() < 0.12:
        q = q[0].upper() + q[1:]
    if rng.random() < 0.08:
        q = q.replace("color", "colour")
    return q


# ---------------------------------------------------------------- pictures

def single_question(rng, color, shape):
    """A question of the easy-VQA kind about a picture with one shape; yes and no in equal shares."""
    k = rng.random()
    if k < 0.22:
        return rng.choice(("what color is the shape?", "what is the color of the shape?", f"what color is the {shape}?",
                           f"what is the color of the {shape}?")), color
    if k < 0.44:
        return rng.choice(("what shape is in the image?", "what shape does the image contain?", "what shape is present?",
                           f"what is the {color} shape?", f"what shape is {color}?")), shape
    if k < 0.52:
        return "describe the image", f"{color} {shape}"
    return yes_no(rng, [(color, shape)])


def yes_no(rng, present):
    truth = rng.random() < 0.5
    colors, kinds = {c for c, _ in present}, {s for _, s in present}
    k = rng.random()
    if k < 0.45 and (truth or len(kinds) < 3):
        thing = rng.choice([s for s in SHAPES if (s in kinds) == truth])
    elif k < 0.85 or len(present) == 1:
        thing = rng.choice([c for c in COLOR_NAMES if (c in colors) == truth]) + " shape"
    else:
        pairs = [(c, s) for c in COLOR_NAMES for s in SHAPES if ((c, s) in present) == truth and (truth or c in colors or s in kinds)]
        thing = " ".join(rng.choice(pairs))
    positive, negative = ("is there a {}?", "is there a {} in the image?", "does the image contain a {}?", "is a {} present?"), (
        "is there not a {}?", "is there not a {} in the image?", "does the image not contain a {}?", "is no {} present?")
    form = rng.random() < 0.5
    return rng.choice(positive if form else negative).format(thing), "yes" if truth == form else "no"


def unique(shapes, kind=None, color=None):
    found = [s for s in shapes if kind in (None, s.kind) and color in (None, s.color)]
    return found[0] if len(found) == 1 else None


def names(shapes, s):
    """The ways to name s that fit no other shape."""
    out = []
    if unique(shapes, s.kind):
        out.append(f"the {s.kind}")
    if unique(shapes, None, s.color):
        out.append(f"the {s.color} shape")
    if unique(shapes, s.kind, s.color):
        out.append(f"the {s.color} {s.kind}")
    return out


def referents(q, shapes):
    """(end of the name in q, shape) for each shape that q names."""
    found = []
    for s in shapes:
        for name in names(shapes, s):
            at = q.find(name)
            if at >= 0 and not q[at + len(name):at + len(name) + 1].isalpha():
                found.append((at + len(name), s))
    return found


def side(s, t, rel):
    """How far t lies on the side `rel` of s."""
    dx, dy = RELATIONS[rel]
    return (t.x - s.x) * dx + (t.y - s.y) * dy


def caption(shapes):
    """All shapes from left to right, or None where the order is too close to call."""
    order = sorted(shapes, key=lambda s: s.x)
    if any(b.x - a.x < 3 for a, b in zip(order, order[1:])):
        return None
    return ", ".join(map(str, order))


def scene_question(rng, shapes, kind=None):
    """(task, question, answer) about a scene, or None if the drawn kind of question does not fit it."""
    kind = kind or rng.choice(("count", "count", "count", "relation", "relation", "relation", "compare", "compare", "compare",
                               "attribute", "attribute", "yesno", "caption"))
    if kind == "count":
        k = rng.random()
        if k < 0.3:
            return kind, "how many shapes are there?", str(len(shapes))
        want_zero = rng.random() < 0.12
        colors, kinds = {s.color for s in shapes}, {s.kind for s in shapes}
        if k < 0.6:
            pool = [c for c in COLOR_NAMES if (c in colors) != want_zero]
            c = rng.choice(pool)
            return kind, f"how many {c} shapes are there?", str(sum(s.color == c for s in shapes))
        if k < 0.9:
            pool = [t for t in SHAPES if (t in kinds) != want_zero]
            if not pool:
                return None
            t = rng.choice(pool)
            return kind, f"how many {t}s are there?", str(sum(s.kind == t for s in shapes))
        s = rng.choice(shapes)
        return kind, f"how many {s.color} {s.kind}s are there?", str(sum(str(t) == str(s) for t in shapes))
    if kind == "relation":
        s, rel = rng.choice(shapes), rng.choice(tuple(RELATIONS))
        n = names(shapes, s)
        others = [t for t in shapes if t is not s]
        if not n or not others or any(abs(side(s, t, rel)) < MARGIN for t in others):
            return None
        on = [t for t in others if side(s, t, rel) > 0]
        if len(on) > 1 or (not on and rng.random() < 0.6):
            return None
        return kind, f"what is {rel} {rng.choice(n)}?", str(on[0]) if on else "nothing"
    if kind == "compare":
        if len(shapes) < 2:
            return None
        s, t = rng.sample(shapes, 2)
        rel = rng.choice(tuple(RELATIONS))
        n, m = names(shapes, s), names(shapes, t)
        d = side(t, s, rel)
        if not n or not m or abs(d) < MARGIN:
            return None
        words = "to the " + rel if "of" in rel and rng.random() < 0.3 else rel
        return kind, f"is {rng.choice(n)} {words} {rng.choice(m)}?", "yes" if d > 0 else "no"
    if kind == "attribute":
        s = rng.choice(shapes)
        if rng.random() < 0.5:
            if not unique(shapes, s.kind):
                return None
            return kind, rng.choice((f"what color is the {s.kind}?", f"what is the color of the {s.kind}?")), s.color
        if not unique(shapes, None, s.color):
            return None
        return kind, rng.choice((f"what shape is {s.color}?", f"what is the {s.color} shape?")), s.kind
    if kind == "yesno":
        q, a = yes_no(rng, [(s.color, s.kind) for s in shapes])
        return kind, q, a
    text = caption(shapes)
    return text and (kind, "describe the image", text)


# ---------------------------------------------------------------- clips

def clip_question(rng, clip, kind=None):
    """(task, question, answer) about a clip, or None."""
    a, b = clip.first, clip.last
    turned = a.color != b.color and a.kind == b.kind
    kind = kind or rng.choice(("direction", "direction", "color", "shape", "plain"))
    if kind == "direction":
        if not clip.direction:
            return None
        if clip.other:
            who = rng.choice((f"the {a.kind}", f"the {a.color} {a.kind}", "the moving shape"))
        else:
            who = rng.choice(("the shape", "the shape", "the shape", f"the {a.kind}" if a.kind == b.kind else "the shape"))
        q = rng.choice(("which direction does {} move?", "which direction does {} move?", "which way does {} move?", "how does {} move?"))
        return kind, q.format(who), clip.direction
    if kind == "color":
        if not turned:
            return None
        if rng.random() < 0.5:
            return kind, rng.choice(("what color does the shape become?", "what color is it at the end?", "what color is the shape at the end?",
                                     f"what color does the {a.kind} become?")), b.color
        return kind, rng.choice(("what color is it at first?", "what color is it at the start?", "what color is the shape at first?",
                                 "what color is the shape at the start?")), a.color
    if kind == "shape":
        if a.kind == b.kind:
            return None
        if rng.random() < 0.5:
            return kind, rng.choice(("which shape comes first?", "what shape is it at first?")), a.kind
        return kind, rng.choice(("which shape comes last?", "what shape is it at the end?")), b.kind
    if kind == "plain":
        k = rng.random()
        if k < 0.2:
            return kind, rng.choice(("does the color change?", "does the shape change color?")), "yes" if a.color != b.color else "no"
        if k < 0.5:
            if clip.other and clip.direction:
                return kind, "which shape moves?", a.kind
            if a.kind == b.kind:
                return kind, "does the shape move?", "yes" if clip.direction else "no"
            return None
        if clip.other:
            return None
        if a.color == b.color and k < 0.75:
            return kind, "what color is the shape?", a.color
        if a.kind == b.kind:
            return kind, rng.choice(("what shape is it?", "what shape is in the clip?")), a.kind
    return None


# ---------------------------------------------------------------- text

def digits(n):
    return n // 10, n % 10


def add_steps(a, b):
    """The column sum written out: units first, then tens with the carry."""
    (ta, ua), (tb, ub) = digits(a), digits(b)
    u = ua + ub
    out = f"{ua}+{ub}={u}"
    if a > 9 or b > 9:
        out += f", {ta}+{tb}" + (f"+1={ta + tb + 1}" if u > 9 else f"={ta + tb}")
    return out


def sub_steps(a, b):
    """The column difference of a >= b, with a borrow written out."""
    (ta, ua), (tb, ub) = digits(a), digits(b)
    borrow = ua < ub
    out = f"{ua + 10 * borrow}-{ub}={ua + 10 * borrow - ub}"
    if a > 9:
        out += f", {ta}-{tb}" + (f"-1={ta - tb - 1}" if borrow else f"={ta - tb}")
    return out


def arithmetic(rng):
    a = rng.randint(0, 9) if rng.random() < 0.2 else rng.randint(10, 99)
    b = rng.randint(0, 9) if rng.random() < 0.2 else rng.randint(10, 99)
    plus = rng.random() < 0.5
    if not plus and a < b and rng.random() < 0.85:
        a, b = b, a
    sign = "+" if plus else "-"
    k = rng.random()
    if k < 0.5:
        q = f"what is {a} {sign} {b}?"
    elif k < 0.75:
        q = f"{a} {sign} {b}"
    elif k < 0.85:
        q = f"{a}{sign}{b}="
    else:
        q = f"what is {a} {'plus' if plus else 'minus'} {b}?"
    if plus:
        return q, add_steps(a, b), str(a + b)
    if a >= b:
        return q, sub_steps(a, b), str(a - b)
    return q, f"{b}-{a}: " + sub_steps(b, a), str(a - b)


def facts_talk(rng, simple=False, backward=1.0):
    """One to four facts as text, the (key, value) of each, and a question for each in random order.

    A question comes as (question, answer, the word it asks about). `simple` keeps to one form, which a beginner needs
    to find out that a question points at a fact; `backward` multiplies the share of questions from value to key.
    """
    n = rng.choice((2, 2, 3, 4)) if simple else rng.randint(1, 4)
    k = 0 if simple else rng.random()
    back = 0 if simple else 0.25
    if k < 0.5:
        keys = rng.sample(NOUNS, n)
        values = rng.sample(COLOR_NAMES, n) if simple or rng.random() < 0.8 else [rng.choice(COLOR_NAMES) for _ in keys]
        say, ask, ask_back = "the {} is {}.", "what color is the {}?", "what is {}?"
    elif k < 0.75:
        keys, values = rng.sample([t for t in NOUNS if t not in PLACES], n), rng.sample(PLACES, n)
        say, ask, ask_back, back = "the {} is in the {}.", "where is the {}?", "", 0
    else:
        keys, values = rng.sample(NAMES, n), rng.sample(NOUNS, n)
        say, ask, ask_back, back = "{} has the {}.", "what does {} have?", "who has the {}?", 0.5
    pairs = list(zip(keys, values))
    asked = [(ask_back.format(v), k, v) if rng.random() < back * backward and values.count(v) == 1 else (ask.format(k), v, k) for k, v in pairs]
    rng.shuffle(asked)
    return " ".join(say.format(k, v) for k, v in pairs), pairs, asked


def facts(rng):
    said, _, asked = facts_talk(rng)
    return f"{said} {asked[0][0]}", asked[0][1]


def word_list(rng):
    pool = NOUNS + list(COLOR_NAMES) + NAMES + list(SHAPES)
    return [rng.choice(pool) for _ in range(rng.randint(1, 6))]


def copy(rng):
    w = " ".join(word_list(rng))
    return f"repeat: {w}", w


def reverse(rng):
    w = word_list(rng)
    return "reverse: " + " ".join(w), " ".join(w[::-1])


def chat(rng):
    return rng.choice(tuple(CHAT.items()))


def all_words():
    """Every word any question or answer can contain."""
    import random
    import re
    rng = random.Random(0)
    words = set(NOUNS) | set(NAMES) | set(PLACES) | set(COLOR_NAMES) | set(SHAPES) | {s + "s" for s in SHAPES} | set(DIRECTIONS)
    from scenes import clip, scene
    texts = [t for pair in CHAT.items() for t in pair] + ["0.5 seconds", "colour", "system", "shapes"] + [s.lower() for s in SYSTEMS]
    for _ in range(3000):
        texts += single_question(rng, "red", "circle")
        texts += [t for t in scene_question(rng, scene(rng, rng.randint(1, 5))) or () if t]
        texts += [t for t in clip_question(rng, clip(rng, 5, rng.choice(("move", "move2", "color", "shape", "still")))) or () if t]
        texts += [arithmetic(rng)[0]] + list(facts(rng))
    for t in texts:
        words |= set(re.findall("[a-z]+", t))
    return sorted(words)
