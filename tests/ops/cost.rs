//! What ops say they read of a context.

use fathom::graph::{Cost, Elem, Extent, Graph, StepSize};
use fathom::ops::{self, Attention, CausalAttention, Compressed, IndexScores};

const HEADS: usize = 6;
const DIM: usize = 16;

/// Makes the op of a case.
type Build = fn(&mut Graph);

/// The last op of what `build` makes, in a step of `rows` rows after `depth` positions.
fn cost(build: Build, rows: usize, depth: usize) -> Cost {
    let step = StepSize { rows, outs: 1 };
    let mut g = Graph::new("cost", step);
    build(&mut g);
    g.nodes().last().unwrap().op.context_cost(&g, step, depth)
}

fn causal(g: &mut Graph, picked: Option<usize>) {
    let rows = g.input("rows", Elem::U32, Extent::ROWS, 8);
    let q = g.input("q", Elem::F32, Extent::ROWS, HEADS * DIM);
    let [keys, values] = ["keys", "values"].map(|name| g.state(name, 500, 2 * DIM));
    let select = picked.map(|k| g.input("select", Elem::U32, Extent::ROWS, 1 + k));
    let (groups, value_dim, context, scale) = (2, DIM, 500, 1.0);
    let values = Some(values);
    let a = CausalAttention {
        rows,
        q,
        keys,
        values,
        value_dim,
        heads: HEADS,
        groups,
        context,
        scale,
        select,
    };
    ops::causal_attention(g, a);
}

fn windowed(g: &mut Graph, picked: Option<Option<usize>>) {
    let rows = g.input("rows", Elem::U32, Extent::ROWS, 8);
    let q = g.input("q", Elem::F32, Extent::ROWS, HEADS * DIM);
    let table = g.input("table", Elem::F32, Extent::ROWS, 8);
    let (ring, sinks) = (g.state("ring", 128, DIM), g.weight("sinks", Elem::F32, 1, HEADS));
    let compressed = picked.map(|k| Compressed {
        cache: g.state("cache", 125, DIM),
        entries: 125,
        ratio: 4,
        select: k.map(|k| g.input("select", Elem::U32, Extent::ROWS, 1 + k)),
    });
    let (cap, window, heads, scale) = (128, 64, HEADS, 1.0);
    let a = Attention { rows, q, table, ring, cap, window, compressed, sinks, heads, scale };
    ops::attention(g, a);
}

fn scores(g: &mut Graph) {
    let rows = g.input("rows", Elem::U32, Extent::ROWS, 8);
    let q = g.input("q", Elem::F32, Extent::ROWS, HEADS * DIM).into();
    let weights = g.input("weights", Elem::F32, Extent::ROWS, HEADS).into();
    let keys = g.state("keys", 125, DIM);
    let (heads, entries, ratio, scale) = (HEADS, 125, 4, 1.0);
    ops::index_scores(g, IndexScores { rows, q, weights, heads, keys, entries, ratio, scale });
}

fn largest(g: &mut Graph) {
    let rows = g.input("rows", Elem::U32, Extent::ROWS, 8);
    let scores = g.input("scores", Elem::F32, Extent::ROWS, 125);
    ops::topk(g, rows, scores, 4, 20);
}

/// A prefill step does what as many decode steps do, and reads no more: less where rows share keys.
#[test]
fn a_step_costs_what_its_rows_do() {
    let builds: [(&str, Build, bool); 7] = [
        ("causal", |g| causal(g, None), true),
        ("causal, picked", |g| causal(g, Some(30)), false),
        ("window", |g| windowed(g, None), true),
        ("window and entries", |g| windowed(g, Some(None)), true),
        ("window and picked entries", |g| windowed(g, Some(Some(20))), true),
        ("index_scores", scores, true),
        ("topk", largest, false),
    ];
    for (name, build, shared) in builds {
        for (rows, depth) in [(1, 0), (7, 0), (50, 0), (1, 300), (33, 61), (40, 300)] {
            let step = cost(build, rows, depth);
            let each = (depth..depth + rows).map(|d| cost(build, 1, d));
            let sum = each.fold(Cost::default(), |sum, c| sum + c);
            assert_eq!(step.flops, sum.flops, "{name}, {rows} rows after {depth}");
            let fewer = if shared && rows > 1 && depth > 0 {
                step.bytes < sum.bytes
            } else {
                step.bytes <= sum.bytes
            };
            assert!(fewer, "{name}, {rows} rows after {depth}: {step:?}, {sum:?}");
        }
    }
}

/// Of one row after 299 others.
#[test]
fn of_a_row() {
    let keys = 300 * 2 * DIM * 2;
    let expected = Cost { bytes: 4 * keys as u64, flops: (300 * HEADS * 4 * DIM) as u64 };
    assert_eq!(cost(|g| causal(g, None), 1, 299), expected);
    // 64 of the window, and of 75 entries all or 20, which are read with their numbers.
    let builds: [(Build, usize, usize); 2] = [
        (|g| windowed(g, Some(None)), 75, 75 * DIM),
        (|g| windowed(g, Some(Some(20))), 20, 20 * (DIM + 1)),
    ];
    for (build, entries, words) in builds {
        let bytes = 4 * (64 * DIM + words) as u64;
        let flops = ((64 + entries) * HEADS * 4 * DIM) as u64;
        assert_eq!(cost(build, 1, 299), Cost { bytes, flops });
    }
    let flops = (75 * HEADS * (2 * DIM + 2)) as u64;
    assert_eq!(cost(scores, 1, 299), Cost { bytes: 4 * (75 * DIM + 75) as u64, flops });
    assert_eq!(cost(largest, 1, 299), Cost { bytes: 4 * 75, flops: 0 });
}
