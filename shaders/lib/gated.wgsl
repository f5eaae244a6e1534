// The gate of products that two weights make: see lib/matmul.wgsl.
//#include matmul_params

//#if GATED
fn gated(gate: f32, up: f32, scale: f32) -> f32 {
    let g = min(gate, params.limit);
    let u = clamp(up, -params.limit, params.limit);
    return g / (1.0 + exp(-g)) * u * scale;
}
//#endif
