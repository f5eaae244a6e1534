//#if HALF
enable f16;
//#endif
enable wgpu_cooperative_matrix;

// Whether the matrices of lib/matrices.wgsl are what they are thought to be: the product of two with
// different numbers in all places, and how wide subgroups are that make it. Grid: (1, 1, 1).

// Lanes of a workgroup.
override WG: u32 = 128u;
//#include matrices
//#include step
@group(0) @binding(2) var<storage, read> numbers: array<f32>;  // [3, SIZE, SIZE]
// [SIZE, SIZE]: the first of these by the second, plus the third; and how many lanes a subgroup has.
@group(0) @binding(3) var<storage, read_write> results: array<f32>;

const PITCH: u32 = SIZE + 8u;
var<workgroup> left: array<Part, SIZE * PITCH>;
var<workgroup> right: array<Part, SIZE * PITCH>;
var<workgroup> sums: array<f32, AREA>;

@compute @workgroup_size(WG)
fn main(ids: Ids) {
    for (var i = ids.lane; i < AREA; i += WG) {
        let row = i / SIZE;
        let column = i % SIZE;
        left[row * PITCH + column] = Part(numbers[i]);
        right[column * PITCH + row] = Part(numbers[AREA + i]);
        sums[i] = numbers[2u * AREA + i];
    }
    workgroupBarrier();
    let rows = coopLoadT<Rows>(&left[0], PITCH);
    let columns = coopLoad<Columns>(&right[0], PITCH);
    let product = coopMultiplyAdd(rows, columns, coopLoadT<Sums>(&sums[0], SIZE));
    workgroupBarrier();
    // Each subgroup has made the same.
    coopStoreT(product, &sums[0], SIZE);
    workgroupBarrier();
    for (var i = ids.lane; i < AREA; i += WG) {
        results[i] = sums[i];
    }
    if ids.lane == 0u {
        results[AREA] = f32(WG / ids.subgroups);
    }
}
