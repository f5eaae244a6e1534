// What weights are loaded in: 16 bytes, or 32 where rows begin at multiples of these.
//#if WIDER
alias Chunk = vec4<u64>;
//#else
//#if WIDE
alias Chunk = vec2<u64>;
//#else
alias Chunk = vec4<u32>;
//#endif
//#endif
