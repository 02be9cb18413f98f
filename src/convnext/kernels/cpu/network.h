// Layers of a network one after the other, each on all threads. What lies between two of them stays in memory that the
// calling thread keeps, so that a call asks the system for nothing.
#pragma once

#include "head.h"
#include "grn.h"
#include "int8_layers.h"

namespace convnext {

enum class Kind : long { PATCH, BLOCK, BLOCK_BF16, HEAD, BLOCK_INT8, PATCH_INT8, STEM, PATCH_BF16 };  // structs.py has the same numbers

struct Layer {
    Kind kind;
    const void* parameters;  // PATCH, PATCH_BF16: a Patch, HEAD: a Head, BLOCK: a Block<float>, BLOCK_BF16: a Block<Bf16>,
                             // BLOCK_INT8: an Int8Block, PATCH_INT8: an Int8Patch, STEM: a Stem
    template <class T> const T& as() const { return *static_cast<const T*>(parameters); }
};

thread_local Scratch between_memory;

// outs[i] is where layer i's map is wanted, or null. False where memory is short.
inline bool network(const Layer* layers, long count, const float* x, Strides strides, Map map, float* const* outs,
                    int threads) {
    auto after = [](const Layer& layer, Map from) -> Map {
        if (layer.kind == Kind::HEAD) return {from.images, 1, 1, layer.as<Head>().outputs};
        if (layer.kind == Kind::PATCH_INT8) return patched(layer.as<Int8Patch>(), from);
        if (layer.kind == Kind::STEM) return stemmed(layer.as<Stem>(), from);
        return layer.kind == Kind::PATCH || layer.kind == Kind::PATCH_BF16 ? patched(layer.as<Patch>(), from) : from;
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
        switch (layer.kind) {
            case Kind::PATCH: patches<float>(layer.as<Patch>(), x, strides, map, out, threads); break;
            case Kind::BLOCK: block(layer.as<Block<float>>(), x, out, map, threads); break;
#if defined(CONVNEXT_BF16)
            case Kind::PATCH_BF16: patches<Bf16>(layer.as<Patch>(), x, strides, map, out, threads); break;
            case Kind::BLOCK_BF16: block(layer.as<Block<Bf16>>(), x, out, map, threads); break;
#else
            case Kind::PATCH_BF16: case Kind::BLOCK_BF16: break;  // nobody packs one here: cn_bf16 tells
#endif
            case Kind::BLOCK_INT8: int8_block(layer.as<Int8Block>(), x, out, map, threads); break;
            case Kind::PATCH_INT8: int8_patches(layer.as<Int8Patch>(), x, strides, map, out, threads); break;
            case Kind::STEM:
                if (!stem(layer.as<Stem>(), x, strides, map, out, threads)) return false;
                break;
            case Kind::HEAD: head(layer.as<Head>(), x, map, out, threads); break;
        }
        x = out, map = next;
        strides = {map.height * map.width * map.channels, map.width * map.channels, map.channels, 1};
    }
    return true;
}

}  // namespace convnext
