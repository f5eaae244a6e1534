// What lib/flash.wgsl does, with four queries to each lane of one subgroup, which needs no barriers: for
// software adapters. All lanes go along the same keys: each loads a part of one and shows it to the
// others. A lane has all of its queries and sums in registers, or rather in its processor's nearest cache:
// dims are few, and known.
// The including file says where everything is, as for lib/flash.wgsl.

// Four times the lanes.
override QUERIES: u32 = 32u;
override WG: u32 = 8u;
// What parts of the keys are multiples of.
override KEYS: u32 = 8u;
// Fours of dims of a key and of a value.
override KEY_FOURS: u32 = 16u;
override VALUE_FOURS: u32 = 16u;
// How many fours of a key and of a value a lane loads.
const KEY_LOADS = (KEY_FOURS + WG - 1u) / WG;
const VALUE_LOADS = (VALUE_FOURS + WG - 1u) / WG;
const Q4 = WG;
// Below every score. WGSL has no infinity.
const LOWEST = -3e38;
// How much a score may be above those before it until they are weighed anew, which takes longer than a
// key does. Weights are up to exp(SLACK) then, and their ratios the same.
const SLACK = 8.0;
//#include step
//#include add_dot
const LANE_QUERIES = 4u;
//#include flash_alone

// Goes through keys first .. end of a list.
fn softmax_over(
    ids: Ids, queries: vec4<u32>, keys: Keys, see: Seen, first: u32, end: u32,
    s: ptr<function, Softmax>,
) {
    // In a loop that compilers do not unroll, since each has many loads.
    var q: array<vec4<f32>, 4u * KEY_FOURS>;
    for (var c = 0u; c < KEY_FOURS; c += step.one) {
//#each I 4
        q[4u * c + $Iu] = query4(queries[$I], c) * params.scale;
//#end
    }
    for (var j = first; j < end; j++) {
        let place = place_of(keys, j);
        var my_key: array<vec4<f32>, KEY_LOADS>;
        for (var i = 0u; i < KEY_LOADS; i++) {
            my_key[i] = key4(place, min(i * WG + ids.sublane, KEY_FOURS - 1u));
        }
        var my_value: array<vec4<f32>, VALUE_LOADS>;
        for (var i = 0u; i < VALUE_LOADS; i++) {
            my_value[i] = value4(place, min(i * WG + ids.sublane, VALUE_FOURS - 1u));
        }
        var score = vec4<f32>();
//#each C KEY_FOURS
        let key_$C = subgroupShuffle(my_key[$Cu / WG], $Cu % WG);
//#each I 4
        score[$I] = add_dot(score[$I], q[4u * $Cu + $Iu], key_$C);
//#end
//#end
        let real = seen(see, j);
        let above = real & (score > (*s).top + SLACK);
        if any(above) {
            let top = select((*s).top, score, above);
            let shrink = exp((*s).top - top);
            (*s).top = top;
            (*s).total *= shrink;
//#each T VALUE_FOURS
//#each I 4
            (*s).sum[4u * $Tu + $Iu] *= shrink[$I];
//#end
//#end
        }
        // A query that sees no key yet has LOWEST for its top.
        let weight = select(vec4<f32>(), exp(score - (*s).top), real);
        (*s).total += weight;
//#each T VALUE_FOURS
        let value_$T = subgroupShuffle(my_value[$Tu / WG], $Tu % WG);
//#each I 4
        (*s).sum[4u * $Tu + $Iu] = fma(vec4(weight[$I]), value_$T, (*s).sum[4u * $Tu + $Iu]);
//#end
//#end
    }
}

fn softmax_end(lane: u32, s: ptr<function, Softmax>) {
}

fn value_four(lane: u32, t: u32) -> u32 {
    return t;
}

fn lane_queries(lane: u32) -> u32 {
    return 4u * lane;
}
