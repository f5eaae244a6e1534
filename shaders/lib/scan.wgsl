// Prefix sums of integers over a workgroup of WG invocations; all must call. WG is declared by the
// including file.
//#include step

var<workgroup> scan_part: array<u32, WG>;

// The sum of `value` over the lanes before this one.
fn scan_before(ids: Ids, value: u32) -> u32 {
    workgroupBarrier();
    scan_part[ids.lane] = value;
    // By step.one, lest a software adapter unroll it: compilers take longest over barriers.
    for (var reach = 1u; reach < WG; reach *= 2u * step.one) {
        workgroupBarrier();
        var below = 0u;
        if ids.lane >= reach {
            below = scan_part[ids.lane - reach];
        }
        workgroupBarrier();
        scan_part[ids.lane] += below;
    }
    workgroupBarrier();
    return scan_part[ids.lane] - value;
}

// The sum over all lanes, after scan_before.
fn scan_total() -> u32 {
    return scan_part[WG - 1u];
}
