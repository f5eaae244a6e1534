//! Text tasks (the twin of the second half of `weights/train/tasks.py`).

use super::draw::Draw;
use super::scenes::{COLORS, Kind};
use super::{Example, Task};

const NOUNS: [&str; 38] = [
    "cat", "dog", "bird", "fish", "cow", "pig", "hen", "fox", "bear", "frog", "ant", "bee", "box",
    "cup", "hat", "pen", "book", "ball", "key", "car", "bus", "boat", "tree", "sun", "moon",
    "star", "rain", "snow", "milk", "egg", "cake", "fork", "door", "desk", "bed", "map", "ring",
    "sock",
];
const NAMES: [&str; 6] = ["tom", "anna", "max", "eva", "ben", "lily"];
const PLACES: [&str; 8] = ["box", "room", "garden", "kitchen", "car", "house", "park", "shop"];

fn example(task: Task, question: String, answer: String) -> Example {
    let think = task == Task::Arithmetic;
    Example { task, images: Vec::new(), times: Vec::new(), question, think, answer }
}

/// A sum or difference of numbers below 100, to be worked out in a thought.
pub fn arithmetic(rng: &mut Draw) -> Example {
    let number = |rng: &mut Draw| if rng.chance(20) { rng.range(0, 9) } else { rng.range(10, 99) };
    let (mut a, mut b) = (number(rng), number(rng));
    let plus = rng.chance(50);
    if !plus && a < b && rng.chance(85) {
        std::mem::swap(&mut a, &mut b);
    }
    let (sign, word) = if plus { ('+', "plus") } else { ('-', "minus") };
    let question = match rng.below(100) {
        0..50 => format!("what is {a} {sign} {b}?"),
        50..75 => format!("{a} {sign} {b}"),
        75..85 => format!("{a}{sign}{b}="),
        _ => format!("what is {a} {word} {b}?"),
    };
    let answer = if plus { a + b } else { a - b };
    example(Task::Arithmetic, question, answer.to_string())
}

/// One to four facts, and a question about one of them.
pub fn facts(rng: &mut Draw) -> Example {
    let n = rng.range(1, 4) as usize;
    let things = rng.sample(&NOUNS, n);
    let i = rng.below(n);
    let (said, question, answer) = match rng.below(4) {
        0 | 1 => {
            let names: Vec<&str> = COLORS.iter().map(|(name, _)| *name).collect();
            let colors = rng.sample(&names, n);
            let said = join(&things, &colors, |t, c| format!("the {t} is {c}."));
            if rng.chance(25) {
                (said, format!("what is {}?", colors[i]), things[i])
            } else {
                (said, format!("what color is the {}?", things[i]), colors[i])
            }
        }
        2 => {
            let pool: Vec<&str> = NOUNS.into_iter().filter(|t| !PLACES.contains(t)).collect();
            let things = rng.sample(&pool, n);
            let places = rng.sample(&PLACES, n);
            let said = join(&things, &places, |t, p| format!("the {t} is in the {p}."));
            (said, format!("where is the {}?", things[i]), places[i])
        }
        _ => {
            let people = rng.sample(&NAMES, n);
            let said = join(&people, &things, |p, t| format!("{p} has the {t}."));
            if rng.chance(50) {
                (said, format!("who has the {}?", things[i]), people[i])
            } else {
                (said, format!("what does {} have?", people[i]), things[i])
            }
        }
    };
    example(Task::Facts, format!("{said} {question}"), answer.to_owned())
}

/// Words to be said again.
pub fn copy(rng: &mut Draw) -> Example {
    let words = word_list(rng).join(" ");
    example(Task::Copy, format!("repeat: {words}"), words)
}

/// Words to be said in the opposite order.
pub fn reverse(rng: &mut Draw) -> Example {
    let mut words = word_list(rng);
    let question = format!("reverse: {}", words.join(" "));
    words.reverse();
    example(Task::Reverse, question, words.join(" "))
}

fn word_list(rng: &mut Draw) -> Vec<&'static str> {
    let mut pool = NOUNS.to_vec();
    pool.extend(COLORS.iter().map(|(name, _)| *name));
    pool.extend(NAMES);
    pool.extend(Kind::ALL.map(Kind::name));
    (0..rng.range(1, 6)).map(|_| rng.pick(&pool)).collect()
}

fn join(a: &[&str], b: &[&str], sentence: impl Fn(&str, &str) -> String) -> String {
    let all: Vec<String> = a.iter().zip(b).map(|(x, y)| sentence(x, y)).collect();
    all.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_right() {
        let mut rng = Draw::new(1);
        for _ in 0..200 {
            let e = arithmetic(&mut rng);
            let q = e.question.replace("plus", "+").replace("minus", "-");
            let sign = if q.contains('+') { '+' } else { '-' };
            let (left, right) = q.split_once(sign).unwrap();
            let number = |s: &str| {
                let digits: String = s.chars().filter(char::is_ascii_digit).collect();
                digits.parse::<i32>().unwrap()
            };
            let (a, b) = (number(left), number(right));
            let want = if sign == '+' { a + b } else { a - b };
            assert_eq!(e.answer, want.to_string(), "{}", e.question);
        }
    }

    #[test]
    fn reversing_twice_gives_the_list() {
        let mut rng = Draw::new(2);
        for _ in 0..50 {
            let e = reverse(&mut rng);
            let mut words: Vec<&str> = e.answer.split(' ').collect();
            words.reverse();
            assert_eq!(e.question, format!("reverse: {}", words.join(" ")));
        }
    }

    #[test]
    fn the_answer_to_a_fact_is_in_the_prompt() {
        let mut rng = Draw::new(3);
        for _ in 0..200 {
            let e = facts(&mut rng);
            assert!(e.question.contains(&e.answer), "{} -> {}", e.question, e.answer);
        }
    }
}
