// x[t, n, :] = the embedding of row t, the same in every stream n. A workgroup writes WG columns of
// every stream of one row.
//
// rows    [T] Row
// table   [vocab part, cols] f32, f16 or bf16 in 32-bit words, rows `stride` elements apart
// x       [T, streams * cols] f32
// marks   [4, cols] f32, rows `mark_stride` apart: START, PAD, NEWLINE, END
// images  [T, cols] f32, of which Row.image names a row

// Small, so that the one row of a decode step still spreads over the device.
override WG: u32 = 64u;
//#include step

struct Params {
    cols: u32,
    streams: u32,
    stride: u32,
    first: u32,        // the first token id of this part of the table
    count: u32,        // token ids in it
    mark_stride: u32,
    leads: u32,        // 1 for the first part, which also writes the rows that are not text
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read> table: array<u32>;
@group(0) @binding(4) var<storage, read_write> x: array<f32>;
//#if VISION
@group(0) @binding(5) var<storage, read> marks: array<f32>;
@group(0) @binding(6) var<storage, read> images: array<f32>;

fn mark_or_image(row: Row, c: u32) -> f32 {
    switch row.kind {
        case 1u: { return marks[c]; }
        case 2u: { return marks[params.mark_stride + c]; }
        case 3u: { return images[row.image * params.cols + c]; }
        case 4u: { return marks[2u * params.mark_stride + c]; }
        default: { return marks[3u * params.mark_stride + c]; }
    }
}
//#endif

// Element i of the table.
fn table_at(i: u32) -> f32 {
//#if F16
    let pair = unpack2x16float(table[i / 2u]);
    return select(pair.x, pair.y, i % 2u == 1u);
//#else
//#if BF16
    let word = table[i / 2u];
    return bitcast<f32>(select(word << 16u, word & 0xffff0000u, i % 2u == 1u));
//#else
    return bitcast<f32>(table[i]);
//#endif
//#endif
}

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let blocks = (params.cols + WG - 1u) / WG;
    let t = group_index(ids) / blocks;
    let c = group_index(ids) % blocks * WG + ids.lane;
    if t >= step.rows || c >= params.cols {
        return;
    }
    let row = rows[t];
    var v = 0.0;
//#if VISION
    if row.kind != 0u {
        if params.leads == 0u {
            return;
        }
        v = mark_or_image(row, c);
    } else {
//#endif
    // Wraps around to a large number below the part.
    let in_part = row.token - params.first;
    if in_part >= params.count {
        return;
    }
    v = table_at(in_part * params.stride + c);
//#if VISION
    }
//#endif
    for (var n = 0u; n < params.streams; n++) {
        x[(t * params.streams + n) * params.cols + c] = v;
    }
}
