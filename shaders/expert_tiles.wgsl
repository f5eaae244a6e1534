// Stable counting sort of (token, choice) slots by expert, and tiles of two sizes; with how many there are
// the grids of the products that follow are written, so that no workgroup of theirs is without work. One
// workgroup in all. See src/ops/expert_tiles.rs.
//
// ids     [T * k] u32, an expert a slot
// sorted  [T * k] u32, slots
// tiles   [1 + T * k] vec4 u32: (large ones, small ones, 0, 0), then (expert, first, slots, 0) of the large
//         ones, of the small ones, then zeros
// grids   the grids of kernels whose rows are tiles

// There is only one workgroup, so it is as wide as may be.
override WG: u32 = 256u;
// Number of experts; sizes workgroup memory.
override EXPERTS: u32 = 256u;
// Experts whose prefix sums one lane works out.
const PER_LANE = (EXPERTS + WG - 1u) / WG;
//#include scan

struct Params {
    k: u32,
    small: u32,  // slots of a tile at most
    large: u32,
}

// The grid of one kernel, laid out by exec in src/gpu/exec.rs.
struct Grid {
    x: u32,
    y: u32,      // as many as there are tiles
    z: u32,
    which: u32,  // of the tiles: TileSet in src/ops/expert_tiles.rs
}
const LARGE = 1u;
const SMALL = 2u;
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read_write> sorted: array<u32>;
@group(0) @binding(4) var<storage, read_write> tiles: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> grids: array<Grid>;

// Slots of each expert; later, where its next slot goes. Sums of integers, so that the order in
// which lanes add makes no difference.
var<workgroup> place: array<atomic<u32>, EXPERTS>;
var<workgroup> block: array<u32, WG>;

// Large tiles of an expert's slots: as long as more than half of one is left.
fn large_tiles(slots: u32) -> u32 {
    return (slots + params.large - 1u - params.large / 2u) / params.large;
}

// What is left, in small ones.
fn small_tiles(slots: u32) -> u32 {
    let left = slots - min(slots, large_tiles(slots) * params.large);
    return (left + params.small - 1u) / params.small;
}

@compute @workgroup_size(WG)
fn main(inv: Ids) {
    let slots = step.rows * params.k;
    for (var e = inv.lane; e < EXPERTS; e += WG) {
        atomicStore(&place[e], 0u);
    }
    workgroupBarrier();
    for (var s = inv.lane; s < slots; s += WG) {
        atomicAdd(&place[min(ids[s], EXPERTS - 1u)], 1u);
    }
    workgroupBarrier();

    var my_slots = 0u;
    var my_large = 0u;
    var my_small = 0u;
    for (var i = 0u; i < PER_LANE; i++) {
        let e = inv.lane * PER_LANE + i;
        if e < EXPERTS {
            let n = atomicLoad(&place[e]);
            my_slots += n;
            my_large += large_tiles(n);
            my_small += small_tiles(n);
        }
    }
    var first = scan_before(inv, my_slots);
    var large = scan_before(inv, my_large);
    let large_count = scan_total();
    var small = large_count + scan_before(inv, my_small);
    let small_count = scan_total();
    for (var i = 0u; i < PER_LANE; i++) {
        let e = inv.lane * PER_LANE + i;
        if e < EXPERTS {
            let n = atomicLoad(&place[e]);
            var done = 0u;
            for (var left = large_tiles(n); left > 0u; left--) {
                large++;
                tiles[large] = vec4<u32>(e, first + done, min(params.large, n - done), 0u);
                done += params.large;
            }
            for (; done < n; done += params.small) {
                small++;
                tiles[small] = vec4<u32>(e, first + done, min(params.small, n - done), 0u);
            }
            atomicStore(&place[e], first);
            first += n;
        }
    }
    for (var i = large_count + small_count + 1u + inv.lane; i <= slots; i += WG) {
        tiles[i] = vec4<u32>();
    }
    if inv.lane == 0u {
        tiles[0] = vec4<u32>(large_count, small_count, 0u, 0u);
    }
    for (var i = inv.lane; i < arrayLength(&grids); i += WG) {
        let which = grids[i].which;
        grids[i].y = select(0u, large_count, (which & LARGE) != 0u) +
            select(0u, small_count, (which & SMALL) != 0u);
    }

    // Block by block: a slot goes behind those of its expert in earlier blocks and, within its own
    // block, in lower lanes.
    for (var start = 0u; start < slots; start += WG) {
        let s = start + inv.lane;
        let here = min(WG, slots - start);
        var expert = 0u;
        if s < slots {
            expert = min(ids[s], EXPERTS - 1u);
        }
        workgroupBarrier();
        block[inv.lane] = expert;
        workgroupBarrier();
        if inv.lane < here {
            var before = 0u;
            for (var lane = 0u; lane < inv.lane; lane++) {
                before += u32(block[lane] == expert);
            }
            sorted[atomicLoad(&place[expert]) + before] = s;
        }
        workgroupBarrier();
        if inv.lane < here {
            atomicAdd(&place[expert], 1u);
        }
    }
}
