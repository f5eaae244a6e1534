// Puts the parts together in which a row's keys were gone through, a workgroup a head of a row. With
// part i's largest score m_i, sum of weights t_i and weighted sum of values s_i, and m the largest m_i:
//
//   o = sum_i e^(m_i - m) s_i / sum_i e^(m_i - m) t_i
//
// parts  [T * splits, heads * dim] f32: s
// marks  [T * splits, 2 * heads] f32: m of the heads, then t
// o      [T, heads * dim] f32

override WG: u32 = 64u;
//#include step

struct Params {
    heads: u32,
    dim: u32,
    splits: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> parts: array<f32>;
@group(0) @binding(3) var<storage, read> marks: array<f32>;
@group(0) @binding(4) var<storage, read_write> o: array<f32>;

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let row = group_index(ids) / params.heads;
    let head = group_index(ids) % params.heads;
    if row >= step.rows {
        return;
    }
    let first = row * params.splits;
    let end = first + params.splits;
    var top = marks[first * 2u * params.heads + head];
    for (var i = first + 1u; i < end; i++) {
        top = max(top, marks[i * 2u * params.heads + head]);
    }
    for (var c = ids.lane; c < params.dim; c += WG) {
        var sum = 0.0;
        var total = 0.0;
        for (var i = first; i < end; i++) {
            let t = marks[(2u * i + 1u) * params.heads + head];
            // A part without keys has written no sums.
            if t > 0.0 {
                let w = exp(marks[2u * i * params.heads + head] - top);
                total += w * t;
                sum += w * parts[(i * params.heads + head) * params.dim + c];
            }
        }
        o[(row * params.heads + head) * params.dim + c] = sum / total;
    }
}
