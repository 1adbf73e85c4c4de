// Threads that help with a loop over units of work, and are not waited for if they do not come.
//
// OpenMP ends a parallel loop when all its threads have been there. Where other processes use the
// cores too, one of them is often not running just then, and everybody waits for the operating
// system, hundreds of times a step. Here the calling thread takes units until there are none left;
// a helper that is awake takes units as well; at the end the caller waits for those only that are
// in the middle of one.
//
// Helpers that find no work look for some for a moment and then sleep, so that an idle engine uses
// no processor time. Torch's threads do the same, and for longer: on the same cores, either would
// keep the other from working. So where torch computes the large products itself, these loops run
// on its threads (see threads.py).
#pragma once

#include <ATen/Parallel.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>

namespace millstream {

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class Pool {
  static constexpr auto PATIENCE = std::chrono::microseconds(200);
  static constexpr int LOOKS = 64;  // between two looks at the clock

 public:
  // The pool of this process; a forked child makes its own.
  static Pool& get() {
    static std::mutex guard;
    static Pool* pool = nullptr;  // never destroyed: its threads may outlive static objects
    static pid_t owner = 0;
    std::lock_guard lock(guard);
    if (owner != getpid()) {
      pool = new Pool;
      owner = getpid();
    }
    return *pool;
  }

  // Calls work(unit, slot) for 0 <= unit < units, on up to `threads` threads, this one included; no
  // two at once have the same slot, 0 <= slot < threads. Throws what the first failing call threw;
  // units that nobody had taken by then are left out.
  template <typename F>
  void run(int64_t units, int threads, F&& work) {
    std::unique_lock lock(busy_, std::try_to_lock);
    if (threads <= 1 || units <= 1 || !lock.owns_lock()) {  // somebody else's loop is running
      for (int64_t unit = 0; unit < units; unit++) work(unit, 0);
      return;
    }
    for (; num_helpers_ < threads - 1; num_helpers_++)
      std::thread([this, number = num_helpers_] { help(number); }).detach();
    call_ = [](void* context, int64_t unit, int slot) {
      (*static_cast<std::remove_reference_t<F>*>(context))(unit, slot);
    };
    context_ = const_cast<void*>(static_cast<const void*>(&work));
    units_ = units;
    wanted_ = threads - 1;
    error_ = nullptr;
    next_.store(0, std::memory_order_relaxed);
    state_.fetch_add(1);  // odd: open
    if (sleepers_.load()) state_.notify_all();
    take_units(0);
    state_.fetch_add(1);  // even: closed; whoever is not in it yet stays out
    for (int looks = 0; inside_.load(); looks++) {
      if (looks < 4 * LOOKS)
        relax();
      else
        std::this_thread::yield();
    }
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void take_units(int slot) {
    try {
      for (int64_t unit; (unit = next_.fetch_add(1, std::memory_order_relaxed)) < units_;)
        call_(context_, unit, slot);
    } catch (...) {
      next_.store(units_, std::memory_order_relaxed);
      std::lock_guard lock(error_guard_);
      if (!error_) error_ = std::current_exception();
    }
  }

  void help(int number) {
    for (uint64_t seen = 0;;) {
      uint64_t state = next_state(seen);
      // First be seen, then look again: the caller first closes, then looks who is inside.
      inside_.fetch_add(1);
      if (state_.load() == state && number < wanted_) take_units(number + 1);
      inside_.fetch_sub(1);
      seen = state;
    }
  }

  // Waits for an open loop other than `seen`.
  uint64_t next_state(uint64_t seen) {
    auto start = std::chrono::steady_clock::now();
    for (;;) {
      uint64_t state = 0;
      for (int look = 0; look < LOOKS; look++, relax())
        if ((state = state_.load()) % 2 && state != seen) return state;
      if (std::chrono::steady_clock::now() - start < PATIENCE) continue;
      sleepers_.fetch_add(1);
      state_.wait(state);
      sleepers_.fetch_sub(1);
      start = std::chrono::steady_clock::now();
    }
  }

  std::mutex busy_, error_guard_;
  int num_helpers_ = 0;
  std::atomic<uint64_t> state_{0};
  std::atomic<int> inside_{0}, sleepers_{0};
  std::atomic<int64_t> next_{0};
  void (*call_)(void*, int64_t, int) = nullptr;
  void* context_ = nullptr;
  int64_t units_ = 0;
  int wanted_ = 0;
  std::exception_ptr error_;
};

// Whose threads the loops of this thread run on: a number of them, or one of these.
constexpr int AS_MANY_AS_TORCH = -1, TORCHS_OWN = 0;
inline thread_local int chosen_threads = AS_MANY_AS_TORCH;

inline int num_threads() { return chosen_threads > 0 ? chosen_threads : at::get_num_threads(); }

// work(unit, slot) for 0 <= unit < units; see Pool::run.
template <typename F>
void each_unit(int64_t units, F&& work) {
  int threads = num_threads();
  if (chosen_threads != TORCHS_OWN) return Pool::get().run(units, threads, work);
  std::atomic<int64_t> next{0};
  at::parallel_for(0, std::min<int64_t>(threads, units), 1, [&](int64_t begin, int64_t end) {
    for (int64_t slot = begin; slot < end; slot++)
      for (int64_t unit; (unit = next.fetch_add(1, std::memory_order_relaxed)) < units;)
        work(unit, slot);
  });
}

}  // namespace millstream
