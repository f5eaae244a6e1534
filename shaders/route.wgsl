// Chooses k experts a token row by the largest sqrt(softplus(logit)) + bias, or from a table. One
// workgroup a row. See src/ops/route.rs.
//
// rows        [T] Row
// logits      [T, experts] f32
// ids         [T, k] u32
// weights     [T, k] f32
// bias        [experts] f32 (with BIAS)
// image_bias  [experts] f32 (with IMAGE_BIAS)
// hash        [vocab, k] u32, rows hash_stride apart (with HASH)

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
    scale: f32,
}
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

@compute @workgroup_size(WG)
fn main(inv: Ids) {
    let at = group_index(inv);
    if at >= step.rows {
        return;
    }
    let is_text = rows[at].kind == 0u;
    for (var e = inv.lane; e < params.experts; e += WG) {
        let s = score(logits[at * params.experts + e]);
        var selection = s;
        var biased = false;
//#if IMAGE_BIAS
        if !is_text {
            selection += image_bias[e];
            biased = true;
        }
//#endif
//#if BIAS
        if !biased {
            selection += bias[e];
        }
//#endif
        scores[e] = s;
        keys[e] = order_key(selection);
    }
    workgroupBarrier();

    var from_table = false;
//#if HASH
    from_table = is_text;
    if from_table {
        let token = min(rows[at].token, params.vocab - 1u);
        for (var j = inv.lane; j < params.k; j += WG) {
            chosen[j] = min(hash[token * params.hash_stride + j], params.experts - 1u);
        }
    }
//#endif
    if !from_table {
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
        var sum = 0.0;
        for (var j = 0u; j < params.k; j++) {
            sum += scores[chosen[j]];
        }
        let id = chosen[inv.lane];
        let out = at * params.k + inv.lane;
        ids[out] = id;
        // The smallest normal number: zero over zero would be NaN.
        weights[out] = scores[id] / max(sum, 1.17549435e-38) * params.scale;
    }
}
