// Indices of the k largest scores of each row, in rising order, by radix selection. One workgroup a
// token row. See src/ops/topk.rs.
//
// rows    [T] Row
// scores  [part, entries] f32, of token rows from `first` on
// picked  [T, 1 + k] u32: a count, indices, zeros
//
// With FOURS entries is a multiple of 4; pitch, which is entries, counts cells of lib/fours.wgsl.

// As wide as may be, since a row may have 100,000 scores, but on software adapters, where a workgroup is one
// subgroup.
override WG: u32 = 256u;
// Of many scores, a sample tells first how large the k-th may be. Those that are as large are listed, and the k
// largest of them selected. If these are fewer than k or more than the list holds, and where scores are few, all
// are gone through for every digit.
override LIST: u32 = 1664u;
// Four digits a key; or three where there is no list, of which the first, of the sign, the exponent and two
// bits more, parts scores that are alike well enough that not all lanes count on the same place.
override DIGIT_BITS: u32 = 8u;
const DIGITS = 1u << DIGIT_BITS;
// Digits a lane sums up.
override EACH: u32 = DIGITS / WG;
// One of so many fours is in the sample.
const SAMPLE = 16u;
// Scores that are so many at least are worth it.
const MANY = 4096u;
// How many of the sample may be as large as the guess: four fifths of a list, lest it be too short.
const MOST_OF_SAMPLE = LIST / 5u * 4u / SAMPLE;
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
// The digit that the wanted key has, and how many of that digit are still to be taken.
var<workgroup> found: vec2<u32>;
// Places of scores, in rising order, and their keys.
var<workgroup> list: array<u32, LIST>;
var<workgroup> list_keys: array<u32, LIST>;

// The keys of a row's scores `i` to `i + 3` of n, i a multiple of 4; what is beyond the last has any.
fn keys(base: u32, i: u32, n: u32) -> vec4<u32> {
    let four = read_scores(base + i / 4u * FOUR, n - i);
    return vec4(order_key(four.x), order_key(four.y), order_key(four.z), order_key(four.w));
}

// Counts the digit of so many bits at `shift` of a key that begins with `prefix`.
fn tally(key: u32, shift: u32, bits: u32, prefix: u32) {
    let digits = key >> shift;
    if (digits >> bits) == prefix {
        atomicAdd(&histogram[digits & ((1u << bits) - 1u)], 1u);
    }
}

// The part of n, from one multiple of four to another, that is a lane's.
fn run_of(lane: u32, n: u32) -> vec2<u32> {
    let run = ((n + WG - 1u) / WG + 3u) / 4u * 4u;
    let start = min(lane * run, n);
    return vec2(start, min(start + run, n));
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

    // Twice as many of the sample as are expected to be among the k largest, and some more for small k; where the
    // list has no room for that many, a quarter more at least, or it would often be too short.
    let expected = params.k / SAMPLE;
    let guessed = min(2u * expected + 8u, MOST_OF_SAMPLE);
    let sampled = n >= max(MANY, 8u * params.k) && 4u * guessed >= 5u * expected;
    // What is gone through: every so manyth of the fours of `whole` scores, and what is listed.
    var every = select(1u, SAMPLE, sampled);
    var whole = n;
    var listed = 0u;
    // The key that is found, and how many of those equal to it are to be taken.
    var prefix = 0u;
    var wanted = select(params.k, guessed, sampled);
    for (var guess = sampled; ; guess = false) {
        // The `wanted`th largest, a digit at a time from the top.
        prefix = 0u;
        for (var shift = 32u; shift > 0u; ) {
            let bits = min(shift, DIGIT_BITS);
            shift -= bits;
            workgroupBarrier();
            for (var i = ids.lane; i < DIGITS; i += WG * step.one) {
                atomicStore(&histogram[i], 0u);
            }
            workgroupBarrier();
            for (var i = 4u * every * ids.lane; i < whole; i += 4u * every * WG) {
                let four = keys(base, i, n);
                for (var j = 0u; j < 4u; j++) {
                    if i + j < n {
                        tally(four[j], shift, bits, prefix);
                    }
                }
            }
            for (var p = ids.lane; p < listed; p += WG) {
                tally(list_keys[p], shift, bits, prefix);
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
        if !guess {
            break;
        }

        // Each lane lists those of a run, behind those of the lanes before.
        let run = run_of(ids.lane, n);
        var mine = 0u;
        for (var i = run.x; i < run.y; i += 4u) {
            mine += count(among(i, run.y) & (keys(base, i, n) >= vec4(prefix)));
        }
        var place = scan_before(ids, mine);
        let all = scan_total();
        let right = params.k <= all && all <= LIST;
        for (var i = run.x; i < select(run.x, run.y, right); i += 4u) {
            let four = keys(base, i, n);
            let large = among(i, run.y) & (four >= vec4(prefix));
            for (var left = bits_of(large); left > 0u; left &= left - 1u) {
                let j = firstTrailingBit(left);
                list[place] = i + j;
                list_keys[place] = four[j];
                place++;
            }
        }
        listed = select(0u, all, right);
        whole = select(n, 0u, right);
        every = 1u;
        wanted = params.k;
    }

    // Each lane writes what a run has, behind that of the lanes before.
    let run = run_of(ids.lane, whole);
    let run_listed = run_of(ids.lane, listed);
    var larger = 0u;
    var equal = 0u;
    for (var i = run.x; i < run.y; i += 4u) {
        let four = keys(base, i, n);
        larger += count(among(i, run.y) & (four > vec4(prefix)));
        equal += count(among(i, run.y) & (four == vec4(prefix)));
    }
    for (var p = run_listed.x; p < run_listed.y; p++) {
        let one = list_keys[p];
        larger += u32(one > prefix);
        equal += u32(one == prefix);
    }
    var equal_before = scan_before(ids, equal);
    let larger_before = scan_before(ids, larger);
    var place = out + 1u + larger_before + min(equal_before, wanted);
    for (var i = run.x; i < run.y; i += 4u) {
        let four = keys(base, i, n);
        for (var j = 0u; j < 4u && i + j < run.y; j++) {
            if four[j] > prefix || (four[j] == prefix && equal_before < wanted) {
                picked[place] = i + j;
                place++;
            }
            equal_before += u32(four[j] == prefix);
        }
    }
    for (var p = run_listed.x; p < run_listed.y; p++) {
        let i = list[p];
        let one = list_keys[p];
        if one > prefix || (one == prefix && equal_before < wanted) {
            picked[place] = i;
            place++;
        }
        equal_before += u32(one == prefix);
    }
}

// Which of four places from `i` on are before `end`.
fn among(i: u32, end: u32) -> vec4<bool> {
    return vec4(i) + vec4(0u, 1u, 2u, 3u) < vec4(end);
}

fn count(which: vec4<bool>) -> u32 {
    return countOneBits(bits_of(which));
}

fn bits_of(which: vec4<bool>) -> u32 {
    return dot(vec4<u32>(which), vec4(1u, 2u, 4u, 8u));
}
