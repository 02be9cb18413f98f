// Scratch that a thread keeps between calls, so that a call does not ask the system for fresh pages.
#pragma once

#include <cstdlib>

#include "vector.h"

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

    // At least `count` floats, contents undefined; null where the system has no more.
    float* ask(long count) {
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
    T* numbers(long count) { return reinterpret_cast<T*>(floats(count * static_cast<long>(sizeof(T)) / 4 + 1)); }

  private:
    static constexpr long LARGE_PAGE = 2 << 20;  // fewer misses of the address cache
    float* memory_ = nullptr;
    long size_ = 0;
};

}  // namespace convnext
