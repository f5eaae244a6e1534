// What attention by one subgroup shares, with LANE_QUERIES queries whose sums a lane has. There are no
// barriers, so nothing has to be kept or handed round.

struct Softmax {
    top: vec4<f32>,    // what the queries' scores are compared with
    total: vec4<f32>,  // sums of the weights of the keys this lane scored
    sum: array<vec4<f32>, LANE_QUERIES * VALUE_FOURS>,  // of each query, this lane's fours of dims
}

// What softmax_share handed out.
var<private> shared_sum: array<vec4<f32>, LANE_QUERIES>;

fn lane_of(ids: Ids) -> u32 {
    return ids.sublane;
}

fn kept(lane: u32, value: vec4<u32>) -> vec4<u32> {
    return value;
}

fn softmax_start(s: ptr<function, Softmax>) {
    (*s).top = vec4<f32>(LOWEST);
    (*s).total = vec4<f32>();
    for (var i = 0u; i < LANE_QUERIES * VALUE_FOURS; i++) {
        (*s).sum[i] = vec4<f32>();
    }
}

fn softmax_share(lane: u32, t: u32, s: ptr<function, Softmax>) {
    for (var i = 0u; i < LANE_QUERIES; i++) {
        shared_sum[i] = (*s).sum[LANE_QUERIES * t + i];
    }
}

fn softmax_sum(lane: u32, i: u32) -> vec4<f32> {
    return shared_sum[i];
}

fn writes_values(lane: u32) -> bool {
    return true;
}
