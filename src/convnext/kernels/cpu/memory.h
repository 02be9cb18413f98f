// Scratch that a thread keeps between calls, so that a call does not ask the system for fresh pages.
#pragma once

#include <atomic>
#include <cstdlib>
#include <memory>

#include "amx.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#if defined(_OPENMP)
#include <omp.h>
#else
inline int omp_get_thread_num() { return 0; }
inline int omp_get_num_threads() { return 1; }
#endif

namespace convnext {

class Scratch {
  public:
    ~Scratch() { std::free(memory_); }

    // At least `count` floats, contents undefined; null where the system has no more. Behind them READABLE more may be read.
    float* ask(long count) {
        count += READABLE;
        if (count > size_) {
            const long page = count * 4 < LARGE_PAGE ? 4096 : LARGE_PAGE;
            std::free(memory_);
            size_ = up(count * 4, page) / 4;
            memory_ = static_cast<float*>(std::aligned_alloc(static_cast<size_t>(page), size_t(size_) * 4));
            if (!memory_) size_ = 0;
#if defined(__linux__)
            if (memory_ && page == LARGE_PAGE) madvise(memory_, static_cast<size_t>(size_) * 4, MADV_HUGEPAGE);
#endif
        }
        return memory_;
    }

    float* floats(long count) {  // for the few megabytes inside a parallel region, where nothing can be reported
        float* memory = ask(count);
        if (!memory) std::abort();
        return memory;
    }

    template <class T>
    T* values(long count) { return reinterpret_cast<T*>(floats(count * static_cast<long>(sizeof(T)) / 4 + 1)); }

  private:
    static constexpr long READABLE = TILE_ROWS * 2 * TILE_BYTES / 4;  // rows of tiles beyond the last (multiply_rows)
    static constexpr long LARGE_PAGE = 2 << 20;  // fewer misses of the address cache
    float* memory_ = nullptr;
    long size_ = 0;
};

// work(i) for every i below `count`: each thread takes its own range in order, which it finds in its caches where the layer
// before was dealt out alike, and then helps those that are behind.
template <class Work>
void deal(long count, int threads, Work work) {
    struct alignas(64) Next { std::atomic<long> place; };
    const std::unique_ptr<Next[]> next(new Next[static_cast<size_t>(threads)]);
    for (long i = 0; i < threads; i++) next[i].place = count * i / threads;
#pragma omp parallel num_threads(threads) if (threads > 1)
    for (long i = 0; i < threads; i++) {
        const long owner = (omp_get_thread_num() + i) % threads, end = count * (owner + 1) / threads;
        for (long place; (place = next[owner].place.fetch_add(1)) < end;) work(place);
    }
}

}  // namespace convnext
