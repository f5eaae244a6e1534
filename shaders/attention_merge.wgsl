// Puts the parts together in which a row's keys were gone through, a workgroup a head of a row. With
// part i's largest score m_i, sum of weights t_i and weighted sum of values s_i, and m the largest m_i:
//
//   o = sum_i e^(m_i - m) s_i / sum_i e^(m_i - m) t_i
//
// With TURN_BACK less the row's rotation, for which dim is even.
//
// parts  [T * splits, heads * dim] f32: s
// marks  [T * splits, 2 * heads] f32: m of the heads, then t
// o      [T, heads * dim] f32
// table  [T, rope] f32 (with TURN_BACK)

override WG: u32 = 64u;
//#include step

struct Params {
    heads: u32,
    dim: u32,
    splits: u32,
    rope: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> parts: array<f32>;
@group(0) @binding(3) var<storage, read> marks: array<f32>;
@group(0) @binding(4) var<storage, read_write> o: array<f32>;
//#if TURN_BACK
@group(0) @binding(5) var<storage, read> table: array<f32>;
//#include turn_back
//#endif

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
    // Two dimensions a lane: those that turn together.
    for (var c = 2u * ids.lane; c < params.dim; c += 2u * WG) {
        let odd = min(c + 1u, params.dim - 1u);
        var sum = vec2<f32>();
        var total = 0.0;
        for (var i = first; i < end; i++) {
            let t = marks[(2u * i + 1u) * params.heads + head];
            // A part without keys has written no sums.
            if t > 0.0 {
                let w = exp(marks[2u * i * params.heads + head] - top);
                let at = (i * params.heads + head) * params.dim;
                total += w * t;
                sum += w * vec2(parts[at + c], parts[at + odd]);
            }
        }
        var v = sum / total;
//#if TURN_BACK
        v = turned_back(row, c, v);
//#endif
        let to = (row * params.heads + head) * params.dim;
        o[to + c] = v.x;
        if odd > c {
            o[to + odd] = v.y;
        }
    }
}
