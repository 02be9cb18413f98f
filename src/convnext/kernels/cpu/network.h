// Layers of a network one after the other, each on all threads. What lies between two of them stays in memory that the
// calling thread keeps, so that a call asks the system for nothing.
#pragma once

#include "head.h"
#include "grn.h"

namespace convnext {

struct Layer {  // one of them; a block is V2's where there are weights of its GRN
    const Patch* patch;
    const Block<float>* block;
    const float* grn;
    const Head* head;
    const Block<Bf16>* bf16;  // its matmuls in bfloat16, where the processor has them
};

thread_local Scratch between_memory;

// outs[i] is where layer i's map is wanted, or null. False where memory is short.
inline bool network(const Layer* layers, long count, const float* x, Strides strides, Map map, float* const* outs,
                    int threads) {
    auto after = [](const Layer& layer, Map from) -> Map {
        if (layer.head) return {from.images, 1, 1, layer.head->outputs};
        return layer.patch ? patched(*layer.patch, from) : from;
    };
    long largest = 0;
    Map each = map;
    for (long i = 0; i < count; i++) {
        each = after(layers[i], each);
        if (!outs[i] && each.floats() > largest) largest = each.floats();
    }
    float* between = between_memory.ask(2 * largest);
    if (largest && !between) return false;
    for (long i = 0; i < count; i++) {
        const Layer& layer = layers[i];
        const Map next = after(layer, map);
        float* out = outs[i] ? outs[i] : between + i % 2 * largest;
        if (layer.patch)
            patches(*layer.patch, x, strides, map, out, threads);
        else if (layer.head)
            head(*layer.head, x, map, out, threads);
#if defined(CONVNEXT_BF16)
        else if (layer.bf16)
            block(*layer.bf16, x, out, map, threads);
#endif
        else if (layer.grn)
            block_v2(*layer.block, layer.grn, x, out, map, threads);
        else
            block(*layer.block, x, out, map, threads);
        x = out, map = next;
        strides = {map.height * map.width * map.channels, map.width * map.channels, map.channels, 1};
    }
    return true;
}

}  // namespace convnext
