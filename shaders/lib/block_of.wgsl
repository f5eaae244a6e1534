// The rows and outputs that a workgroup of a product of many rows makes: of all outputs its own are those
// from its place in the grid on, of the rows BLOCK at most.
//#include x_row

//#if EXPERTS
//#include expert_tile
//#if GATED
@group(0) @binding(8) var<storage, read> weights: array<f32>;  // [slots]
//#endif
//#endif

struct Block {
    // The first row and how many there are from it on; with tiles, of `sorted`. None if there is nothing
    // to make.
    row0: u32,
    rows: u32,
    // The row of w that makes the first output, and the number of outputs.
    weight_row: u32,
    outputs: u32,
    // Where in a row of x the inner elements begin, and in a row of y the outputs.
    x_at: u32,
    y_at: u32,
}

fn block_of(workgroup: vec3<u32>) -> Block {
    let group = params.group + workgroup.z;
    let x_at = group * params.x_step + params.x_at;
    let y_at = group * params.y_step + params.y_at;
//#if EXPERTS
    let tile = tiles[workgroup.y + 1u + SMALL_TILES * tiles[0].expert];
    let page = pages[tile.expert];
    if page < params.first || page >= params.first + params.count {
        return Block();
    }
    return Block(tile.first, tile.count, (page - params.first) * params.n, params.n, x_at, y_at);
//#else
    let row0 = workgroup.y * BLOCK;
    let weight_row = workgroup.z * params.w_step + params.w_at;
    return Block(row0, y_rows() - row0, weight_row, params.count, x_at, y_at + params.first);
//#endif
}

// The row of y that is the `m`th of those that blocks are made of.
fn y_row(m: u32) -> u32 {
//#if EXPERTS
    return sorted[m];
//#else
    return m;
//#endif
}

// Where in x the inner elements of a block's `m`th row begin.
fn x_begin(b: Block, m: u32) -> u32 {
    return x_row(y_row(b.row0 + m)) * params.x_cols + b.x_at;
}
