            // Adds to sums_$W what a lane's rows make of a piece of WG rows of $W, which each lane has one of and
            // which go round: a part of matmul_lanes_ring, whose names it uses.
            {
//#if TWO
                let both = $W_load_two(at, g);
                let w_0 = both.first;
                let w_1 = both.last;
//#else
                let w_0 = $W_load(at, g);
//#endif
//#each L LOADED
                let v_$L = $W_numbers(w_$L.raw);
//#end
                // Step by step: a compiler that unrolled this would take long.
                for (var o = 0u; o < WG; o += step.one) {
                    let whose = (lane + o) % WG;
                    var acc = vec4<f32>();
//#each L LOADED
                    // The scales of that lane's weights.
                    var shown_$L = w_$L;
                    shown_$L.last.scale = subgroupShuffle(w_$L.last.scale, whose);
                    shown_$L.last.shift = subgroupShuffle(w_$L.last.shift, whose);
                    shown_$L.first = shown_$L.last;
                    if $W_halves {
                        shown_$L.first.scale = subgroupShuffle(w_$L.first.scale, whose);
                        shown_$L.first.shift = subgroupShuffle(w_$L.first.shift, whose);
                    }
                    var sum_$L = vec4<f32>();
                    var more_$L = vec4<f32>();
//#each Q 8
                    let v_$L_$Q_0 = subgroupShuffle(v_$L.v[$Q].x, whose);
                    let v_$L_$Q_1 = subgroupShuffle(v_$L.v[$Q].y, whose);
                    let v_$L_$Q_2 = subgroupShuffle(v_$L.v[$Q].z, whose);
                    let v_$L_$Q_3 = subgroupShuffle(v_$L.v[$Q].w, whose);
//#each R 4
                    sum_$L[$R] += v_$L_$Q_0 * xs[4u * $Lu + $Ru].v.v[$Q].x;
                    more_$L[$R] += v_$L_$Q_1 * xs[4u * $Lu + $Ru].v.v[$Q].y;
//#end
//#each R 4
                    sum_$L[$R] += v_$L_$Q_2 * xs[4u * $Lu + $Ru].v.v[$Q].z;
                    more_$L[$R] += v_$L_$Q_3 * xs[4u * $Lu + $Ru].v.v[$Q].w;
//#end
                    // The first half ends.
                    if $Q == 3 && $W_halves {
                        acc += shown_$L.first.scale * (sum_$L + more_$L);
                        sum_$L = vec4<f32>();
                        more_$L = vec4<f32>();
                    }
//#end
                    acc += shown_$L.last.scale * (sum_$L + more_$L);
//#each R 4
                    acc[$R] += $W_shifts(shown_$L, xs[4u * $Lu + $Ru].sums);
//#end
//#end
                    // Where to depends on all four, or compilers make them one after the other, each when it
                    // is stored, of what they keep in memory meanwhile.
                    let least = min(min(acc.x, acc.y), min(acc.z, acc.w));
                    let to = (j * WG + o) * select(step.one, 1u, least > 0.0);
                    sums_$W[to] = sums_$W[j * WG + o] + acc;
                }
            }
