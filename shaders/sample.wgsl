// A token for each output row: the best, or a draw from what top_k, top_p and min_p leave. One
// workgroup a row. See src/ops/sample.rs.
//
// Filters are thresholds on order-preserving keys of the logits, found digit by digit, so that
// nothing is sorted.
//
// logits  [O, vocab] f32
// outs    [O] Out
// tokens  [O] u32

// As wide as may be: there are few rows, of 100,000 logits and more.
override WG: u32 = 256u;
// Bits of a key found in one pass over the logits: a sum for each value of the digit in each lane
// takes 8 KiB.
const DIGIT_BITS = 3u;
const DIGITS = 8u;
//#include reduce
//#include scan
//#include order

struct Params {
    vocab: u32,
}
@group(0) @binding(0) var<uniform> params: Params;

struct Out {
    row: u32,          // not used here
    top_k: u32,        // 0: off
    temperature: f32,  // 0: greedy
    top_p: f32,        // 1: off
    min_p: f32,        // 0: off
    seed_low: u32,
    seed_high: u32,
    counter: u32,
}
@group(0) @binding(2) var<storage, read> logits: array<f32>;
@group(0) @binding(3) var<storage, read> outs: array<Out>;
@group(0) @binding(4) var<storage, read_write> tokens: array<u32>;

// [DIGITS][WG] sums; later a mass a lane.
var<workgroup> bins: array<f32, DIGITS * WG>;
// [DIGITS][WG / DIGITS]: partial sums of the above.
var<workgroup> part: array<f32, WG>;

// A threshold: what lies above it, and its own key.
struct Cut {
    key: u32,
    above: f32,
}
var<workgroup> cut: Cut;

struct Best {
    key: u32,
    index: u32,
}
var<workgroup> best_part: array<Best, WG>;

// Who draws: the lane, and how much of its tokens' mass to walk past.
struct Drawer {
    lane: u32,
    goal: f32,
}
var<workgroup> drawer: Drawer;

fn uniform_float(out: Out) -> f32 {
    var v = vec4<u32>(out.seed_low, out.seed_high, out.counter, 0u);
    v = v * 1664525u + 1013904223u;
    for (var round = 0u; round < 2u; round++) {
        v.x += v.y * v.w;
        v.y += v.z * v.x;
        v.z += v.x * v.y;
        v.w += v.y * v.z;
        if round == 0u {
            v ^= v >> vec4<u32>(16u);
        }
    }
    return f32(v.x >> 8u) / 16777216.0;
}

// The logit of that key; inverse of order_key.
fn logit_of(key: u32) -> f32 {
    return bitcast<f32>(key ^ select(0xffffffffu, 0x80000000u, key >= 0x80000000u));
}

// The largest logit, the lowest index among equals.
fn best_of(ids: Ids, base: u32) -> Best {
    var best = Best(0u, 0u);
    for (var i = ids.lane; i < params.vocab; i += WG) {
        let key = order_key(logits[base + i]);
        if key > best.key {
            best = Best(key, i);
        }
    }
    best_part[ids.lane] = best;
    for (var half = WG / 2u; half > 0u; half /= 2u * step.one) {
        workgroupBarrier();
        if ids.lane < half {
            let other = best_part[ids.lane + half];
            let mine = best_part[ids.lane];
            if other.key > mine.key || (other.key == mine.key && other.index < mine.index) {
                best_part[ids.lane] = other;
            }
        }
    }
    workgroupBarrier();
    return best_part[0];
}

// Mass relative to that of the best token.
fn mass_of(x: f32, top: f32, temperature: f32) -> f32 {
    return exp((x - top) / temperature);
}

// The largest key such that the tokens from it up, of those from key `lowest` up, hold at least
// `goal`; each token counts 1, or with `by_mass` its mass. A key that holds nothing is never chosen.
fn find_cut(
    ids: Ids,
    base: u32,
    lowest: u32,
    goal: f32,
    by_mass: bool,
    top: f32,
    temperature: f32,
) -> Cut {
    var found = Cut(0u, 0.0);
    for (var shift = 33u; shift > 0u; ) {
        shift -= DIGIT_BITS * step.one;
        for (var d = 0u; d < DIGITS; d += step.one) {
            bins[d * WG + ids.lane] = 0.0;
        }
        for (var i = ids.lane; i < params.vocab; i += WG) {
            let x = logits[base + i];
            let key = order_key(x);
            let digits = key >> shift;
            if key >= lowest && (digits >> DIGIT_BITS) == found.key {
                var w = 1.0;
                if by_mass {
                    w = mass_of(x, top, temperature);
                }
                bins[(digits & (DIGITS - 1u)) * WG + ids.lane] += w;
            }
        }
        workgroupBarrier();
        // Lane l adds up DIGITS neighbouring sums of digit l / (WG / DIGITS).
        var sum = 0.0;
        for (var i = 0u; i < DIGITS; i += step.one) {
            sum += bins[ids.lane * DIGITS + i];
        }
        part[ids.lane] = sum;
        workgroupBarrier();
        if ids.lane == 0u {
            var above = found.above;
            // If rounding leaves the goal out of reach, the lowest digit that holds anything.
            var chosen = Cut(0u, above);
            for (var d = DIGITS; d > 0u; ) {
                d -= step.one;
                var here = 0.0;
                for (var i = 0u; i < WG / DIGITS; i += step.one) {
                    here += part[d * (WG / DIGITS) + i];
                }
                if here > 0.0 {
                    chosen = Cut(d, above);
                    above += here;
                    if above >= goal {
                        break;
                    }
                }
            }
            cut = Cut((found.key << DIGIT_BITS) | chosen.key, chosen.above);
        }
        found = workgroupUniformLoad(&cut);
    }
    return found;
}

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let at = group_index(ids);
    if at >= step.outs {
        return;
    }
    let out = outs[at];
    let base = at * params.vocab;
    let best = best_of(ids, base);
    if out.temperature <= 0.0 {
        if ids.lane == 0u {
            tokens[at] = best.index;
        }
        return;
    }
    let top = logit_of(best.key);
    let temperature = out.temperature;

    // Kept are all tokens above `key` and the first `ties` of those at it: what top_k leaves, then
    // what top_p leaves of that. One loop for the two, and one for the two walks below, since a
    // compiler would otherwise put everything they call in twice.
    var key = 0u;
    var ties = params.vocab;
    for (var filter_at = 0u; filter_at < 2u; filter_at += step.one) {
        let by_mass = filter_at == 1u;
        var goal = f32(out.top_k);
        if by_mass {
            if out.top_p >= 1.0 {
                break;
            }
            goal = out.top_p * kept_before_top_p(ids, base, key, ties, top, temperature);
        } else if out.top_k == 0u || out.top_k >= params.vocab {
            continue;
        }
        let c = find_cut(ids, base, key, goal, by_mass, top, temperature);
        if by_mass {
            // Those at the cut weigh the same; their number is bounded for the sake of the
            // conversion.
            let each = mass_of(logit_of(c.key), top, temperature);
            let needed = u32(clamp(ceil((goal - c.above) / each), 1.0, f32(params.vocab)));
            ties = select(needed, min(needed, ties), c.key == key);
        } else {
            ties = out.top_k - u32(c.above);
        }
        key = c.key;
    }

    // Each lane has a run of consecutive tokens.
    let run = (params.vocab + WG - 1u) / WG;
    var start = min(ids.lane * run, params.vocab);
    let end = min(start + run, params.vocab);
    var equal = 0u;
    for (var i = start; i < end; i++) {
        equal += u32(order_key(logits[base + i]) == key);
    }
    let equal_before = scan_before(ids, equal);
    // Twice the same walk: first for the run's mass, then, in the lane that draws, for the token.
    var token = best.index;
    var goal = 3.4e38;
    for (var walk = 0u; walk < 2u; walk += step.one) {
        var seen = equal_before;
        var sum = 0.0;
        for (var i = start; i < end; i++) {
            let m = kept_mass(logits[base + i], key, ties, &seen, top, out);
            if m > 0.0 {
                token = i;
                sum += m;
                if sum > goal {
                    break;
                }
            }
        }
        if walk == 0u {
            bins[ids.lane] = sum;
            workgroupBarrier();
            if ids.lane == 0u {
                drawer = draw(uniform_float(out));
            }
            let drawn = workgroupUniformLoad(&drawer);
            goal = drawn.goal;
            if ids.lane != drawn.lane {
                start = end;
            }
        }
    }
    // Where nothing has any mass, the logits are not numbers.
    if ids.lane == min(drawer.lane, WG - 1u) {
        tokens[at] = select(token, best.index, drawer.lane == WG);
    }
}

// The mass of all tokens above `key` and of the first `ties` of those at it.
fn kept_before_top_p(
    ids: Ids,
    base: u32,
    key: u32,
    ties: u32,
    top: f32,
    temperature: f32,
) -> f32 {
    var mass = 0.0;
    var equal = 0u;
    for (var i = ids.lane; i < params.vocab; i += WG) {
        let x = logits[base + i];
        let k = order_key(x);
        if k > key {
            mass += mass_of(x, top, temperature);
        }
        equal += u32(k == key);
    }
    scan_before(ids, equal);
    let at_key = f32(min(ties, scan_total()));
    // Without top_k no token may be at the key, which then need not be that of a number.
    var mass_at_key = 0.0;
    if at_key > 0.0 {
        mass_at_key = at_key * mass_of(logit_of(key), top, temperature);
    }
    return reduce_sum(ids, mass) + mass_at_key;
}

// Which lane draws, of those whose masses are in `bins`, for a draw of `u` in [0, 1). Should
// rounding leave the goal out of reach, the last that has any mass; WG if none has.
fn draw(u: f32) -> Drawer {
    var total = 0.0;
    for (var lane = 0u; lane < WG; lane += step.one) {
        total += bins[lane];
    }
    let goal = u * total;
    var before = 0.0;
    var chosen = Drawer(WG, 0.0);
    for (var lane = 0u; lane < WG; lane += step.one) {
        if bins[lane] > 0.0 {
            chosen = Drawer(lane, goal - before);
            before += bins[lane];
            if before > goal {
                break;
            }
        }
    }
    return chosen;
}

// The mass of a token of logit x if it is kept, else 0. `seen` counts the tokens at the key.
fn kept_mass(x: f32, key: u32, ties: u32, seen: ptr<function, u32>, top: f32, out: Out) -> f32 {
    let k = order_key(x);
    var kept = k > key;
    if k == key {
        kept = *seen < ties;
        *seen += 1u;
    }
    let m = mass_of(x, top, out.temperature);
    return select(0.0, m, kept && m >= out.min_p);
}
