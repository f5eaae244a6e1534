// Sum over a workgroup of WG invocations; all must call, all get the result. The order
// of additions is fixed on a given adapter. WG is a power of two declared by the including file. With
// ONE_SUBGROUP a workgroup is one, and nothing here is a barrier; otherwise both are.
//#include step

//#if ONE_SUBGROUP
fn reduce_sum(ids: Ids, value: f32) -> f32 {
    return subgroupAdd(value);
}
//#else
//#if SUBGROUPS
// No subgroup is narrower than 4.
var<workgroup> reduce_part: array<f32, WG / 4u>;

fn reduce_sum(ids: Ids, value: f32) -> f32 {
    let part = subgroupAdd(value);
    workgroupBarrier();
    if ids.sublane == 0u {
        reduce_part[ids.subgroup] = part;
    }
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < ids.subgroups; i++) {
        sum += reduce_part[i];
    }
    return sum;
}
//#else
var<workgroup> reduce_part: array<f32, WG>;

fn reduce_sum(ids: Ids, value: f32) -> f32 {
    workgroupBarrier();
    reduce_part[ids.lane] = value;
    for (var half = WG / 2u; half > 0u; half /= 2u * step.one) {
        workgroupBarrier();
        if ids.lane < half {
            reduce_part[ids.lane] += reduce_part[ids.lane + half];
        }
    }
    workgroupBarrier();
    return reduce_part[0];
}
//#endif
//#endif
