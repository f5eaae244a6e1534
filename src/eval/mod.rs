//! Tasks with known answers, drawn afresh from a seed: what the default model's accuracy is measured on.
//!
//! Nothing here knows the engine. A task makes [`Example`]s, and the caller asks a model the question and
//! compares its text with the answer. The pictures and words follow `weights/train`, where the same scenes
//! are drawn in Python.

pub mod draw;
pub mod easy_vqa;
pub mod questions;
pub mod scenes;
pub mod text;

use image::RgbImage;

use draw::Draw;

/// One question with its pictures and its only right answer.
#[derive(Debug, Clone)]
pub struct Example {
    /// The task it belongs to.
    pub task: Task,
    /// The picture, or the frames of a clip in order; empty for a text task.
    pub images: Vec<RgbImage>,
    /// The time of each frame in seconds; empty unless `images` is a clip.
    pub times: Vec<f32>,
    /// What the user asks.
    pub question: String,
    /// Whether the model should think before it answers.
    pub think: bool,
    /// The exact answer, without the thought.
    pub answer: String,
}

impl Example {
    /// Whether `reply` (the text after any thought) is the right answer.
    pub fn accepts(&self, reply: &str) -> bool {
        reply.trim() == self.answer
    }
}

/// The kinds of questions the default model was trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// The easy-VQA test split; read from disk by [`easy_vqa::load`], not generated.
    EasyVqa,
    /// How many shapes (of a colour, of a kind) a scene shows.
    Count,
    /// What stands on one side of a shape.
    Relation,
    /// Whether one shape stands on a given side of another.
    Compare,
    /// The colour of a shape, or the shape of a colour.
    Attribute,
    /// Whether a scene shows a thing.
    YesNo,
    /// All shapes of a scene from left to right.
    Caption,
    /// The way a shape moves in a clip.
    Direction,
    /// The colour of a shape before or after it changes.
    Color,
    /// The first or the last shape of a clip.
    Shape,
    /// Sums and differences, worked out in a thought.
    Arithmetic,
    /// A question about facts given in the prompt.
    Facts,
    /// Saying a list of words again.
    Copy,
    /// Saying a list of words backwards.
    Reverse,
}

impl Task {
    /// Every task that [`generate`] can make, in the order reports show them.
    pub const GENERATED: [Task; 13] = [
        Task::Count,
        Task::Relation,
        Task::Compare,
        Task::Attribute,
        Task::YesNo,
        Task::Caption,
        Task::Direction,
        Task::Color,
        Task::Shape,
        Task::Arithmetic,
        Task::Facts,
        Task::Copy,
        Task::Reverse,
    ];

    /// The name used on command lines and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Task::EasyVqa => "easy-vqa",
            Task::Count => "count",
            Task::Relation => "relation",
            Task::Compare => "compare",
            Task::Attribute => "attribute",
            Task::YesNo => "yes-no",
            Task::Caption => "caption",
            Task::Direction => "direction",
            Task::Color => "color",
            Task::Shape => "shape",
            Task::Arithmetic => "arithmetic",
            Task::Facts => "facts",
            Task::Copy => "copy",
            Task::Reverse => "reverse",
        }
    }

    /// The task called `name`, if there is one.
    pub fn from_name(name: &str) -> Option<Task> {
        Self::GENERATED.into_iter().chain([Task::EasyVqa]).find(|t| t.name() == name)
    }
}

/// `count` examples of `task`; the same seed gives the same examples on every machine.
///
/// [`Task::EasyVqa`] can't be generated and yields none: see [`easy_vqa::load`].
pub fn generate(task: Task, count: usize, seed: u64) -> Vec<Example> {
    let mut rng = Draw::new(seed ^ ((task as u64 + 1) << 40));
    let mut made = vec![];
    while made.len() < count {
        let example = match task {
            Task::EasyVqa => return made,
            Task::Count
            | Task::Relation
            | Task::Compare
            | Task::Attribute
            | Task::YesNo
            | Task::Caption => questions::about_scene(&mut rng, task),
            Task::Direction | Task::Color | Task::Shape => questions::about_clip(&mut rng, task),
            Task::Arithmetic => Some(text::arithmetic(&mut rng)),
            Task::Facts => Some(text::facts(&mut rng)),
            Task::Copy => Some(text::copy(&mut rng)),
            Task::Reverse => Some(text::reverse(&mut rng)),
        };
        made.extend(example);
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_makes_what_is_asked() {
        for task in Task::GENERATED {
            let examples = generate(task, 40, 7);
            assert_eq!(examples.len(), 40, "{}", task.name());
            for e in &examples {
                assert_eq!(e.task, task);
                assert!(!e.question.is_empty() && !e.answer.is_empty());
                assert_eq!(e.think, task == Task::Arithmetic);
                assert!(e.times.is_empty() || e.times.len() == e.images.len());
                assert!(e.images.iter().all(|i| i.dimensions() == (scenes::SIZE, scenes::SIZE)));
            }
        }
    }

    #[test]
    fn a_seed_fixes_the_examples() {
        let a = generate(Task::Direction, 5, 3);
        let b = generate(Task::Direction, 5, 3);
        let c = generate(Task::Direction, 5, 4);
        assert!(a.iter().zip(&b).all(|(x, y)| x.images == y.images && x.answer == y.answer));
        assert!(a.iter().zip(&c).any(|(x, y)| x.images != y.images));
    }

    #[test]
    fn names_lead_back_to_tasks() {
        for task in Task::GENERATED {
            assert_eq!(Task::from_name(task.name()), Some(task));
        }
        assert_eq!(Task::from_name("easy-vqa"), Some(Task::EasyVqa));
        assert_eq!(Task::from_name("juggling"), None);
    }

    #[test]
    fn easy_vqa_is_not_generated() {
        assert!(generate(Task::EasyVqa, 3, 1).is_empty());
    }
}
