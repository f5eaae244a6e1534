// What lib/flash.wgsl does, for up to four queries by one subgroup, which needs no barriers: for software
// adapters, where lanes run one subgroup after the other and a barrier saves and restores all of them.
// A lane scores a key of its own, then weighs dims of its own of all keys. Numbers of the queries,
// which all lanes want, are loaded by one each and shown to the others.
// The including file says where everything is, as for lib/flash.wgsl.

// Queries, up to 4, and keys a tile, which are the lanes.
override QUERIES: u32 = 4u;
override KEYS: u32 = 8u;
override WG: u32 = 8u;
// Fours of dims of a value that a lane weighs.
override VALUE_FOURS: u32 = 1u;
const Q4 = 1u;
// Below every score. WGSL has no infinity.
const LOWEST = -3e38;
//#include step
//#include add_dot
const LANE_QUERIES = QUERIES;
//#include flash_alone

// Goes through keys first .. end of a list. All lanes must call.
fn softmax_over(
    ids: Ids, queries: vec4<u32>, keys: Keys, see: Seen, first: u32, end: u32,
    s: ptr<function, Softmax>,
) {
    for (var tile = first; tile < end; tile += KEYS) {
        let j = tile + ids.sublane;
        let place = place_of(keys, min(j, end - 1u));
        var score = vec4<f32>();
        for (var block = 0u; block < params.key_fours; block += KEYS) {
            // Beyond the last four of dims it is read again, and multiplied by zero.
            let last = params.key_fours - 1u;
            let four = block + ids.sublane;
//#each I QUERIES
            let q_$I = select(vec4<f32>(), query4(queries[$I], min(four, last)), four <= last);
//#end
//#each L KEYS
            let key_$L = key4(place, min(block + $Lu, last));
//#each I QUERIES
            score[$I] = add_dot(score[$I], subgroupShuffle(q_$I, $Lu), key_$L);
//#end
//#end
        }

        let real = seen(see, j) & vec4<bool>(j < end);
        score = select(vec4<f32>(LOWEST), score * params.scale, real);
        var weight = vec4<f32>();
//#each I QUERIES
        let top_$I = max((*s).top[$I], subgroupMax(score[$I]));
        let shrink_$I = exp((*s).top[$I] - top_$I);
        // A query that sees no key yet has LOWEST for its largest score.
        weight[$I] = select(0.0, exp(score[$I] - top_$I), real[$I]);
        (*s).top[$I] = top_$I;
        (*s).total[$I] = (*s).total[$I] * shrink_$I + weight[$I];
        for (var t = 0u; t < VALUE_FOURS; t++) {
            (*s).sum[QUERIES * t + $I] *= shrink_$I;
        }
//#end

//#each L KEYS
        let place_$L = subgroupShuffle(place, $Lu);
//#each I QUERIES
        let weight_$L_$I = vec4(subgroupShuffle(weight[$I], $Lu));
//#end
        for (var t = 0u; t < VALUE_FOURS; t++) {
            let v = value4(place_$L, min(value_four(ids.sublane, t), params.value_fours - 1u));
//#each I QUERIES
            let sum_$I = (*s).sum[QUERIES * t + $I];
            (*s).sum[QUERIES * t + $I] = fma(weight_$L_$I, v, sum_$I);
//#end
        }
//#end
    }
}

fn softmax_end(lane: u32, s: ptr<function, Softmax>) {
    for (var i = 0u; i < QUERIES; i++) {
        (*s).total[i] = subgroupAdd((*s).total[i]);
    }
}

fn value_four(lane: u32, t: u32) -> u32 {
    return lane + t * WG;
}

fn lane_queries(lane: u32) -> u32 {
    return 0u;
}
