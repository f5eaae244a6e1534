//! Questions about scenes and clips (the twin of the first half of `weights/train/tasks.py`).

use super::draw::Draw;
use super::scenes::{self, Clip, Color, Kind, Shape, Story};
use super::{Example, Task};

/// Two centres closer than this along an axis are not called left or right, above or below.
const MARGIN: i32 = 5;
/// Seconds between the frames of a clip.
const FRAME_STEP: f32 = 0.5;

/// A side on which one shape can stand of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
    Above,
    Below,
}

impl Side {
    const ALL: [Side; 4] = [Side::Left, Side::Right, Side::Above, Side::Below];

    fn words(self) -> &'static str {
        match self {
            Side::Left => "left of",
            Side::Right => "right of",
            Side::Above => "above",
            Side::Below => "below",
        }
    }

    /// How far `t` stands on this side of `s`; negative on the other side.
    fn distance(self, s: &Shape, t: &Shape) -> i32 {
        match self {
            Side::Left => s.x - t.x,
            Side::Right => t.x - s.x,
            Side::Above => s.y - t.y,
            Side::Below => t.y - s.y,
        }
    }
}

/// An example of a picture task about a fresh scene, or `None` where the drawn question does not fit the scene.
pub fn about_scene(rng: &mut Draw, task: Task) -> Option<Example> {
    let count = rng.range(1, 5) as usize;
    let shapes = scenes::scene(rng, count);
    let (question, answer) = match task {
        Task::Count => count_question(rng, &shapes),
        Task::Relation => relation_question(rng, &shapes),
        Task::Compare => compare_question(rng, &shapes),
        Task::Attribute => attribute_question(rng, &shapes),
        Task::YesNo => Some(yes_no_question(rng, &shapes)),
        Task::Caption => caption(&shapes).map(|text| ("describe the image".to_owned(), text)),
        _ => None,
    }?;
    let image = scenes::render(&shapes, scenes::background(rng));
    Some(Example { task, images: vec![image], times: Vec::new(), question, think: false, answer })
}

/// An example of a clip task about a fresh clip of 4 to 8 frames, or `None` where no question fits.
pub fn about_clip(rng: &mut Draw, task: Task) -> Option<Example> {
    let story = match task {
        Task::Direction => rng.pick(&[Story::Move, Story::Move, Story::MovePast]),
        Task::Color => Story::Recolor,
        Task::Shape => Story::Replace,
        _ => return None,
    };
    let frames = rng.range(4, 8) as usize;
    let clip = scenes::clip(rng, frames, story);
    let (question, answer) = match task {
        Task::Direction => direction_question(rng, &clip)?,
        Task::Color => color_question(rng, &clip),
        _ => shape_question(rng, &clip),
    };
    let background = scenes::background(rng);
    let images = clip.frames.iter().map(|f| scenes::render(f, background)).collect();
    let times = (0..frames).map(|i| i as f32 * FRAME_STEP).collect();
    Some(Example { task, images, times, question, think: false, answer: answer.to_owned() })
}

fn count_question(rng: &mut Draw, shapes: &[Shape]) -> Option<(String, String)> {
    let form = rng.below(100);
    let want_none = rng.chance(12);
    let (thing, n) = if form < 30 {
        ("shapes".to_owned(), shapes.len())
    } else if form < 60 {
        let fits = |c: &Color| shapes.iter().any(|s| s.color == *c) != want_none;
        let pool: Vec<Color> = Color::all().into_iter().filter(fits).collect();
        let c = rng.pick(&pool);
        (format!("{} shapes", c.name()), shapes.iter().filter(|s| s.color == c).count())
    } else if form < 90 {
        let fits = |k: &Kind| shapes.iter().any(|s| s.kind == *k) != want_none;
        let pool: Vec<Kind> = Kind::ALL.into_iter().filter(fits).collect();
        if pool.is_empty() {
            return None;
        }
        let k = rng.pick(&pool);
        (format!("{}s", k.name()), shapes.iter().filter(|s| s.kind == k).count())
    } else {
        let s = rng.pick(shapes);
        let same = |t: &&Shape| t.kind == s.kind && t.color == s.color;
        (format!("{s}s"), shapes.iter().filter(same).count())
    };
    Some((format!("how many {thing} are there?"), n.to_string()))
}

fn relation_question(rng: &mut Draw, shapes: &[Shape]) -> Option<(String, String)> {
    let i = rng.below(shapes.len());
    let side = rng.pick(&Side::ALL);
    let name = pick_name(rng, shapes, i)?;
    let others: Vec<&Shape> =
        shapes.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, s)| s).collect();
    if others.is_empty() || others.iter().any(|t| side.distance(&shapes[i], t).abs() < MARGIN) {
        return None;
    }
    let there: Vec<&Shape> =
        others.into_iter().filter(|t| side.distance(&shapes[i], t) > 0).collect();
    let answer = match there.as_slice() {
        [] if rng.chance(40) => "nothing".to_owned(),
        [one] => one.to_string(),
        _ => return None,
    };
    Some((format!("what is {} {name}?", side.words()), answer))
}

fn compare_question(rng: &mut Draw, shapes: &[Shape]) -> Option<(String, String)> {
    if shapes.len() < 2 {
        return None;
    }
    let indices: Vec<usize> = (0..shapes.len()).collect();
    let pair = rng.sample(&indices, 2);
    let (i, j) = (pair[0], pair[1]);
    let side = rng.pick(&Side::ALL);
    let (a, b) = (pick_name(rng, shapes, i)?, pick_name(rng, shapes, j)?);
    let distance = side.distance(&shapes[j], &shapes[i]);
    if distance.abs() < MARGIN {
        return None;
    }
    let sideways = matches!(side, Side::Left | Side::Right);
    let article = if sideways && rng.chance(30) { "to the " } else { "" };
    Some((format!("is {a} {article}{} {b}?", side.words()), yes_or_no(distance > 0)))
}

fn attribute_question(rng: &mut Draw, shapes: &[Shape]) -> Option<(String, String)> {
    let s = rng.pick(shapes);
    if rng.chance(50) {
        let forms = ["what color is the {}?", "what is the color of the {}?"];
        let alone = shapes.iter().filter(|t| t.kind == s.kind).count() == 1;
        alone.then(|| (fill(rng.pick(&forms), s.kind.name()), s.color.name().to_owned()))
    } else {
        let forms = ["what shape is {}?", "what is the {} shape?"];
        let alone = shapes.iter().filter(|t| t.color == s.color).count() == 1;
        alone.then(|| (fill(rng.pick(&forms), s.color.name()), s.kind.name().to_owned()))
    }
}

fn yes_no_question(rng: &mut Draw, shapes: &[Shape]) -> (String, String) {
    let truth = rng.chance(50);
    let kinds: Vec<Kind> =
        Kind::ALL.into_iter().filter(|k| shapes.iter().any(|s| s.kind == *k) == truth).collect();
    let thing = if rng.chance(50) && !kinds.is_empty() {
        rng.pick(&kinds).name().to_owned()
    } else {
        let fits = |c: &Color| shapes.iter().any(|s| s.color == *c) == truth;
        let colors: Vec<Color> = Color::all().into_iter().filter(fits).collect();
        format!("{} shape", rng.pick(&colors).name())
    };
    let positive = [
        "is there a {}?",
        "is there a {} in the image?",
        "does the image contain a {}?",
        "is a {} present?",
    ];
    let negative = [
        "is there not a {}?",
        "is there not a {} in the image?",
        "does the image not contain a {}?",
        "is no {} present?",
    ];
    let asks = rng.chance(50);
    let form = rng.pick(if asks { &positive } else { &negative });
    (fill(form, &thing), yes_or_no(truth == asks))
}

/// All shapes from left to right, or `None` where the order is too close to call.
fn caption(shapes: &[Shape]) -> Option<String> {
    let mut order = shapes.to_vec();
    order.sort_by_key(|s| s.x);
    let clear = order.windows(2).all(|w| w[1].x - w[0].x >= 3);
    let words: Vec<String> = order.iter().map(Shape::to_string).collect();
    clear.then(|| words.join(", "))
}

fn direction_question(rng: &mut Draw, clip: &Clip) -> Option<(String, &'static str)> {
    let s = clip.first;
    let who = if clip.other.is_some() {
        rng.pick(&[format!("the {}", s.kind.name()), format!("the {s}")].each_ref()).clone()
    } else {
        "the shape".to_owned()
    };
    let forms = ["which direction does {} move?", "which way does {} move?", "how does {} move?"];
    Some((fill(rng.pick(&forms), &who), clip.direction?.name()))
}

fn color_question(rng: &mut Draw, clip: &Clip) -> (String, &'static str) {
    let last = [
        "what color does the shape become?",
        "what color is it at the end?",
        "what color is the shape at the end?",
    ];
    let first = [
        "what color is it at first?",
        "what color is the shape at first?",
        "what color is the shape at the start?",
    ];
    if rng.chance(50) {
        (rng.pick(&last).to_owned(), clip.last.color.name())
    } else {
        (rng.pick(&first).to_owned(), clip.first.color.name())
    }
}

fn shape_question(rng: &mut Draw, clip: &Clip) -> (String, &'static str) {
    if rng.chance(50) {
        let forms = ["which shape comes first?", "what shape is it at first?"];
        (rng.pick(&forms).to_owned(), clip.first.kind.name())
    } else {
        let forms = ["which shape comes last?", "what shape is it at the end?"];
        (rng.pick(&forms).to_owned(), clip.last.kind.name())
    }
}

/// A way to name shape `i` that fits no other shape, if there is one.
fn pick_name(rng: &mut Draw, shapes: &[Shape], i: usize) -> Option<String> {
    let s = shapes[i];
    let alone = |fits: &dyn Fn(&Shape) -> bool| shapes.iter().filter(|t| fits(t)).count() == 1;
    let mut names = Vec::new();
    if alone(&|t| t.kind == s.kind) {
        names.push(format!("the {}", s.kind.name()));
    }
    if alone(&|t| t.color == s.color) {
        names.push(format!("the {} shape", s.color.name()));
    }
    if alone(&|t| t.kind == s.kind && t.color == s.color) {
        names.push(format!("the {s}"));
    }
    if names.is_empty() { None } else { Some(names.swap_remove(rng.below(names.len()))) }
}

fn fill(form: &str, word: &str) -> String {
    form.replace("{}", word)
}

fn yes_or_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(kind: Kind, color: &str, x: i32, y: i32) -> Shape {
        Shape { kind, color: Color::from_name(color).unwrap(), x, y, a: 5, b: 5 }
    }

    fn pair() -> Vec<Shape> {
        vec![shape(Kind::Triangle, "blue", 45, 43), shape(Kind::Circle, "red", 20, 24)]
    }

    #[test]
    fn a_caption_goes_from_left_to_right() {
        assert_eq!(caption(&pair()).as_deref(), Some("red circle, blue triangle"));
        let close = [shape(Kind::Circle, "red", 20, 10), shape(Kind::Circle, "blue", 21, 40)];
        assert_eq!(caption(&close), None);
    }

    #[test]
    fn relations_name_the_only_shape_there() {
        let shapes = pair();
        let mut rng = Draw::new(1);
        for _ in 0..100 {
            if let Some((q, a)) = relation_question(&mut rng, &shapes) {
                let from_circle = q.ends_with("circle?") || q.ends_with("red shape?");
                let towards = q.contains("right of") || q.contains("below");
                let want = match (from_circle, towards) {
                    (true, true) => "blue triangle",
                    (false, false) => "red circle",
                    _ => "nothing",
                };
                assert_eq!(a, want, "{q}");
            }
        }
    }

    #[test]
    fn comparisons_are_balanced_and_true() {
        let shapes = pair();
        let mut rng = Draw::new(2);
        let mut yes = 0;
        for _ in 0..200 {
            let (q, a) = compare_question(&mut rng, &shapes).unwrap();
            let circle_first = q.starts_with("is the circle") || q.starts_with("is the red");
            let said = q.contains("left of") || q.contains("above");
            assert_eq!(a == "yes", circle_first == said, "{q}");
            yes += usize::from(a == "yes");
        }
        assert!((60..140).contains(&yes));
    }

    #[test]
    fn counts_match_the_scene() {
        let shapes = [
            shape(Kind::Circle, "red", 10, 10),
            shape(Kind::Circle, "blue", 30, 10),
            shape(Kind::Triangle, "red", 50, 10),
        ];
        let mut rng = Draw::new(3);
        for _ in 0..100 {
            let Some((q, a)) = count_question(&mut rng, &shapes) else { continue };
            let want = match q.as_str() {
                "how many shapes are there?" => "3",
                "how many red shapes are there?" | "how many circles are there?" => "2",
                "how many rectangles are there?" => "0",
                q if ["green", "black", "gray", "teal", "brown", "yellow"]
                    .iter()
                    .any(|c| q.contains(c)) =>
                {
                    "0"
                }
                _ => "1",
            };
            assert_eq!(a, want, "{q}");
        }
    }
}
