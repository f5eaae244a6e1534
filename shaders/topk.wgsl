// Indices of the k largest scores of each row, in rising order, by radix selection. One workgroup a
// token row. See src/ops/topk.rs.
//
// rows    [T] Row
// scores  [part, entries] f32, of token rows from `first` on
// picked  [T, 1 + k] u32: a count, indices, zeros

// As wide as may be: a row may have 100,000 scores. Also the number of values of a digit, one a lane.
override WG: u32 = 256u;
const DIGIT_BITS = 8u;
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
var<workgroup> histogram: array<atomic<u32>, WG>;
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
        shift -= DIGIT_BITS;
        workgroupBarrier();
        atomicStore(&histogram[ids.lane], 0u);
        workgroupBarrier();
        for (var i = ids.lane; i < n; i += WG) {
            let key = order_key(scores[base + i]) >> shift;
            if (key >> DIGIT_BITS) == prefix {
                atomicAdd(&histogram[key & 0xffu], 1u);
            }
        }
        workgroupBarrier();
        // Lane 0 has the largest digit.
        let digit = WG - 1u - ids.lane;
        let with_digit = atomicLoad(&histogram[digit]);
        let above = scan_before(ids, with_digit);
        if above < wanted && wanted <= above + with_digit {
            found = vec2<u32>(digit, wanted - above);
        }
        let next = workgroupUniformLoad(&found);
        prefix = (prefix << DIGIT_BITS) | next.x;
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
