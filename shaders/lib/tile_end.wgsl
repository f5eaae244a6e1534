    // The end of matmul_tiles and its twin, after lib/tile_begin.wgsl: results from an invocation's sums.
    // A row at a time, chosen by selection: the stores and what goes with them, once for each, would
    // be most of the kernel.
    for (var i = 0u; i < TM; i += step.one) {
        let m = tm + i * (BM / TM);
        if m >= b.rows {
            break;
        }
        let row = y_row(b.row0 + m);
//#each J TN
        let n_$J = block + tn + $Ju * WIDTH;
        if n_$J < b.outputs {
            var sum = acc_0_$J;
//#if GATED
            var up = acc3_0_$J;
//#endif
//#each I TM
            sum = select(sum, acc_$I_$J, i == $Iu);
//#if GATED
            up = select(up, acc3_$I_$J, i == $Iu);
//#endif
//#end
//#if GATED
            sum = gated(sum, up, weights[row]);
//#endif
            put(row, b.y_at + n_$J, sum);
        }
//#end
    }
