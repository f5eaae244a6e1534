    // The beginning of matmul_tiles and its twin: what a workgroup makes, where an invocation is in it, and its
    // sums.
    let b = block_of(ids.group);
    if b.outputs == 0u {
        return;
    }
    let block = ids.group.x * BN;
    let tm = ids.lane / WIDTH;
    let tn = ids.lane % WIDTH;

    // Names of their own: where a compiler does not unroll a loop, it chooses elements of an array by
    // comparisons, each time.
//#each I TM
//#each J TN
    var acc_$I_$J = 0.0;
//#if GATED
    var acc3_$I_$J = 0.0;
//#endif
//#end
//#end
