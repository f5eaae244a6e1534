// x[t, n, :] = the embedding of row t, the same in every stream n. A workgroup writes WG Octs of
// columns of every stream of one row.
//
// rows    [T] Row
// table   [vocab part, cols] in any format, see lib/weight.wgsl
// x       [T, streams * cols] f32
// marks   [4, cols] f32, rows `mark_stride` apart: START, PAD, NEWLINE, END
// images  [T, cols] f32, of which Row.image names a row

// Small, so that the one row of a decode step still spreads over the device.
override WG: u32 = 64u;
//#include step

struct Params {
    cols: u32,
    streams: u32,
    pitch: u32,        // vec4s from one row of the table to the next
    plane1: u32,       // see lib/weight.wgsl
    plane2: u32,
    plane3: u32,
    first: u32,        // the first token id of this part of the table
    count: u32,        // token ids in it
    mark_stride: u32,
    leads: u32,        // 1 for the first part, which also writes the rows that are not text
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read> table: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> x: array<f32>;
//#include weight W=table
//#if VISION
@group(0) @binding(5) var<storage, read> marks: array<f32>;
@group(0) @binding(6) var<storage, read> images: array<f32>;

fn mark_or_image(row: Row, c: u32) -> f32 {
    if row.kind == 3u {
        return images[row.image * params.cols + c];
    }
    // Kinds 1, 2, 4 and 5 are START, PAD, NEWLINE and END.
    let mark = row.kind - select(1u, 2u, row.kind > 3u);
    return marks[min(mark, 3u) * params.mark_stride + c];
}
//#endif

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let octs = (params.cols + 7u) / 8u;
    let blocks = (octs + WG - 1u) / WG;
    let t = group_index(ids) / blocks;
    let o = group_index(ids) % blocks * WG + ids.lane;
    if t >= step.rows || o >= octs {
        return;
    }
    let row = rows[t];
    let end = min(params.cols - o * 8u, 8u);
    var v: array<f32, 8>;
//#if VISION
    if row.kind != 0u {
        if params.leads == 0u {
            return;
        }
        for (var i = 0u; i < end; i++) {
            v[i] = mark_or_image(row, o * 8u + i);
        }
    } else {
//#endif
    // Wraps around to a large number below the part.
    let in_part = row.token - params.first;
    if in_part >= params.count {
        return;
    }
    let d = table_oct(in_part * params.pitch, o);
    v = array(d.lo.x, d.lo.y, d.lo.z, d.lo.w, d.hi.x, d.hi.y, d.hi.z, d.hi.w);
//#if VISION
    }
//#endif
    for (var n = 0u; n < params.streams; n++) {
        let at = (t * params.streams + n) * params.cols + o * 8u;
        for (var i = 0u; i < end; i++) {
            x[at + i] = v[i];
        }
    }
}
