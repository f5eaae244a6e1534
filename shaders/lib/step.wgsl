// What every kernel is given beside its own parameters.

struct Step {
    rows: u32,  // token rows (or patches) in this step
    outs: u32,  // rows whose logits are wanted
    // 1. Compilers do not know, and so do not unroll a loop that steps by it: those of software
    // adapters take many seconds over a long kernel.
    one: u32,
}
@group(0) @binding(1) var<uniform> step: Step;

// One token row. Uploaded by the runtime, laid out by RowInfo in src/runtime/rows.rs.
struct Row {
    slot: u32,      // which sequence's state it belongs to
    position: u32,  // its position in that sequence
    token: u32,     // token id; 0 for image rows
    kind: u32,      // 0 text, else 1 + image type code (START 0, PAD 1, IMAGE 2, NEWLINE 3, END 4)
    image: u32,     // row of the uploaded image embeddings, for IMAGE rows
    first: u32,     // first position it sees through the sliding window
    last: u32,      // last position it sees through it: its own, or its image span's end
    spare: u32,
}

// Builtins of a workgroup invocation, as one entry-point argument.
struct Ids {
    @builtin(local_invocation_index) lane: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
//#if SUBGROUPS
    @builtin(subgroup_invocation_id) sublane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
//#endif
}

// Index of the workgroup in a grid made by gpu::grid.
fn group_index(ids: Ids) -> u32 {
    return ids.group.x + ids.group.y * ids.groups.x;
}
