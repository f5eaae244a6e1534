// Attention of a workgroup's QUERIES queries over a list of keys, softmax on line over tiles of KEYS of
// them. A lane multiplies four queries with four keys at a time, then weighs four dims of values for
// the same four queries, so that it multiplies 16 times for 8 numbers it reads. What is left of the
// lanes parts the dims of the products and the keys of the sums among itself.
//
// The including file says where everything is:
//
//   struct Keys, struct Seen          what place_of and seen need to know
//   place_of(keys, j) -> u32          where key j of the list is
//   seen(s, j) -> vec4<bool>          which of the lane's queries see it
//   query4, key4, value4(place, c)    numbers 4 c to 4 c + 3 of one, zero beyond its last
//   params.key_fours, .value_fours    fours of numbers in a key and in a value
//   params.scale                      of the products
//
// With SERIAL, where loads are dear, as on software adapters, whose lanes load one after the other,
// lanes of a subgroup that want the same numbers load a part each and show it to the others.

// Queries a workgroup and keys a tile, multiples of 4; KEYS * QUERIES / 16 lanes or a multiple.
override QUERIES: u32 = 4u;
override KEYS: u32 = 64u;
override WG: u32 = 64u;
// Lanes that share the dims of a value, WG * 4 / QUERIES or a part, and fours of dims of each.
override VALUE_LANES: u32 = 16u;
override VALUE_FOURS: u32 = 1u;
//#if SERIAL
// Lanes of a subgroup, which are consecutive.
override LANES: u32 = 8u;
//#endif
// Keys whose values are weighed together. A power of two.
override KEYS_AT_ONCE: u32 = 1u;
const Q4 = QUERIES / 4u;
const K4 = KEYS / 4u;
const DIM_PARTS = WG / (Q4 * K4);
const KEY_PARTS = WG / (Q4 * VALUE_LANES);
//#if SERIAL
// A subgroup is TEAMS teams of TEAM lanes. Those of a team have the same keys and parts of values; those
// of the same place in their teams have the same queries.
const TEAM = min(Q4, LANES);
const TEAMS = LANES / TEAM;
// Of four queries, of four keys and of all fours of values of KEYS_AT_ONCE keys, how many a lane loads.
const QUERY_LOADS = (3u + TEAMS) / TEAMS;
const KEY_LOADS = (3u + TEAM) / TEAM;
const VALUES = KEYS_AT_ONCE * VALUE_FOURS;
const VALUE_LOADS = (VALUES - 1u + TEAM) / TEAM;
//#endif
// Below every score. WGSL has no infinity.
const LOWEST = -3e38;
//#include step
//#include add_dot

// Of products on the way to scores, or of sums over keys.
var<workgroup> partial: array<vec4<f32>, 4u * WG>;
// [K4][Q4]: the largest score of four keys, for four queries each.
var<workgroup> tops: array<vec4<f32>, K4 * Q4>;
// [KEYS][Q4]: weights, for four queries each.
var<workgroup> weights: array<vec4<f32>, KEYS * Q4>;
var<workgroup> places: array<u32, KEYS>;

// What a lane knows of its four queries after some keys.
struct Softmax {
    top: vec4<f32>,    // largest score so far, the same in all lanes of these queries
    total: vec4<f32>,  // sum of the weights of the keys this lane scored
    sum: array<vec4<f32>, 4u * VALUE_FOURS>,  // weighted sums: of each four of dims, a query each
}

// This invocation's place in the workgroup. Software adapters make the builtin by divisions, and again
// wherever it is used after a barrier.
fn lane_of(ids: Ids) -> u32 {
//#if SERIAL
    return ids.subgroup * LANES + ids.sublane;
//#else
    return ids.lane;
//#endif
}

// What a lane gives, which comes of divisions. Compilers of software adapters make such results again
// wherever they are used after a barrier, in the innermost loops too, unless they come from memory. All
// lanes must call.
fn kept(lane: u32, value: vec4<u32>) -> vec4<u32> {
//#if SERIAL
    workgroupBarrier();
    partial[lane] = bitcast<vec4<f32>>(value);
    workgroupBarrier();
    return bitcast<vec4<u32>>(partial[lane]);
//#else
    return value;
//#endif
}

// Adds the products of four queries with one key.
fn add_products(sum: vec4<f32>, q: array<vec4<f32>, 4>, k: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(
        add_dot(sum.x, q[0], k), add_dot(sum.y, q[1], k),
        add_dot(sum.z, q[2], k), add_dot(sum.w, q[3], k),
    );
}

// Before the first key.
fn softmax_start(s: ptr<function, Softmax>) {
    (*s).top = vec4<f32>(LOWEST);
    (*s).total = vec4<f32>();
    for (var i = 0u; i < 4u * VALUE_FOURS; i++) {
        (*s).sum[i] = vec4<f32>();
    }
}

// Goes through keys first .. end of a list. All lanes must call.
fn softmax_over(
    ids: Ids, queries: vec4<u32>, keys: Keys, see: Seen, first: u32, end: u32,
    s: ptr<function, Softmax>,
) {
    let lane = lane_of(ids);
    let q4 = lane % Q4;
    let k4 = lane / Q4 % K4;
    let dim_part = lane / (Q4 * K4);
    let key_part = lane / (Q4 * VALUE_LANES);
//#if SERIAL
    let mate = ids.sublane % TEAM;
    let team = ids.sublane / TEAM;
//#endif
    for (var tile = first; tile < end; tile += KEYS) {
        let j = tile + 4u * k4;
        var place: array<u32, 4>;
        var score: array<vec4<f32>, 4>;
        for (var k = 0u; k < 4u; k++) {
            place[k] = place_of(keys, min(j + k, end - 1u));
            score[k] = vec4<f32>();
        }
        for (var c = dim_part; c < params.key_fours; c += DIM_PARTS * step.one) {
//#if SERIAL
            // Query or key n of the four is in register n / TEAMS or n / TEAM of one of the lanes.
            var my_q: array<vec4<f32>, QUERY_LOADS>;
            for (var i = 0u; i < QUERY_LOADS; i++) {
                my_q[i] = query4(queries[(i * TEAMS + team) % 4u], c);
            }
            var my_k: array<vec4<f32>, KEY_LOADS>;
            for (var i = 0u; i < KEY_LOADS; i++) {
                my_k[i] = key4(place[(i * TEAM + mate) % 4u], c);
            }
            var q: array<vec4<f32>, 4>;
            for (var i = 0u; i < 4u; i++) {
                q[i] = subgroupShuffle(my_q[i / TEAMS], i % TEAMS * TEAM + mate);
            }
            for (var k = 0u; k < 4u; k++) {
                let key = subgroupShuffle(my_k[k / TEAM], team * TEAM + k % TEAM);
                score[k] = add_products(score[k], q, key);
            }
//#else
            let q = array<vec4<f32>, 4>(
                query4(queries.x, c), query4(queries.y, c), query4(queries.z, c), query4(queries.w, c),
            );
            for (var k = 0u; k < 4u; k++) {
                score[k] = add_products(score[k], q, key4(place[k], c));
            }
//#endif
        }
        if DIM_PARTS > 1u {
            for (var k = 0u; k < 4u; k++) {
                partial[k * WG + lane] = score[k];
            }
            workgroupBarrier();
            for (var k = 0u; k < 4u; k++) {
                score[k] = vec4<f32>();
                for (var part = 0u; part < DIM_PARTS; part += step.one) {
                    score[k] += partial[k * WG + part * Q4 * K4 + lane % (Q4 * K4)];
                }
            }
        }

        var top = vec4<f32>(LOWEST);
        for (var k = 0u; k < 4u; k++) {
            let real = seen(see, j + k) & vec4<bool>(j + k < end);
            score[k] = select(vec4<f32>(LOWEST), score[k] * params.scale, real);
            top = max(top, score[k]);
        }
        if dim_part == 0u {
            tops[k4 * Q4 + q4] = top;
        }
        workgroupBarrier();

        var next = (*s).top;
        for (var k = 0u; k < K4; k += step.one) {
            next = max(next, tops[k * Q4 + q4]);
        }
        let shrink = exp((*s).top - next);
        (*s).top = next;
        (*s).total *= shrink;
        for (var k = 0u; k < 4u; k++) {
            // A query that sees no key yet has LOWEST for its largest score.
            let w = select(vec4<f32>(), exp(score[k] - next), score[k] > vec4<f32>(LOWEST));
            (*s).total += w;
            if dim_part == 0u {
                weights[(4u * k4 + k) * Q4 + q4] = w;
                if q4 == 0u {
                    places[4u * k4 + k] = place[k];
                }
            }
        }
        for (var t = 0u; t < VALUE_FOURS; t++) {
            for (var i = 0u; i < 4u; i++) {
                (*s).sum[4u * t + i] *= shrink[i];
            }
        }
        workgroupBarrier();

        let here = min(KEYS, end - tile);
        // Keys beyond the last have no weight.
        for (var k0 = key_part * KEYS_AT_ONCE; k0 < here; k0 += KEY_PARTS * KEYS_AT_ONCE * step.one) {
//#if SERIAL
            var my_v: array<vec4<f32>, VALUE_LOADS>;
            for (var i = 0u; i < VALUE_LOADS; i++) {
                let n = (i * TEAM + mate) % VALUES;
                let four = min(value_four(lane, n % VALUE_FOURS), params.value_fours - 1u);
                my_v[i] = value4(places[k0 + n / VALUE_FOURS], four);
            }
//#endif
//#each K KEYS_AT_ONCE
            let w_$K = weights[(k0 + $Ku) * Q4 + q4];
            for (var t = 0u; t < VALUE_FOURS; t++) {
//#if SERIAL
                let n = $Ku * VALUE_FOURS + t;
                let v = subgroupShuffle(my_v[n / TEAM], team * TEAM + n % TEAM);
//#else
                let v = value4(places[k0 + $Ku], min(value_four(lane, t), params.value_fours - 1u));
//#endif
                for (var i = 0u; i < 4u; i++) {
                    (*s).sum[4u * t + i] = fma(vec4<f32>(w_$K[i]), v, (*s).sum[4u * t + i]);
                }
            }
//#end
        }
    }
}

// Sums the weights up: `total` of all of a query's keys in every lane. All lanes must call.
fn softmax_end(lane: u32, s: ptr<function, Softmax>) {
    workgroupBarrier();
    if lane < Q4 * K4 {
        tops[lane] = (*s).total;
    }
    workgroupBarrier();
    var total = vec4<f32>();
    for (var k = 0u; k < K4; k += step.one) {
        total += tops[k * Q4 + lane % Q4];
    }
    (*s).total = total;
}

// Hands round fours `t` of the dims, for softmax_sum. All lanes must call.
fn softmax_share(lane: u32, t: u32, s: ptr<function, Softmax>) {
    for (var i = 0u; i < 4u; i++) {
        partial[i * WG + lane] = (*s).sum[4u * t + i];
    }
    if KEY_PARTS > 1u {
        workgroupBarrier();
    }
}

// The weighted sum over all keys of the four that was handed round, for a lane's query i. Of the
// lanes whose writes_values is true.
fn softmax_sum(lane: u32, i: u32) -> vec4<f32> {
    var sum = vec4<f32>();
    for (var part = 0u; part < KEY_PARTS; part += step.one) {
        sum += partial[i * WG + part * Q4 * VALUE_LANES + lane];
    }
    return sum;
}

fn writes_values(lane: u32) -> bool {
    return lane < Q4 * VALUE_LANES;
}

// Which four of dims sum[4 t] and the next three are of.
fn value_four(lane: u32, t: u32) -> u32 {
    return lane / Q4 % VALUE_LANES + t * VALUE_LANES;
}

// The first of a lane's four queries.
fn lane_queries(lane: u32) -> u32 {
    return 4u * (lane % Q4);
}
