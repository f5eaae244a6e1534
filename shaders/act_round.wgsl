// Rounds groups of columns to a narrow float format under a power-of-two scale, with ROTATE after a
// Walsh-Hadamard transform of the head. One workgroup a span of columns of a head. Rounding works on
// the bits of f32 as integers, so that every device rounds alike. See src/ops/act_round.rs.
//
// x, y  [rows, heads * dims] f32, of whose heads the first `cols` columns count; with IN_PLACE x is
//       also y; with CLOSED its rows are [slots * entries], of which token rows close some
// rows  [T] Row (with CLOSED)

override WG: u32 = 64u;
// The most columns a workgroup works on; SPAN and MOST_ROTATED in src/ops/act_round.rs.
const SPAN = 512u;
//#include step

struct Params {
    heads: u32,
    dims: u32,
    cols: u32,
    span: u32,   // columns a workgroup: whole groups
    group: u32,  // columns that share a scale
    entries: u32,
    ratio: u32,
    rows_per_row: u32,  // matrix rows a token row, 0 when the matrix has one an output row
    rows_per_out: u32,
    norm: f32,      // dims^-1/2
    most: u32,      // bits of the format's largest number as f32
    mantissa: u32,  // bits of its mantissa
    depth: u32,     // exponent of its smallest normal number, negated
    floor: u32,     // bits of the least maximum of a group
}
@group(0) @binding(0) var<uniform> params: Params;
//#if IN_PLACE
@group(0) @binding(2) var<storage, read_write> x: array<u32>;
//#if CLOSED
@group(0) @binding(3) var<storage, read> rows: array<Row>;
//#endif
//#else
@group(0) @binding(2) var<storage, read> x: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;
//#endif

//#if ROTATE
var<workgroup> head: array<f32, SPAN>;
//#endif
// Bits of each group's largest magnitude.
var<workgroup> tops: array<atomic<u32>, SPAN>;

// As Format::round of src/ops/act_round.rs.
fn round_bits(v: u32, scale: u32) -> u32 {
    let sign = v & 0x80000000u;
    let size = v ^ sign;
    let exponent = max(size >> 23u, 1u);
    let full = size - ((exponent - 1u) << 23u);
    let smallest = scale - min(scale, params.depth);
    let dropped = 23u - params.mantissa + max(smallest, exponent) - exponent;
    if exponent == 255u {
        return v;
    }
    if dropped > 24u {
        return sign;
    }
    let even = (full >> dropped) & 1u;
    let kept = ((full + (1u << (dropped - 1u)) - 1u + even) >> dropped) << dropped;
    return sign | select(kept + ((exponent - 1u) << 23u), 0u, kept == 0u);
}

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let spans = (params.cols + params.span - 1u) / params.span;
    let unit = group_index(ids) / spans;
    let first = group_index(ids) % spans * params.span;
    let count = min(params.span, params.cols - first);
    var row = unit / params.heads;
    if row >= params.rows_per_row * step.rows + params.rows_per_out * step.outs {
        return;
    }
//#if CLOSED
    let end = rows[row].position + 1u;
    if end % params.ratio != 0u {
        return;
    }
    row = rows[row].slot * params.entries + (end / params.ratio - 1u) % params.entries;
//#endif
    let base = (row * params.heads + unit % params.heads) * params.dims + first;
    for (var i = ids.lane; i * params.group < count; i += WG) {
        atomicStore(&tops[i], 0u);
    }
//#if ROTATE
    for (var i = ids.lane; i < count; i += WG) {
        head[i] = bitcast<f32>(x[base + i]);
    }
    for (var half = 1u; half < count; half *= 2u) {
        workgroupBarrier();
        for (var i = ids.lane; i < count / 2u; i += WG) {
            let at = i / half * 2u * half + i % half;
            let a = head[at];
            let b = head[at + half];
            head[at] = a + b;
            head[at + half] = a - b;
        }
    }
//#endif
    workgroupBarrier();
    for (var i = ids.lane; i < count; i += WG) {
//#if ROTATE
        let v = head[i] * params.norm;
        head[i] = v;
        atomicMax(&tops[i / params.group], bitcast<u32>(v) & 0x7fffffffu);
//#else
        atomicMax(&tops[i / params.group], x[base + i] & 0x7fffffffu);
//#endif
    }
    workgroupBarrier();
    for (var i = ids.lane; i < count; i += WG) {
        let top = max(atomicLoad(&tops[i / params.group]), params.floor);
        // ceil(log2(top / most)), as an exponent's bits.
        let scale = (top + 0x3f800000u + 0x7fffffu - params.most) >> 23u;
//#if ROTATE
        let v = round_bits(bitcast<u32>(head[i]), scale);
//#else
        let v = round_bits(x[base + i], scale);
//#endif
//#if IN_PLACE
        x[base + i] = v;
//#else
        y[base + i] = v;
//#endif
    }
}
