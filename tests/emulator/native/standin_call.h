// One call of the driver: counted, refused where a fault is injected or the context has failed, and
// logged.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "standin_state.h"

namespace standin {

enum class Needs { kNothing, kInitialized, kContext };

class Call {
 public:
  explicit Call(Function function) : driver(Driver::get()), function_(function) {}
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // Takes the driver's mutex; throws Failure.
  void begin(Needs needs);
  CUresult end(const Failure& failure);

  // The stream of a handle, or the legacy default stream.
  std::shared_ptr<Stream> stream(CUstream handle) const;
  // Queues work behind the stream's earlier work and what else it must wait for.
  Point queue(const std::shared_ptr<Stream>& stream, std::function<void()> run, Point after = {});
  // What the schedule wants done now. Gives the mutex up: the last thing that a call does.
  void schedule(const Point& queued);
  // Waits without the mutex; throws if the work failed.
  void wait(const Point& until, std::uint64_t pieces = kAll);
  void wait_all();

  Driver& driver;
  std::unique_lock<std::mutex> lock;
  std::shared_ptr<Context> context;  // the current one, where the call needs one

 private:
  void check_failed() const;

  const Function function_;
  CUresult late_ = CUDA_SUCCESS;
};

// The calling thread's context stack, innermost last.
std::vector<std::uint64_t>& context_stack();

// True if the call is to do nothing: it is counted then.
inline bool is_null(Function function) {
  Driver& driver = Driver::get();
  if (!driver.settings[kNull].load(std::memory_order_relaxed)) return false;
  driver.counts[function].fetch_add(1, std::memory_order_relaxed);
  return true;
}

template <class Body>
CUresult call(Function function, Needs needs, const Body& body) {
  Call call(function);
  try {
    call.begin(needs);
    body(call);
  } catch (const Failure& failure) {
    return call.end(failure);
  }
  return call.end({CUDA_SUCCESS, ""});
}

// Throws INVALID_VALUE for `what` unless it holds.
inline void require(bool holds, const char* what) {
  if (!holds) throw Failure{CUDA_ERROR_INVALID_VALUE, what};
}

// What a handle stands for; throws INVALID_HANDLE.
template <class T>
std::shared_ptr<T> find(const Handles<T>& handles, const void* handle, const char* what) {
  const auto found = handles.find(reinterpret_cast<std::uintptr_t>(handle));
  if (found == handles.end())
    throw Failure{CUDA_ERROR_INVALID_HANDLE, std::string("no such ") + what};
  return found->second;
}

}  // namespace standin
