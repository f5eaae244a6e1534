// y[t] = sum_j experts[t * k + j] (+ shared[t]), SPAN elements of y a workgroup.
//
// experts  [T * k, cols] f32
// y        [T, cols] f32
// plain    [T, cols] f32, the shared expert (with SHARED)

override WG: u32 = 64u;
// Four elements a lane, so that large steps need not start too many workgroups.
override SPAN: u32 = 256u;
//#include step

struct Params {
    cols: u32,
    k: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> experts: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
//#if SHARED
@group(0) @binding(4) var<storage, read> plain: array<f32>;
//#endif

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let n = step.rows * params.cols;
    let start = group_index(ids) * SPAN;
    let end = min(start + SPAN, n);
    for (var i = start + ids.lane; i < end; i += WG) {
        let t = i / params.cols;
        // Element i of row t, in row t * k of experts.
        let base = i + t * params.cols * (params.k - 1u);
        var sum = 0.0;
        for (var j = 0u; j < params.k; j++) {
            sum += experts[base + j * params.cols];
        }
//#if SHARED
        sum += plain[i];
//#endif
        y[i] = sum;
    }
}
