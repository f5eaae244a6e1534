// Indices of the k largest scores of each row, in rising order, by radix selection. One workgroup a
// token row. See src/ops/topk.rs.
//
// rows    [T] Row
// scores  [part, entries] f32, of token rows from `first` on
// picked  [T, 1 + k] u32: a count, indices, zeros

// As wide as may be: a row may have 100,000 scores.
override WG: u32 = 256u;
// Three digits a key. The first one, of the sign, the exponent and two bits more, parts scores that are
// alike well enough that not all lanes count on the same place.
const DIGIT_BITS = 11u;
const DIGITS = 1u << DIGIT_BITS;
// Digits a lane sums up.
override EACH: u32 = DIGITS / WG;
// Scores a lane waits for at a time.
const AHEAD = 4u;
//#include scan
//#include order

struct Params {
    entries: u32,
    ratio: u32,
    k: u32,
    first: u32,
    part: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read> scores: array<f32>;
@group(0) @binding(4) var<storage, read_write> picked: array<u32>;

// Keys that have each digit; integers, so that the order in which lanes add makes no difference.
var<workgroup> histogram: array<atomic<u32>, DIGITS>;
// The digit that the k-th largest key has, and how many of that digit are still to be taken.
var<workgroup> found: vec2<u32>;

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let line = group_index(ids);
    let at = params.first + line;
    if line >= params.part || at >= step.rows {
        return;
    }
    let n = min((rows[at].position + 1u) / params.ratio, params.entries);
    let base = line * params.entries;
    let out = at * (1u + params.k);
    let count = min(n, params.k);
    if ids.lane == 0u {
        picked[out] = count;
    }
    for (var i = count + ids.lane; i < params.k; i += WG) {
        picked[out + 1u + i] = 0u;
    }
    if n <= params.k {
        for (var i = ids.lane; i < n; i += WG) {
            picked[out + 1u + i] = i;
        }
        return;
    }

    // The k-th largest key, a digit at a time from the top; `wanted` of those equal to it are taken.
    var prefix = 0u;
    var wanted = params.k;
    for (var shift = 32u; shift > 0u; ) {
        let bits = min(shift, DIGIT_BITS);
        shift -= bits;
        workgroupBarrier();
        for (var i = ids.lane; i < DIGITS; i += WG * step.one) {
            atomicStore(&histogram[i], 0u);
        }
        workgroupBarrier();
        for (var i = ids.lane; i < n; i += AHEAD * WG) {
            var ahead: array<f32, AHEAD>;
            for (var j = 0u; j < AHEAD; j++) {
                ahead[j] = scores[base + min(i + j * WG, n - 1u)];
            }
            for (var j = 0u; j < AHEAD; j++) {
                let key = order_key(ahead[j]) >> shift;
                if i + j * WG < n && (key >> bits) == prefix {
                    atomicAdd(&histogram[key & ((1u << bits) - 1u)], 1u);
                }
            }
        }
        workgroupBarrier();
        // Lane 0 has the largest digits.
        var digit = DIGITS - EACH * ids.lane;
        var with_digits = 0u;
        for (var i = 0u; i < EACH; i += step.one) {
            with_digits += atomicLoad(&histogram[digit - 1u - i]);
        }
        let above = scan_before(ids, with_digits);
        if above < wanted && wanted <= above + with_digits {
            var still = wanted - above;
            digit--;
            for (var here = atomicLoad(&histogram[digit]); here < still; ) {
                still -= here;
                digit--;
                here = atomicLoad(&histogram[digit]);
            }
            found = vec2<u32>(digit, still);
        }
        let next = workgroupUniformLoad(&found);
        prefix = (prefix << bits) | next.x;
        wanted = next.y;
    }

    // Each lane writes what a run of consecutive scores has, behind that of the lanes before.
    let run = (n + WG - 1u) / WG;
    let start = min(ids.lane * run, n);
    let end = min(start + run, n);
    var larger = 0u;
    var equal = 0u;
    for (var i = start; i < end; i++) {
        let key = order_key(scores[base + i]);
        larger += u32(key > prefix);
        equal += u32(key == prefix);
    }
    var equal_before = scan_before(ids, equal);
    let larger_before = scan_before(ids, larger);
    var place = out + 1u + larger_before + min(equal_before, wanted);
    for (var i = start; i < end; i++) {
        let key = order_key(scores[base + i]);
        if key > prefix || (key == prefix && equal_before < wanted) {
            picked[place] = i;
            place++;
        }
        equal_before += u32(key == prefix);
    }
}
