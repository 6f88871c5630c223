// One call of the driver. It is counted and logged, and it fails if a fault is injected or the
// context has failed.
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

  // Takes the driver's mutex. Throws Failure.
  void begin(Needs needs);
  CUresult end(const Failure& failure);

  // Returns the stream of a handle, or the legacy default stream.
  std::shared_ptr<Stream> stream(CUstream handle) const;
  // Queues work behind the stream's earlier work and behind `after`.
  Point queue(const std::shared_ptr<Stream>& stream, std::function<void()> run, Point after = {});
  // Does the work that the schedule asks for now. Releases the mutex, so it is the last step of a
  // call.
  void schedule(const Point& queued);
  // Waits without the mutex. Throws if the work failed.
  void wait(const Point& until, std::uint64_t pieces = kAll);
  void wait_all();

  Driver& driver;
  std::unique_lock<std::mutex> lock;
  std::shared_ptr<Context> context;  // the current context, if the call needs one

 private:
  void check_failed() const;

  const Function function_;
  CUresult late_ = CUDA_SUCCESS;
};

// Returns the calling thread's context stack, innermost last.
std::vector<std::uint64_t>& context_stack();

// Returns true, and counts the call, if calls are to do nothing.
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

// Throws INVALID_VALUE with `what` unless the condition holds.
inline void require(bool holds, const char* what) {
  if (!holds) throw Failure{CUDA_ERROR_INVALID_VALUE, what};
}

// Returns the object of a handle. Throws INVALID_HANDLE.
template <class T>
std::shared_ptr<T> find(const Handles<T>& handles, const void* handle, const char* what) {
  const auto found = handles.find(reinterpret_cast<std::uintptr_t>(handle));
  if (found == handles.end())
    throw Failure{CUDA_ERROR_INVALID_HANDLE, std::string("no such ") + what};
  return found->second;
}

}  // namespace standin
