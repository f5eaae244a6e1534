"""Coloured shapes on plain pictures and clips, drawn with integers only, so that any language draws the same pixels."""
import numpy as np

SIZE = 64
SHAPES = ("circle", "rectangle", "triangle")
COLORS = {
    "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0),
    "gray": (128, 128, 128), "teal": (0, 128, 128), "brown": (165, 42, 42), "yellow": (255, 255, 0)}
COLOR_NAMES = tuple(COLORS)
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


class Shape:
    """A shape around (x, y): a circle of radius a; a rectangle or triangle of half width a and half height b."""
    __slots__ = ("kind", "color", "x", "y", "a", "b")

    def __init__(self, kind, color, x, y, a, b):
        self.kind, self.color, self.x, self.y, self.a, self.b = kind, color, x, y, a, b

    def at(self, x, y):
        return Shape(self.kind, self.color, x, y, self.a, self.b)

    def __str__(self):
        return f"{self.color} {self.kind}"


def draw(image, s, scale=1):
    """Draw s on image [h, w, 3] u8; with a scale, every pixel of the 64 x 64 picture becomes scale x scale."""
    h, w = image.shape[:2]
    x, y = s.x * scale + scale // 2, s.y * scale + scale // 2
    a, b = s.a * scale + scale // 2, s.b * scale + scale // 2
    x0, x1, y0, y1 = max(x - a, 0), min(x + a + 1, w), max(y - b, 0), min(y + b + 1, h)
    if x0 >= x1 or y0 >= y1:
        return
    dx = np.arange(x0, x1)[None] - x
    dy = np.arange(y0, y1)[:, None] - y
    if s.kind == "circle":
        inside = dx * dx + dy * dy <= a * a
    elif s.kind == "rectangle":
        inside = np.ones((y1 - y0, x1 - x0), bool)
    else:
        inside = np.abs(dx) * (2 * b) <= a * (dy + b)
    image[y0:y1, x0:x1][inside] = COLORS[s.color]


def render(shapes, background, scale=1):
    image = np.empty((SIZE * scale, SIZE * scale, 3), np.uint8)
    image[:] = background
    for s in shapes:
        draw(image, s, scale)
    return image


def smooth(shapes, background):
    """The picture drawn four times as large and averaged down: soft edges, like a photograph of it."""
    big = render(shapes, background, 4).astype(np.uint16)
    return ((big.reshape(SIZE, 4, SIZE, 4, 3).sum((1, 3)) + 8) // 16).astype(np.uint8)


def background(rng):
    low = 200 if rng.random() < 0.3 else 228
    return tuple(rng.randint(low, 255) for _ in range(3))


def extent(rng, kind, low, high):
    a = rng.randint(low, high)
    if kind == "circle":
        return a, a
    if kind == "triangle":
        return a, (a * 7 + 4) // 8
    return a, rng.randint(low, high)


def scene(rng, count):
    """`count` shapes, all inside the picture, with at least two pixels between their boxes."""
    high = (13, 11, 10, 9, 8)[count - 1]
    few = rng.random() < 0.5
    colors = rng.sample(COLOR_NAMES, 2 if few else 5)
    kinds = rng.sample(SHAPES, 2) if rng.random() < 0.3 else SHAPES
    shapes = []
    tries = 0
    while len(shapes) < count:
        tries += 1
        if tries > 60:
            shapes, tries, high = [], 0, max(high - 1, 5)
        kind = rng.choice(kinds)
        a, b = extent(rng, kind, 4, high)
        s = Shape(kind, rng.choice(colors), rng.randint(a + 1, SIZE - 2 - a), rng.randint(b + 1, SIZE - 2 - b), a, b)
        if all(abs(s.x - t.x) > s.a + t.a + 2 or abs(s.y - t.y) > s.b + t.b + 2 for t in shapes):
            shapes.append(s)
    return shapes


class Clip:
    """Frames of shapes, and what happens in them: the direction, the colours and kinds at the start and at the end."""

    def __init__(self, frames, direction, first, last, other=None):
        self.frames, self.direction, self.first, self.last, self.other = frames, direction, first, last, other


def clip(rng, n, story):
    """story: "move", "move2" (beside a shape that stands still), "color", "shape" or "still"."""
    while True:
        kind, color = rng.choice(SHAPES), rng.choice(COLOR_NAMES)
        a, b = extent(rng, kind, 4, 9)
        moving = story in ("move", "move2") or (story == "color" and rng.random() < 0.4)
        direction = rng.choice(tuple(DIRECTIONS)) if moving else None
        step = rng.randint(2, 9)
        dx, dy = DIRECTIONS[direction] if moving else (0, 0)
        way = step * (n - 1)
        ax, ay = (a, b)
        lo_x, hi_x, lo_y, hi_y = ax + 1, SIZE - 2 - ax, ay + 1, SIZE - 2 - ay
        if dx > 0:
            hi_x -= way
        if dx < 0:
            lo_x += way
        if dy > 0:
            hi_y -= way
        if dy < 0:
            lo_y += way
        if lo_x > hi_x or lo_y > hi_y:
            continue
        x, y = rng.randint(lo_x, hi_x), rng.randint(lo_y, hi_y)
        first = Shape(kind, color, x, y, a, b)
        path = [first.at(x + dx * step * i, y + dy * step * i) for i in range(n)]
        other = None
        if story == "move2":
            k2 = rng.choice([k for k in SHAPES if k != kind])
            c2 = rng.choice([c for c in COLOR_NAMES if c != color])
            a2, b2 = extent(rng, k2, 4, 8)
            other = Shape(k2, c2, rng.randint(a2 + 1, SIZE - 2 - a2), rng.randint(b2 + 1, SIZE - 2 - b2), a2, b2)
            if any(abs(other.x - s.x) <= a + a2 + 1 and abs(other.y - s.y) <= b + b2 + 1 for s in path):
                continue
        turn = rng.randint(1, n - 1)
        if story == "color":
            color2 = rng.choice([c for c in COLOR_NAMES if c != color])
            for s in path[turn:]:
                s.color = color2
        if story == "shape":
            k2 = rng.choice([k for k in SHAPES if k != kind])
            c2 = color if rng.random() < 0.5 else rng.choice(COLOR_NAMES)
            a2, b2 = extent(rng, k2, 4, 9)
            if rng.random() < 0.5:
                x, y = rng.randint(a2 + 1, SIZE - 2 - a2), rng.randint(b2 + 1, SIZE - 2 - b2)
            x, y = min(max(x, a2 + 1), SIZE - 2 - a2), min(max(y, b2 + 1), SIZE - 2 - b2)
            for i in range(turn, n):
                path[i] = Shape(k2, c2, x, y, a2, b2)
        frames = [([other] if other else []) + [s] for s in path]
        return Clip(frames, direction, path[0], path[-1], other)
