//! Which frames of a clip are sent.

/// When a frame is shown, in seconds from the clip's begin: `start <= t < end`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shown {
    pub start: f64,
    pub end: f64,
}

/// A sampled frame: the time it stands for and its index in the timeline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pick {
    pub time_s: f64,
    pub index: usize,
}

/// Slack, in sampling steps, for times that were computed from ticks or hundredths.
const SLACK: f64 = 1e-6;

/// The frames shown at the times k / `fps`. A frame that is shown at several of them is picked once,
/// at the first, since a repeated picture costs its tokens again and shows nothing new. If more
/// than `most` remain, `most` of them are kept, evenly spread from the first to the last.
pub(super) fn pick(timeline: &[Shown], fps: f64, most: usize) -> Vec<Pick> {
    let step = |time: f64| (time * fps - SLACK).ceil().max(0.0);
    let mut picks: Vec<Pick> = timeline
        .iter()
        .enumerate()
        .filter(|(_, shown)| step(shown.start) < step(shown.end))
        .map(|(index, shown)| Pick { time_s: step(shown.start) / fps, index })
        .collect();
    if picks.is_empty() {
        // A clip shorter than a step that starts late still has something to show.
        picks.extend(timeline.first().map(|shown| Pick { time_s: shown.start, index: 0 }));
    }
    if picks.len() <= most {
        return picks;
    }
    if most == 1 {
        return vec![picks[picks.len() / 2]];
    }
    let last = (picks.len() - 1) as f64;
    (0..most).map(|j| picks[(j as f64 * last / (most - 1) as f64).round() as usize]).collect()
}

/// A timeline of frames shown one after the other for the given seconds each.
pub(super) fn in_sequence(durations: impl IntoIterator<Item = f64>) -> Vec<Shown> {
    let mut now = 0.0;
    durations
        .into_iter()
        .map(|seconds| {
            let start = now;
            now += seconds;
            Shown { start, end: now }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn steady(count: usize, fps: f64) -> Vec<Shown> {
        (0..count).map(|i| Shown { start: i as f64 / fps, end: (i + 1) as f64 / fps }).collect()
    }

    fn indices(picks: &[Pick]) -> Vec<usize> {
        picks.iter().map(|p| p.index).collect()
    }

    #[test]
    fn two_a_second_of_25() {
        let picks = pick(&steady(51, 25.0), 2.0, 64);
        assert_eq!(indices(&picks), [0, 12, 25, 37, 50]);
        assert_eq!(picks[1].time_s, 0.5);
    }

    #[test]
    fn a_slide_is_sent_once() {
        let picks = pick(&in_sequence([3.0, 0.2, 5.0]), 2.0, 64);
        assert_eq!(indices(&picks), [0, 1, 2]);
        assert_eq!(picks.iter().map(|p| p.time_s).collect::<Vec<_>>(), [0.0, 3.0, 3.5]);
    }

    #[test]
    fn too_many_are_spread() {
        let timeline = steady(300, 30.0);
        assert_eq!(indices(&pick(&timeline, 30.0, 4)), [0, 100, 199, 299]);
        assert_eq!(indices(&pick(&timeline, 30.0, 1)), [150]);
        assert_eq!(pick(&timeline, 30.0, 300).len(), 300);
    }

    #[test]
    fn hundredths_do_not_drift() {
        // 0.1 s is no binary fraction; frame k must still be the one shown at k / 10.
        let picks = pick(&in_sequence(vec![0.1; 1000]), 10.0, 2000);
        assert!(picks.iter().enumerate().all(|(k, p)| p.index == k));
    }

    #[test]
    fn short_and_empty() {
        assert!(pick(&[], 2.0, 8).is_empty());
        assert_eq!(pick(&[Shown { start: 0.1, end: 0.2 }], 2.0, 8).len(), 1);
        assert_eq!(pick(&[Shown { start: 0.0, end: 0.0 }], 2.0, 8).len(), 1);
    }

    proptest! {
        #[test]
        fn picks_rise_and_are_shown(
            durations in prop::collection::vec(0.0..2.0f64, 1..80),
            fps in 0.1..40.0f64, most in 1..50usize,
        ) {
            let timeline = in_sequence(durations);
            let picks = pick(&timeline, fps, most);
            prop_assert!(!picks.is_empty() && picks.len() <= most);
            for pair in picks.windows(2) {
                prop_assert!(pair[0].time_s < pair[1].time_s && pair[0].index < pair[1].index);
            }
            if picks.len() > 1 {
                for p in picks {
                    let shown = timeline[p.index];
                    prop_assert!(p.time_s > shown.start - 1e-4 && p.time_s < shown.end + 1e-4);
                }
            }
        }
    }
}
