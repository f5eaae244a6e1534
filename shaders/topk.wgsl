// Indices of the k largest scores of each row, in rising order, by radix selection. One workgroup a
// token row. See src/ops/topk.rs.
//
// rows    [T] Row
// scores  [part, entries] f32, of token rows from `first` on
// picked  [T, 1 + k] u32: a count, indices, zeros
//
// With FOURS entries is a multiple of 4; pitch, which is entries, counts cells of lib/fours.wgsl.

// As wide as may be, since a row may have 100,000 scores, but on software adapters, where a workgroup is run
// by one thread and pays for each subgroup at each barrier.
override WG: u32 = 256u;
// Three digits a key. The first one, of the sign, the exponent and two bits more, parts scores that are
// alike well enough that not all lanes count on the same place.
const DIGIT_BITS = 11u;
const DIGITS = 1u << DIGIT_BITS;
// Digits a lane sums up.
override EACH: u32 = DIGITS / WG;
//#include scan
//#include order
//#include fours

struct Params {
    entries: u32,
    pitch: u32,
    ratio: u32,
    k: u32,
    first: u32,
    part: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read> scores: array<ReadCell>;
@group(0) @binding(4) var<storage, read_write> picked: array<u32>;
//#include read_four B=scores

// Keys that have each digit; integers, so that the order in which lanes add makes no difference.
var<workgroup> histogram: array<atomic<u32>, DIGITS>;
// The digit that the k-th largest key has, and how many of that digit are still to be taken.
var<workgroup> found: vec2<u32>;

// The keys of a row's scores `i` to `i + 3` of n, i a multiple of 4; what is beyond the last has any.
fn keys(base: u32, i: u32, n: u32) -> vec4<u32> {
    let four = read_scores(base + i / 4u * FOUR, n - i);
    return vec4(order_key(four.x), order_key(four.y), order_key(four.z), order_key(four.w));
}

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let line = group_index(ids);
    let at = params.first + line;
    if line >= params.part || at >= step.rows {
        return;
    }
    let n = min((rows[at].position + 1u) / params.ratio, params.entries);
    let base = line * params.pitch;
    let out = at * (1u + params.k);
    let taken = min(n, params.k);
    if ids.lane == 0u {
        picked[out] = taken;
    }
    for (var i = taken + ids.lane; i < params.k; i += WG) {
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
        for (var i = 4u * ids.lane; i < n; i += 4u * WG) {
            let four = keys(base, i, n) >> vec4(shift);
            for (var j = 0u; j < 4u; j++) {
                if i + j < n && (four[j] >> bits) == prefix {
                    atomicAdd(&histogram[four[j] & ((1u << bits) - 1u)], 1u);
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
    let run = ((n + WG - 1u) / WG + 3u) / 4u * 4u;
    let start = min(ids.lane * run, n);
    let end = min(start + run, n);
    var larger = 0u;
    var equal = 0u;
    for (var i = start; i < end; i += 4u) {
        let four = keys(base, i, n);
        let here = vec4(i) + vec4(0u, 1u, 2u, 3u) < vec4(end);
        larger += count(here & (four > vec4(prefix)));
        equal += count(here & (four == vec4(prefix)));
    }
    var equal_before = scan_before(ids, equal);
    let larger_before = scan_before(ids, larger);
    var place = out + 1u + larger_before + min(equal_before, wanted);
    for (var i = start; i < end; i += 4u) {
        let four = keys(base, i, n);
        for (var j = 0u; j < 4u && i + j < end; j++) {
            if four[j] > prefix || (four[j] == prefix && equal_before < wanted) {
                picked[place] = i + j;
                place++;
            }
            equal_before += u32(four[j] == prefix);
        }
    }
}

fn count(which: vec4<bool>) -> u32 {
    return u32(which.x) + u32(which.y) + u32(which.z) + u32(which.w);
}
