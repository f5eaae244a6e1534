//! Coloured shapes on plain pictures and clips, drawn with integers only (the twin of `weights/train/scenes.py`).

use std::fmt;

use image::{Rgb, RgbImage};

use super::draw::Draw;

/// Width and height of every picture.
pub const SIZE: u32 = 64;

/// What can be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// All pixels within a radius.
    Circle,
    /// An axis-aligned box.
    Rectangle,
    /// An upright triangle.
    Triangle,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 3] = [Kind::Circle, Kind::Rectangle, Kind::Triangle];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Circle => "circle",
            Kind::Rectangle => "rectangle",
            Kind::Triangle => "triangle",
        }
    }
}

/// The eight colours, by name.
pub const COLORS: [(&str, [u8; 3]); 8] = [
    ("red", [255, 0, 0]),
    ("green", [0, 255, 0]),
    ("blue", [0, 0, 255]),
    ("black", [0, 0, 0]),
    ("gray", [128, 128, 128]),
    ("teal", [0, 128, 128]),
    ("brown", [165, 42, 42]),
    ("yellow", [255, 255, 0]),
];

/// One of [`COLORS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Color(usize);

impl Color {
    /// All colours.
    pub fn all() -> [Color; 8] {
        std::array::from_fn(Color)
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        COLORS[self.0].0
    }

    /// The colour called `name`, if there is one.
    pub fn from_name(name: &str) -> Option<Color> {
        COLORS.iter().position(|(n, _)| *n == name).map(Color)
    }

    fn rgb(self) -> Rgb<u8> {
        Rgb(COLORS[self.0].1)
    }
}

/// A way to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Towards smaller x.
    Left,
    /// Towards larger x.
    Right,
    /// Towards smaller y.
    Up,
    /// Towards larger y.
    Down,
}

impl Direction {
    /// All directions.
    pub const ALL: [Direction; 4] =
        [Direction::Left, Direction::Right, Direction::Up, Direction::Down];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Left => "left",
            Direction::Right => "right",
            Direction::Up => "up",
            Direction::Down => "down",
        }
    }

    /// The move of one pixel.
    pub fn step(self) -> (i32, i32) {
        match self {
            Direction::Left => (-1, 0),
            Direction::Right => (1, 0),
            Direction::Up => (0, -1),
            Direction::Down => (0, 1),
        }
    }
}

/// A shape around (`x`, `y`): a circle of radius `a`, or a rectangle or triangle of half width `a` and half height `b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// What it is.
    pub kind: Kind,
    /// Its colour.
    pub color: Color,
    /// Centre column.
    pub x: i32,
    /// Centre row.
    pub y: i32,
    /// Half width, or radius.
    pub a: i32,
    /// Half height, or radius.
    pub b: i32,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.color.name(), self.kind.name())
    }
}

impl Shape {
    fn covers(&self, x: i32, y: i32) -> bool {
        let (dx, dy) = (x - self.x, y - self.y);
        if dx.abs() > self.a || dy.abs() > self.b {
            return false;
        }
        match self.kind {
            Kind::Circle => dx * dx + dy * dy <= self.a * self.a,
            Kind::Rectangle => true,
            Kind::Triangle => dx.abs() * 2 * self.b <= self.a * (dy + self.b),
        }
    }

    /// Whether the boxes of both shapes come closer than `gap` pixels.
    fn crowds(&self, other: &Shape, gap: i32) -> bool {
        (self.x - other.x).abs() <= self.a + other.a + gap
            && (self.y - other.y).abs() <= self.b + other.b + gap
    }
}

/// A picture of `shapes`, later ones over earlier ones.
pub fn render(shapes: &[Shape], background: [u8; 3]) -> RgbImage {
    let mut image = RgbImage::from_pixel(SIZE, SIZE, Rgb(background));
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        for s in shapes {
            if s.covers(x as i32, y as i32) {
                *pixel = s.color.rgb();
            }
        }
    }
    image
}

/// A light background.
pub fn background(rng: &mut Draw) -> [u8; 3] {
    let low = if rng.chance(30) { 200 } else { 228 };
    std::array::from_fn(|_| rng.range(low, 255) as u8)
}

fn extent(rng: &mut Draw, kind: Kind, low: i32, high: i32) -> (i32, i32) {
    let a = rng.range(low, high);
    let b = match kind {
        Kind::Circle => a,
        Kind::Triangle => (a * 7 + 4) / 8,
        Kind::Rectangle => rng.range(low, high),
    };
    (a, b)
}

/// A place for a shape of half size (`a`, `b`) wholly inside the picture.
fn inside(rng: &mut Draw, a: i32, b: i32) -> (i32, i32) {
    let last = SIZE as i32 - 2;
    (rng.range(a + 1, last - a), rng.range(b + 1, last - b))
}

/// `count` shapes (1 to 5) inside the picture, with at least two pixels between their boxes.
pub fn scene(rng: &mut Draw, count: usize) -> Vec<Shape> {
    let mut high = [13, 11, 10, 9, 8][count.clamp(1, 5) - 1];
    let few = rng.chance(50);
    let colors = rng.sample(&Color::all(), if few { 2 } else { 5 });
    let kinds = if rng.chance(30) { rng.sample(&Kind::ALL, 2) } else { Kind::ALL.to_vec() };
    let mut shapes: Vec<Shape> = Vec::new();
    let mut tries = 0;
    while shapes.len() < count {
        tries += 1;
        if tries > 60 {
            shapes.clear();
            tries = 0;
            high = (high - 1).max(5);
        }
        let kind = rng.pick(&kinds);
        let (a, b) = extent(rng, kind, 4, high);
        let color = rng.pick(&colors);
        let (x, y) = inside(rng, a, b);
        let s = Shape { kind, color, x, y, a, b };
        if !shapes.iter().any(|t| s.crowds(t, 2)) {
            shapes.push(s);
        }
    }
    shapes
}

/// What happens in a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    /// One shape moves at constant speed.
    Move,
    /// One shape moves beside another that stands still.
    MovePast,
    /// A shape changes its colour once, perhaps while it moves.
    Recolor,
    /// One shape gives way to another of a different kind.
    Replace,
}

/// The frames of a clip, and what they show.
#[derive(Debug, Clone)]
pub struct Clip {
    /// The shapes of each frame.
    pub frames: Vec<Vec<Shape>>,
    /// Where the shape moves, if it does.
    pub direction: Option<Direction>,
    /// The main shape in the first frame.
    pub first: Shape,
    /// The main shape in the last frame.
    pub last: Shape,
    /// The shape that stands still beside it, if any.
    pub other: Option<Shape>,
}

/// A clip of `n` frames (4 to 8).
pub fn clip(rng: &mut Draw, n: usize, story: Story) -> Clip {
    loop {
        if let Some(c) = try_clip(rng, n, story) {
            return c;
        }
    }
}

fn try_clip(rng: &mut Draw, n: usize, story: Story) -> Option<Clip> {
    let (kind, color) = (rng.pick(&Kind::ALL), rng.pick(&Color::all()));
    let (a, b) = extent(rng, kind, 4, 9);
    let moving = match story {
        Story::Move | Story::MovePast => true,
        Story::Recolor => rng.chance(40),
        Story::Replace => false,
    };
    let direction = moving.then(|| rng.pick(&Direction::ALL));
    let step = rng.range(2, 9);
    let (dx, dy) = direction.map_or((0, 0), Direction::step);
    let way = step * (n as i32 - 1);
    let last = SIZE as i32 - 2;
    let (low_x, high_x) = (a + 1 + way * (dx < 0) as i32, last - a - way * (dx > 0) as i32);
    let (low_y, high_y) = (b + 1 + way * (dy < 0) as i32, last - b - way * (dy > 0) as i32);
    if low_x > high_x || low_y > high_y {
        return None;
    }
    let (x, y) = (rng.range(low_x, high_x), rng.range(low_y, high_y));
    let at = |i: i32| Shape { kind, color, x: x + dx * step * i, y: y + dy * step * i, a, b };
    let mut path: Vec<Shape> = (0..n as i32).map(at).collect();
    let turn = rng.range(1, n as i32 - 1) as usize;
    let mut other = None;
    match story {
        Story::Move => {}
        Story::MovePast => {
            let still = bystander(rng, kind, color);
            if path.iter().any(|s| s.crowds(&still, 1)) {
                return None;
            }
            other = Some(still);
        }
        Story::Recolor => {
            let new = rng.pick(&others(&Color::all(), color));
            path[turn..].iter_mut().for_each(|s| s.color = new);
        }
        Story::Replace => {
            let kind = rng.pick(&others(&Kind::ALL, kind));
            let color = if rng.chance(50) { color } else { rng.pick(&Color::all()) };
            let (a, b) = extent(rng, kind, 4, 9);
            let (x, y) = if rng.chance(50) { inside(rng, a, b) } else { (x, y) };
            let (x, y) = (x.clamp(a + 1, last - a), y.clamp(b + 1, last - b));
            path[turn..].fill(Shape { kind, color, x, y, a, b });
        }
    }
    let frames = path.iter().map(|s| other.into_iter().chain([*s]).collect()).collect();
    Some(Clip { frames, direction, first: path[0], last: path[n - 1], other })
}

fn bystander(rng: &mut Draw, kind: Kind, color: Color) -> Shape {
    let kind = rng.pick(&others(&Kind::ALL, kind));
    let color = rng.pick(&others(&Color::all(), color));
    let (a, b) = extent(rng, kind, 4, 8);
    let (x, y) = inside(rng, a, b);
    Shape { kind, color, x, y, a, b }
}

fn others<T: Copy + PartialEq>(all: &[T], but: T) -> Vec<T> {
    all.iter().copied().filter(|t| *t != but).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(kind: Kind, a: i32, b: i32) -> usize {
        let color = Color::from_name("teal").unwrap();
        let image = render(&[Shape { kind, color, x: 30, y: 30, a, b }], [255; 3]);
        image.pixels().filter(|p| p.0 == [0, 128, 128]).count()
    }

    #[test]
    fn areas_are_those_of_the_python_twin() {
        assert_eq!(area(Kind::Rectangle, 5, 3), 11 * 7);
        assert_eq!(area(Kind::Circle, 5, 5), 81);
        assert_eq!(area(Kind::Triangle, 8, 7), 123);
    }

    #[test]
    fn a_shape_over_the_edge_is_cut() {
        let color = Color::from_name("red").unwrap();
        let s = Shape { kind: Kind::Rectangle, color, x: 0, y: 63, a: 4, b: 4 };
        let image = render(&[s], [250; 3]);
        assert_eq!(image.pixels().filter(|p| p.0 == [255, 0, 0]).count(), 25);
    }

    #[test]
    fn scenes_hold_separate_shapes_inside() {
        let mut rng = Draw::new(5);
        for i in 0..200 {
            let count = 1 + i % 5;
            let shapes = scene(&mut rng, count);
            assert_eq!(shapes.len(), count);
            for (i, s) in shapes.iter().enumerate() {
                assert!(s.x - s.a >= 1 && s.x + s.a <= 62 && s.y - s.b >= 1 && s.y + s.b <= 62);
                assert!(!shapes[..i].iter().any(|t| s.crowds(t, 2)));
            }
        }
    }

    #[test]
    fn clips_tell_their_story() {
        let mut rng = Draw::new(6);
        for i in 0..100 {
            let n = 4 + i % 5;
            let m = clip(&mut rng, n, Story::MovePast);
            assert_eq!(m.frames.len(), n);
            let (dx, dy) = m.direction.unwrap().step();
            assert!(
                (m.last.x - m.first.x) * dx + (m.last.y - m.first.y) * dy >= 2 * (n as i32 - 1)
            );
            assert!(m.frames.iter().all(|f| f.len() == 2));
            let r = clip(&mut rng, n, Story::Recolor);
            assert!(r.first.color != r.last.color && r.first.kind == r.last.kind);
            let s = clip(&mut rng, n, Story::Replace);
            assert!(s.first.kind != s.last.kind && s.direction.is_none());
        }
    }
}
