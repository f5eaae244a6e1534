//! The memory plan: which scratch tensors may share a buffer.

use super::{Graph, Home, TensorId};

/// Scratch buffers and who lives in them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Size of each buffer in bytes.
    pub sizes: Vec<usize>,
    /// For every tensor of the graph, its buffer if it is scratch.
    pub home: Vec<Option<usize>>,
}

impl Plan {
    /// The buffer `id` lives in; `None` unless it is scratch that some node uses.
    pub fn buffer(&self, id: TensorId) -> Option<usize> {
        self.home[id.index()]
    }

    /// All scratch bytes.
    pub fn bytes(&self) -> usize {
        self.sizes.iter().sum()
    }
}

/// Gives every scratch tensor a buffer such that no two tensors alive at the same node share one.
///
/// Whole buffers are shared rather than ranges of one arena: WebGPU forbids a dispatch to read one
/// range of a buffer and write another, and puts a barrier between any two dispatches that share a
/// written buffer. (Where all layers are one dispatch these buffers are ranges of one after all, which
/// every kernel may write: see `src/gpu/chain.rs`.) Larger tensors choose first; each takes the smallest
/// buffer that is free for its whole life, growing it never.
pub fn plan(graph: &Graph) -> Plan {
    let mut life: Vec<Option<(usize, usize)>> = vec![None; graph.tensors().len()];
    for (at, node) in graph.nodes().iter().enumerate() {
        for used in node.op.uses() {
            let span = life[used.tensor.index()].get_or_insert((at, at));
            span.1 = at;
        }
    }
    let size = |id: TensorId| {
        let t = graph.tensor(id);
        t.bytes(t.rows.at(graph.max))
    };
    let mut order: Vec<_> =
        graph.ids().filter(|&id| graph.tensor(id).home == Home::Scratch).collect();
    // Stable: equal sizes keep the order of the graph, so the plan is the same every time.
    order.sort_by_key(|&id| std::cmp::Reverse(size(id)));

    let mut plan = Plan { sizes: vec![], home: vec![None; graph.tensors().len()] };
    let mut tenants: Vec<Vec<(usize, usize)>> = vec![];
    for id in order {
        let Some(mine) = life[id.index()] else { continue };
        let free = |spans: &[(usize, usize)]| spans.iter().all(|s| s.1 < mine.0 || mine.1 < s.0);
        // Buffers are in falling order of size, so the last one free is the tightest fit.
        let buffer = (0..tenants.len()).rev().find(|&b| free(&tenants[b])).unwrap_or_else(|| {
            plan.sizes.push(size(id));
            tenants.push(vec![]);
            tenants.len() - 1
        });
        tenants[buffer].push(mine);
        plan.home[id.index()] = Some(buffer);
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Cost, Elem, Extent, Op, StepSize, Use, reference::Host};

    #[derive(Debug)]
    struct Touch(Vec<Use>);

    impl Op for Touch {
        fn name(&self) -> &'static str {
            "touch"
        }
        fn uses(&self) -> Vec<Use> {
            self.0.clone()
        }
        fn reference(&self, _: &Host<'_>) {}
        fn kernels(&self, _: &Graph, _: &crate::gpu::Limits) -> Vec<crate::gpu::Kernel> {
            vec![]
        }
        fn cost(&self, _: &Graph, _: StepSize) -> Cost {
            Cost::default()
        }
    }

    fn chain(cols: &[usize]) -> Graph {
        let mut g = Graph::new("chain", StepSize { rows: 3, outs: 1 });
        let ids: Vec<_> =
            cols.iter().map(|&c| g.scratch("t", Elem::F32, Extent::ROWS, c)).collect();
        for pair in ids.windows(2) {
            g.push("n", Touch(vec![pair[0].read(), pair[1].write()]));
        }
        g
    }

    #[test]
    fn a_chain_needs_two_buffers() {
        let g = chain(&[4, 4, 4, 4, 4]);
        assert_eq!(plan(&g).sizes, vec![48, 48]);
    }

    #[test]
    fn no_two_live_tensors_share_and_every_tensor_fits() {
        let g = chain(&[7, 3, 9, 1, 5, 5, 2]);
        let p = plan(&g);
        for node in g.nodes() {
            let mut seen = vec![];
            for u in node.op.uses() {
                let b = p.buffer(u.tensor).expect("used scratch has a buffer");
                assert!(!seen.contains(&b));
                seen.push(b);
                let t = g.tensor(u.tensor);
                assert!(t.bytes(t.rows.at(g.max)) <= p.sizes[b]);
            }
        }
    }
}
