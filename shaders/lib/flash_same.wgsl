// Attention of up to QUERIES queries that see the same keys, as the heads of a row do that share them, by
// one subgroup, which needs no barriers: for software adapters, and for more queries or dims than
// lib/flash_few.wgsl is for. ROUND keys at a time: a lane scores LANE_KEYS of them at once for all queries,
// then weighs fours of dims of its own of all of them. Loops over queries that are not unrolled have little
// to do, and would take long to compile.
// The including file says where everything is, as for lib/flash.wgsl, but `seen`, and where it goes: write_head
// and, with PARTS, marks.

// A multiple of the lanes.
override QUERIES: u32 = 16u;
override WG: u32 = 8u;
// What parts of the keys are multiples of: those that are scored at a time, LANE_KEYS for each lane.
override KEYS: u32 = 32u;
// Fours of dims of a value that a lane weighs.
override VALUE_FOURS: u32 = 16u;
const LANE_KEYS = KEYS / WG;
const QUERY_LOADS = QUERIES / WG;
const ROUND = 4u * KEYS;
// Below every score. WGSL has no infinity.
const LOWEST = -3e38;
//#include step
//#include add_dot

struct Softmax {
    top: array<f32, QUERIES>,    // largest score so far
    total: array<f32, QUERIES>,  // sum of the weights of the keys this lane scored
    sum: array<vec4<f32>, VALUE_FOURS * QUERIES>,  // of each of a lane's fours of dims, QUERIES
}

fn lane_of(ids: Ids) -> u32 {
    return ids.sublane;
}

fn value_four(lane: u32, t: u32) -> u32 {
    return lane + t * WG;
}

// Goes through keys first .. end of a list. A lane's `queries` are those that it loads, every WGth.
fn softmax_over(
    ids: Ids, queries: array<u32, QUERY_LOADS>, keys: Keys, first: u32, end: u32,
    s: ptr<function, Softmax>,
) {
    // Scores, then weights, of a round, of QUERIES for each key of a lane.
    var weights: array<f32, ROUND / WG * QUERIES>;
    for (var round = first; round < end; round += ROUND) {
        let here = min(end - round, ROUND);
        var top = (*s).top;
        for (var tile = 0u; tile < here; tile += KEYS) {
            // Beyond the last key it is scored again, and has no weight.
            var place: array<u32, LANE_KEYS>;
            for (var k = 0u; k < LANE_KEYS; k++) {
                place[k] = place_of(keys, round + min(tile + k * WG + ids.sublane, here - 1u));
            }
            var score: array<f32, QUERIES * LANE_KEYS>;
            for (var i = 0u; i < QUERIES * LANE_KEYS; i++) {
                score[i] = 0.0;
            }
            for (var c = 0u; c < params.key_fours; c += step.one) {
                var key: array<vec4<f32>, LANE_KEYS>;
                for (var k = 0u; k < LANE_KEYS; k++) {
                    key[k] = key4(place[k], c);
                }
                var mine: array<vec4<f32>, QUERY_LOADS>;
                for (var i = 0u; i < QUERY_LOADS; i++) {
                    mine[i] = query4(queries[i], c);
                }
//#each H QUERIES
                let q_$H = subgroupShuffle(mine[$Hu / WG], $Hu % WG);
                for (var k = 0u; k < LANE_KEYS; k++) {
                    let at = $Hu * LANE_KEYS + k;
                    score[at] = add_dot(score[at], q_$H, key[k]);
                }
//#end
            }
            for (var k = 0u; k < LANE_KEYS; k += step.one) {
                let real = tile + k * WG + ids.sublane < here;
                let to = (tile / WG + k) * QUERIES;
                for (var h = 0u; h < QUERIES; h += step.one) {
                    let of_key = select(LOWEST, score[h * LANE_KEYS + k] * params.scale, real);
                    top[h] = max(top[h], of_key);
                    weights[to + h] = of_key;
                }
            }
        }

        var shrink: array<f32, QUERIES>;
        for (var h = 0u; h < QUERIES; h += step.one) {
            top[h] = subgroupMax(top[h]);
            shrink[h] = exp((*s).top[h] - top[h]);
            (*s).top[h] = top[h];
            (*s).total[h] *= shrink[h];
        }
        let lane_keys = (here + WG - 1u) / WG;
        for (var k = 0u; k < lane_keys; k += step.one) {
            for (var h = 0u; h < QUERIES; h += step.one) {
                let weight = exp(weights[k * QUERIES + h] - top[h]);
                (*s).total[h] += weight;
                weights[k * QUERIES + h] = weight;
            }
        }

        for (var t = 0u; t < VALUE_FOURS; t += step.one) {
            let c = min(value_four(ids.sublane, t), params.value_fours - 1u);
            var sum: array<vec4<f32>, QUERIES>;
            for (var h = 0u; h < QUERIES; h += step.one) {
                sum[h] = (*s).sum[t * QUERIES + h] * shrink[h];
            }
            for (var k = 0u; k < lane_keys; k += step.one) {
                let place = place_of(keys, round + min(k * WG + ids.sublane, here - 1u));
//#each L WG
                let value_$L = value4(subgroupShuffle(place, $Lu), c);
//#end
                // A query at a time, whose sum stays in registers.
//#each H QUERIES
                let weight_$H = weights[k * QUERIES + $Hu];
                var sum_$H = sum[$H];
//#each L WG
                sum_$H = fma(vec4(subgroupShuffle(weight_$H, $Lu)), value_$L, sum_$H);
//#end
                sum[$H] = sum_$H;
//#end
            }
            for (var h = 0u; h < QUERIES; h += step.one) {
                (*s).sum[t * QUERIES + h] = sum[h];
            }
        }
    }
}

fn softmax_end(s: ptr<function, Softmax>) {
    for (var h = 0u; h < QUERIES; h += step.one) {
        (*s).total[h] = subgroupAdd((*s).total[h]);
    }
}

// Writes `heads` heads of a row, from head0 on: this lane's dims of them, and of a part its marks.
fn softmax_write(
    row: u32, to: u32, head0: u32, heads: u32, lane: u32, s: ptr<function, Softmax>,
) {
    for (var h = 0u; h < heads; h += step.one) {
        let head = head0 + h;
        for (var t = 0u; t < VALUE_FOURS; t += step.one) {
            let c = value_four(lane, t);
            if c < params.value_fours {
                write_head(row, to, head, c, (*s).sum[t * QUERIES + h], (*s).total[h]);
            }
        }
//#if PARTS
        if lane == 0u {
            marks[2u * to * params.heads + head] = (*s).top[h];
            marks[(2u * to + 1u) * params.heads + head] = (*s).total[h];
        }
//#endif
    }
}
