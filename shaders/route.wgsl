// Chooses k experts a token row by the largest score + bias, or from a table. A score is
// sqrt(softplus(logit)), or of the sigmoid or softmax with those flags. GROUPS: only from the best
// groups, those of the largest selection score or (TOP_TWO) sum of two. One workgroup a row. See
// src/ops/route.rs.
//
// rows        [T] Row
// logits      [T, experts] f32
// ids         [T, k] u32
// weights     [T, k] f32
// bias        [experts] f32, if given
// image_bias  [experts] f32, if given
// hash        [vocab, k] u32, rows hash_stride apart, if given

// An expert a lane, for 256 experts.
override WG: u32 = 256u;
// The most there may be; MOST_EXPERTS and MOST_CHOICES in src/ops/route.rs.
const EXPERTS = 512u;
const CHOICES = 16u;
//#include step
//#include order

struct Params {
    experts: u32,
    k: u32,
    vocab: u32,
    hash_stride: u32,
    groups: u32,
    top_groups: u32,
    scale: f32,
    given: u32,  // bits: BIAS, IMAGE_BIAS, HASH
}
// No flags of the shader: layers that differ in them share one kernel.
const BIAS: u32 = 1u;
const IMAGE_BIAS: u32 = 2u;
const HASH: u32 = 4u;
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read> logits: array<f32>;
@group(0) @binding(4) var<storage, read_write> ids: array<u32>;
@group(0) @binding(5) var<storage, read_write> weights: array<f32>;
@group(0) @binding(6) var<storage, read> bias: array<f32>;
@group(0) @binding(7) var<storage, read> image_bias: array<f32>;
@group(0) @binding(8) var<storage, read> hash: array<u32>;

var<workgroup> scores: array<f32, EXPERTS>;
var<workgroup> keys: array<u32, EXPERTS>;
var<workgroup> chosen: array<u32, CHOICES>;
//#if GROUPS
var<workgroup> group_keys: array<u32, EXPERTS>;
//#endif

//#if SIGMOID
fn score(x: f32) -> f32 {
    let e = exp(-abs(x));
    return select(1.0, e, x < 0.0) / (1.0 + e);
}
//#else
//#if SOFTMAX
// The row's other logits come in later.
fn score(x: f32) -> f32 {
    return x;
}

// Turns the row's scores, so far its logits, into their softmax. Every lane finds maximum and sum,
// in one order.
fn softmax(lane: u32) {
    workgroupBarrier();
    var top = scores[0];
    for (var e = 1u; e < params.experts; e++) {
        top = max(top, scores[e]);
    }
    workgroupBarrier();
    for (var e = lane; e < params.experts; e += WG) {
        scores[e] = exp(scores[e] - top);
    }
    workgroupBarrier();
    var sum = 0.0;
    for (var e = 0u; e < params.experts; e++) {
        sum += scores[e];
    }
    workgroupBarrier();
    for (var e = lane; e < params.experts; e += WG) {
        scores[e] /= sum;
    }
}
//#else
// ln(1 + e) for e in [0, 1], as 2 artanh(e / (2 + e)): the device's log may be off by 2^-21 near 1.
// The first term left out is below 2^-26 of the sum.
fn log1p(e: f32) -> f32 {
    let z = e / (2.0 + e);
    let y = z * z;
    var p = 1.0 / 15.0;
    p = fma(p, y, 1.0 / 13.0);
    p = fma(p, y, 1.0 / 11.0);
    p = fma(p, y, 1.0 / 9.0);
    p = fma(p, y, 1.0 / 7.0);
    p = fma(p, y, 1.0 / 5.0);
    p = fma(p, y, 1.0 / 3.0);
    p = fma(p, y, 1.0);
    return 2.0 * z * p;
}

// sqrt(softplus(x)). Below -20 softplus is e^x to the last digit.
fn score(x: f32) -> f32 {
    if x < -20.0 {
        return exp(0.5 * x);
    }
    return sqrt(max(x, 0.0) + log1p(exp(-abs(x))));
}
//#endif
//#endif

//#if GROUPS
// What a group is worth by the selection scores of its experts.
fn group_value(first: u32, count: u32) -> f32 {
    var best = 0u;
    var second = 0u;
    for (var e = first; e < first + count; e++) {
        second = max(second, min(best, keys[e]));
        best = max(best, keys[e]);
    }
//#if TOP_TWO
    if count > 1u {
        return order_value(best) + order_value(second);
    }
//#endif
    return order_value(best);
}

// Puts the experts of all but the best groups behind all others: no score has the key 0.
fn drop_groups(lane: u32) {
    let each = params.experts / params.groups;
    workgroupBarrier();
    for (var g = lane; g < params.groups; g += WG) {
        group_keys[g] = order_key(group_value(g * each, each));
    }
    workgroupBarrier();
    for (var e = lane; e < params.experts; e += WG) {
        let key = group_keys[e / each];
        var place = 0u;
        for (var other = 0u; other < params.groups; other++) {
            let k = group_keys[other];
            place += u32(k > key || (k == key && other < e / each));
        }
        if place >= params.top_groups {
            keys[e] = 0u;
        }
    }
}
//#endif

@compute @workgroup_size(WG)
fn main(inv: Ids) {
    let at = group_index(inv);
    if at >= step.rows {
        return;
    }
    let is_text = rows[at].kind == 0u;
    let by_image = !is_text && (params.given & IMAGE_BIAS) != 0u;
    let biased = !by_image && (params.given & BIAS) != 0u;
    for (var e = inv.lane; e < params.experts; e += WG) {
        scores[e] = score(logits[at * params.experts + e]);
    }
//#if SOFTMAX
    softmax(inv.lane);
//#endif
    for (var e = inv.lane; e < params.experts; e += WG) {
        var selection = scores[e];
        if by_image {
            selection += image_bias[e];
        }
        if biased {
            selection += bias[e];
        }
        keys[e] = order_key(selection);
    }
//#if GROUPS
    drop_groups(inv.lane);
//#endif
    workgroupBarrier();

    if is_text && (params.given & HASH) != 0u {
        let token = min(rows[at].token, params.vocab - 1u);
        for (var j = inv.lane; j < params.k; j += WG) {
            chosen[j] = min(hash[token * params.hash_stride + j], params.experts - 1u);
        }
    } else {
        // An expert's place is the number of those before it: keys are a total order, so every
        // place is taken once.
        for (var e = inv.lane; e < params.experts; e += WG) {
            let key = keys[e];
            var place = 0u;
            for (var other = 0u; other < params.experts; other++) {
                let k = keys[other];
                place += u32(k > key || (k == key && other < e));
            }
            if place < params.k {
                chosen[place] = e;
            }
        }
    }
    workgroupBarrier();

    if inv.lane < params.k {
        var sum = 1.0;
//#if NORMALISE
        sum = 0.0;
        for (var j = 0u; j < params.k; j++) {
            sum += scores[chosen[j]];
        }
//#endif
        let id = chosen[inv.lane];
        let out = at * params.k + inv.lane;
        ids[out] = id;
        // The smallest normal number: zero over zero would be NaN.
        weights[out] = scores[id] / max(sum, 1.17549435e-38) * params.scale;
    }
}
