// Folds N residual streams into one normed row, one workgroup a row; lib/mhc.wgsl has the formula.
//
// mix, base  [rows, N], [N] f32
// scale      [1] f32

//#include mhc

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let row = group_index(ids);
    if !row_exists(row) {
        return;
    }
    var m: array<f32, N>;
    for (var i = 0u; i < N; i++) {
        m[i] = mix[row * N + i];
    }
    fold_streams(ids, row, m, streams_unit(ids, row));
}
