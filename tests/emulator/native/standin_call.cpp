#include "standin_call.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

namespace standin {
namespace {

int thread_id() {
  thread_local const int id = static_cast<int>(syscall(SYS_gettid));
  return id;
}

std::uint64_t next_random(std::uint64_t& state) {  // splitmix64
  std::uint64_t z = state += 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

}  // namespace

std::vector<std::uint64_t>& context_stack() {
  thread_local std::vector<std::uint64_t> stack;
  thread_local std::uint64_t epoch = 0;
  const std::uint64_t current = Driver::get().epoch;
  if (epoch != current) stack.clear();
  epoch = current;
  return stack;
}

void Call::begin(Needs needs) {
  driver.counts[function_].fetch_add(1, std::memory_order_relaxed);
  lock = std::unique_lock<std::mutex>(driver.mutex);
  const std::vector<std::uint64_t>& stack = context_stack();
  const auto current = stack.empty() ? driver.contexts.end() : driver.contexts.find(stack.back());

  const int device = current == driver.contexts.end() ? kAnyDevice : current->second->device;
  Fault fault{function_, 0, CUDA_SUCCESS, Scope::kCall, false, kAnyDevice};
  for (auto each = driver.faults.begin(); each != driver.faults.end();) {
    const bool counts = each->device == kAnyDevice || each->device == device;
    if (each->function == function_ && counts && --each->calls == 0) {
      fault = *each;
      each = driver.faults.erase(each);
    } else {
      ++each;
    }
  }
  if (fault.late) {
    late_ = fault.result;
  } else if (fault.result != CUDA_SUCCESS) {
    if (fault.scope == Scope::kDevice)
      driver.devices[device == kAnyDevice ? 0 : device].lost = fault.result;
    else if (fault.scope == Scope::kContext && current != driver.contexts.end())
      current->second->failed = fault.result;
    throw Failure{fault.result, ""};
  }

  if (needs == Needs::kNothing) return;
  if (!driver.initialized) throw Failure{CUDA_ERROR_NOT_INITIALIZED, "before cuInit"};
  if (needs == Needs::kInitialized) return;
  if (stack.empty()) throw Failure{CUDA_ERROR_INVALID_CONTEXT, "no context is current"};
  if (current == driver.contexts.end())
    throw Failure{CUDA_ERROR_CONTEXT_IS_DESTROYED, "the current context is destroyed"};
  context = current->second;
  check_failed();
}

CUresult Call::end(const Failure& failure) {
  if (!lock.owns_lock()) lock.lock();
  if (!failure.reason.empty())
    driver.misuse.push_back(std::string(kFunctionNames[function_]) + ": " + failure.reason);
  if (driver.settings[kLog]) driver.log.push_back({function_, failure.result, thread_id()});
  return failure.result;
}

std::shared_ptr<Stream> Call::stream(CUstream handle) const {
  const bool legacy = reinterpret_cast<std::uintptr_t>(handle) <= 1;  // NULL, CU_STREAM_LEGACY
  return legacy ? context->legacy : find(context->streams, handle, "stream");
}

Point Call::queue(const std::shared_ptr<Stream>& stream, std::function<void()> run, Point after) {
  Work piece;
  if (after.stream) piece.after.push_back(std::move(after));
  if (stream == context->legacy) {
    for (const auto& [id, other] : context->streams)
      if (other->blocking) piece.after.push_back({other, other->queued});
  } else if (stream->blocking) {
    piece.after.push_back({context->legacy, context->legacy->queued});
  }
  piece.run = std::move(run);
  if (late_ != CUDA_SUCCESS)
    piece.run = [result = late_] { throw Failure{result, "an injected failure"}; };
  stream->queue.push_back(std::move(piece));
  return {stream, ++stream->queued};
}

void Call::schedule(const Point& queued) {
  const std::int64_t schedule = driver.settings[kSchedule];
  if (schedule == kLate) return;
  std::uint64_t pieces = kAll;
  if (schedule == kRandom) {
    if (driver.random == 0) driver.random = driver.settings[kSeed] + 1;
    pieces = next_random(driver.random) % (queued.position - queued.stream->done + 1);
  }
  lock.unlock();
  work(queued, pieces);
}

void Call::wait(const Point& until, std::uint64_t pieces) {
  lock.unlock();
  work(until, pieces);
  lock.lock();
  check_failed();
}

void Call::wait_all() {
  lock.unlock();
  work_all(*context);
  lock.lock();
  check_failed();
}

void Call::check_failed() const {
  const CUresult lost = driver.devices[context->device].lost;
  if (lost != CUDA_SUCCESS) throw Failure{lost, ""};
  if (context->failed != CUDA_SUCCESS) throw Failure{context->failed, ""};
}

}  // namespace standin
