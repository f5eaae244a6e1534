//#if HALF
enable f16;
//#endif
enable wgpu_cooperative_matrix;

// Matrix product for many rows (prefill) where subgroups multiply matrices: a workgroup makes a tile of BM
// rows x BN outputs, each of its waves MS x NS matrices of it. Tiles of x and w pass through workgroup
// memory in pieces of DEPTH along k, in f32 or, with flag HALF, rounded to f16; sums are in f32 always.
// Flag EIGHTS: matrices are 8 x 8, else 16 x 16. Other flags and formula: lib/matmul.wgsl. Grid: (output
// tiles, row tiles, groups).

override BM: u32 = 64u;
override BN: u32 = 64u;
override MS: u32 = 2u;
override NS: u32 = 2u;
override DEPTH: u32 = 32u;
// Lanes that a subgroup of this kernel is thought to have.
override LANES: u32 = 32u;
//#include matrices
//#include matmul
//#include gated
//#include matmul_f32
const WAVES_N: u32 = BN / (NS * SIZE);
const WAVES: u32 = BM / (MS * SIZE) * WAVES_N;
const WG: u32 = WAVES * LANES;
const OCTS: u32 = DEPTH / 8u;
// Between rows of a tile lies an Oct more, so that they fall into different banks.
const PITCH: u32 = DEPTH + 8u;

const BLOCK: u32 = BM;
//#include block_of
//#if GATED
@group(0) @binding(9) var<storage, read> w3: array<vec4<u32>>;  // as w
//#include weight W=w3
//#endif

var<workgroup> x_tile: array<Part, BM * PITCH>;
var<workgroup> w_tile: array<Part, BN * PITCH>;
// A matrix of sums for each wave.
var<workgroup> sums: array<f32, WAVES * AREA>;
//#if GATED
var<workgroup> w3_tile: array<Part, BN * PITCH>;
var<workgroup> sums3: array<f32, WAVES * AREA>;
//#endif

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    let b = block_of(ids.group);
    let block = ids.group.x * BN;

    // A driver may choose another width for subgroups. There are more of narrower ones than waves: two
    // make the same then. Fewer of wider ones make all waves in turns. With nothing to make there are none,
    // rather than a return: matrices ask for control flow that is plainly uniform.
    let turns = select(0u, max(WAVES / ids.subgroups, 1u), b.outputs > 0u);
    for (var turn = 0u; turn < turns; turn += step.one) {
        let wave = (turn * ids.subgroups + ids.subgroup) % WAVES;
        let m0 = wave / WAVES_N * MS * SIZE;
        let n0 = wave % WAVES_N * NS * SIZE;

        for (var i = ids.lane; i < WAVES * AREA; i += WG) {
            sums[i] = 0.0;
        }
        workgroupBarrier();
//#each M MS
//#each N NS
        var acc_$M_$N = coopLoadT<Sums>(&sums[wave * AREA], SIZE);
//#if GATED
        var acc3_$M_$N = acc_$M_$N;
//#endif
//#end
//#end
        for (var o = 0u; o < params.oct; o += OCTS) {
            for (var i = ids.lane; i < BM * OCTS; i += WG) {
                let m = i / OCTS;
                let at = o + i % OCTS;
                var v = Oct(vec4(0.0), vec4(0.0));
                if m < b.rows && at < params.oct {
                    v = x_oct(x_begin(b, m), at * 8u);
                }
                let to = m * PITCH + i % OCTS * 8u;
                let parts = parts_of(v);
//#each C 4
                x_tile[to + $Cu] = parts.lo[$C];
                x_tile[to + 4u + $Cu] = parts.hi[$C];
//#end
            }
            for (var i = ids.lane; i < BN * OCTS; i += WG) {
                let n = i / OCTS;
                let at = o + i % OCTS;
                var v = Oct(vec4(0.0), vec4(0.0));
//#if GATED
                var v3 = Oct(vec4(0.0), vec4(0.0));
//#endif
                if block + n < b.outputs && at < params.oct {
                    let weight_at = (b.weight_row + block + n) * params.pitch;
                    v = w_oct(weight_at, at);
//#if GATED
                    v3 = w3_oct(weight_at, at);
//#endif
                }
                let to = n * PITCH + i % OCTS * 8u;
                let parts = parts_of(v);
//#if GATED
                let parts3 = parts_of(v3);
//#endif
//#each C 4
                w_tile[to + $Cu] = parts.lo[$C];
                w_tile[to + 4u + $Cu] = parts.hi[$C];
//#if GATED
                w3_tile[to + $Cu] = parts3.lo[$C];
                w3_tile[to + 4u + $Cu] = parts3.hi[$C];
//#endif
//#end
            }
            workgroupBarrier();
            for (var k = 0u; k < DEPTH; k += SIZE) {
                // Rows of x are rows of the first matrix, rows of w columns of the second.
//#each M MS
                let x_$M = coopLoadT<Rows>(&x_tile[(m0 + $Mu * SIZE) * PITCH + k], PITCH);
//#end
//#each N NS
                let w_$N = coopLoad<Columns>(&w_tile[(n0 + $Nu * SIZE) * PITCH + k], PITCH);
//#if GATED
                let w3_$N = coopLoad<Columns>(&w3_tile[(n0 + $Nu * SIZE) * PITCH + k], PITCH);
//#endif
//#each M MS
                acc_$M_$N = coopMultiplyAdd(x_$M, w_$N, acc_$M_$N);
//#if GATED
                acc3_$M_$N = coopMultiplyAdd(x_$M, w3_$N, acc3_$M_$N);
//#endif
//#end
//#end
            }
            workgroupBarrier();
        }
        // A matrix at a time: what goes with the stores, once for each, would be most of the kernel.
        let width = WG / ids.subgroups;
        for (var i = 0u; i < MS * NS; i += step.one) {
//#each M MS
//#each N NS
            if i == $Mu * NS + $Nu {
                coopStoreT(acc_$M_$N, &sums[wave * AREA], SIZE);
//#if GATED
                coopStoreT(acc3_$M_$N, &sums3[wave * AREA], SIZE);
//#endif
            }
//#end
//#end
            workgroupBarrier();
            for (var at = ids.sublane; at < AREA; at += width) {
                let m = m0 + i / NS * SIZE + at / SIZE;
                let n = block + n0 + i % NS * SIZE + at % SIZE;
                if m < b.rows && n < b.outputs {
                    let row = y_row(b.row0 + m);
                    var sum = sums[wave * AREA + at];
//#if GATED
                    sum = gated(sum, sums3[wave * AREA + at], weights[row]);
//#endif
                    put(row, b.y_at + n, sum);
                }
            }
            workgroupBarrier();
        }
    }
}

struct Parts {
    lo: vec4<Part>,
    hi: vec4<Part>,
}

// Numbers beyond those of f16 become its largest.
fn parts_of(v: Oct) -> Parts {
//#if HALF
    let most = vec4(65504.0);
    return Parts(vec4<f16>(clamp(v.lo, -most, most)), vec4<f16>(clamp(v.hi, -most, most)));
//#else
    return Parts(v.lo, v.hi);
//#endif
}
