// Calls of several kernels, its links, in one dispatch, for software adapters, where each dispatch wakes
// threads and waits for them, which takes as long as a small kernel's work. As many workgroups as there
// are threads take the blocks (what would be workgroups) of all calls in order, and none of a call before
// all of the calls before it are done. A block is waited for only once a workgroup has taken it, which
// waits for earlier ones alone, so that it ends if but workgroups that have begun go on running,
// however few run at a time.
//
// Links are kernels whose workgroups are one subgroup and have no barriers. src/gpu/shader.rs puts
// them after this file, with `link_0_`, `link_1_`, ... before all of their names, and has each call find
// its own parameters and its own places in the buffers that calls of its link share. What one writes and
// another reads is bound `read_write` in both, and ordered by atomics on `progress`.

override LINKS: u32 = 1u;
override CALLS: u32 = 1u;
override PLACED_FOURS: u32 = 1u;
// Where in a call's `link` it says which of the link's parameters it has.
override PARAMS_BIT: u32 = 16u;
// Lanes of a subgroup, which is the workgroup.
override WG: u32 = 8u;
//#include step

struct Call {
    grid: vec3<u32>,  // its blocks, by dimension
    link: u32,
    // Where its places begin in the buffers that calls of the link share, in words.
    places: array<vec4<u32>, PLACED_FOURS>,
}
@group(0) @binding(0) var<uniform> calls: array<Call, CALLS>;

struct Progress {
    taken: atomic<u32>,
    done: atomic<u32>,
    left: atomic<u32>,  // workgroups that found no block any more
}
// All zero before, and after.
@group(0) @binding(2) var<storage, read_write> progress: Progress;

@compute @workgroup_size(WG)
fn main(ids_in: Ids) {
    let first = ids_in.sublane == 0u;
    var call = 0u;
    // Blocks of earlier calls.
    var before = 0u;
    loop {
        var taken = 0u;
        if first {
            taken = atomicAdd(&progress.taken, 1u);
        }
        taken = subgroupBroadcastFirst(taken);
        while call < CALLS && taken >= before + blocks(call) {
            before += blocks(call);
            call++;
        }
        if call == CALLS {
            break;
        }
        if first {
            // An addition, since a mere load may be moved out of the loop.
            while atomicAdd(&progress.done, 0u) < before {
            }
        }
        let block = taken - before;
        let grid = calls[call].grid;
        var ids = ids_in;
        ids.group = vec3(block % grid.x, block / grid.x % grid.y, block / grid.x / grid.y);
        ids.groups = grid;
        switch calls[call].link % (1u << PARAMS_BIT) {
//#each I LINKS
            case $Iu: {
                link_$I_begin_call(call);
                link_$I_main(ids);
            }
//#end
            default: {
            }
        }
        if first {
            atomicAdd(&progress.done, 1u);
        }
    }
    if first && atomicAdd(&progress.left, 1u) == ids_in.groups.x - 1u {
        atomicStore(&progress.taken, 0u);
        atomicStore(&progress.done, 0u);
        atomicStore(&progress.left, 0u);
    }
}

fn blocks(call: u32) -> u32 {
    let grid = calls[call].grid;
    return grid.x * grid.y * grid.z;
}
