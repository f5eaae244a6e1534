// Takes a row's rotation out of the last `rope` of its heads' `dim` dimensions. The including file has
// params.dim and params.rope, and table: [T, rope] f32, cosines and then sines.

// Dimensions `c` and `c + 1`, `c` being even, of a head of `row`. Beyond the last there is nothing to turn.
fn turned_back(row: u32, c: u32, v: vec2<f32>) -> vec2<f32> {
    let still = params.dim - params.rope;
    if c < still || c >= params.dim {
        return v;
    }
    let i = row * params.rope + (c - still) / 2u;
    let cosine = table[i];
    let sine = table[i + params.rope / 2u];
    return vec2(v.x * cosine + v.y * sine, v.y * cosine - v.x * sine);
}
