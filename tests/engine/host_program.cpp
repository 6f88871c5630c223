// Does jobs with the host's kernels for tests/engine/test_aarch64.py, on processors for which there
// is no Python: keys, selection bits, and answers by HostScanner, as the CPU engine asks for them.
//
// Standard input holds jobs: a line of words, then bytes. Standard output gets each job's bytes.
//   sets                                    no bytes; the names of the supported sets, a line
//   gen LOG_PAGES INDEX...                  entropy for each; both parties' keys of each
//   expand SET FIRST LEAVES KEY_BYTES       a key; 64 bytes a leaf
//   read SET THREADS SIZE                   bytes; their XOR as a 64-bit word
//   answer SET ORDER THREADS KEYS KEY_BYTES PAGES PAGE_SIZE TAIL
//                                           keys, then pages; a page for each key
//   hashes                                  no bytes; the names of the supported ways to hash, a line
//   leaves WAY FIRST PAGES SIZE             contents of pages; 32 bytes a page
// ORDER is 0 for memory and 1 for rows. TAIL is 1 if the last page lies elsewhere. All input and
// output ends at memory that cannot be touched.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "dpf_generate.h"
#include "host_kernels.h"
#include "host_scanner.h"
#include "page_tree.h"
#include "read_order.h"

using namespace morphogen;

namespace {

[[noreturn]] void fail(const std::string& reason) {
  std::fprintf(stderr, "%s\n", reason.c_str());
  std::exit(1);
}

// Bytes whose end is the end of the memory that may be touched.
class Walled {
 public:
  explicit Walled(std::size_t size) : size_(size) {
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t inner = (size + page - 1) / page * page;
    mapped_ = inner + page;
    void* memory =
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) fail("no memory");
    base_ = static_cast<std::uint8_t*>(memory);
    if (mprotect(base_ + inner, page, PROT_NONE) != 0) fail("no mprotect");
    data_ = base_ + inner - size;
  }
  ~Walled() { munmap(base_, mapped_); }
  Walled(const Walled&) = delete;
  Walled& operator=(const Walled&) = delete;

  std::uint8_t* data() const { return data_; }
  std::size_t size() const { return size_; }

  void read() const {
    if (!std::cin.read(reinterpret_cast<char*>(data_), static_cast<std::streamsize>(size_)))
      fail("the input ends within a job");
  }
  void write() const {
    std::cout.write(reinterpret_cast<const char*>(data_), static_cast<std::streamsize>(size_));
  }

 private:
  std::size_t size_, mapped_;
  std::uint8_t *base_, *data_;
};

const HostKernels& find_set(const std::string& name) {
  for (const HostKernels* const* set = compiled_kernels(); *set != nullptr; ++set)
    if (name == (*set)->name && is_supported(**set)) return **set;
  fail("no instruction set " + name);
}

template <class Value>
Value take(std::istringstream& words) {
  Value value;
  if (!(words >> value)) fail("a job lacks a word: " + words.str());
  return value;
}

template <class Kernels>
void name_supported(const Kernels* const* kernels, bool (*supported)(const Kernels&)) {
  const char* separator = "";
  for (; *kernels != nullptr; ++kernels) {
    if (!supported(**kernels)) continue;
    std::cout << separator << (*kernels)->name;
    separator = " ";
  }
  std::cout << '\n';
}

void generate(std::istringstream& words) {
  const auto log_num_pages = take<int>(words);
  const auto size = static_cast<std::size_t>(key_bytes(log_num_pages));
  std::deque<Walled> memory;
  std::vector<KeyPair> pairs;
  for (std::uint64_t index; words >> index;) {
    const Walled& entropy = memory.emplace_back(kEntropyBytes);
    entropy.read();
    std::uint8_t* const key0 = memory.emplace_back(size).data();
    pairs.push_back({index, entropy.data(), {key0, memory.emplace_back(size).data()}});
  }
  generate_keys(pairs.data(), static_cast<int>(pairs.size()), log_num_pages);
  for (const Walled& key : memory) {
    if (key.size() != size) continue;  // entropy: no key is as short
    if (find_key_fault(key.data(), size) != KeyFault::none) fail("a faulty key");
    key.write();
  }
}

void expand(std::istringstream& words) {
  const HostKernels& set = find_set(take<std::string>(words));
  const auto first = take<std::uint64_t>(words), leaves = take<std::uint64_t>(words);
  const Walled key(take<std::size_t>(words)), bits(leaves * kLeafBytes);
  key.read();
  set.expand(key.data(), first, leaves, bits.data());
  bits.write();
}

void read(std::istringstream& words) {
  const HostKernels& set = find_set(take<std::string>(words));
  HostScanner scanner(set, take<std::size_t>(words));
  const Walled data(take<std::size_t>(words));
  data.read();
  const std::uint64_t sum = scanner.read(data.data(), data.size());
  std::cout.write(reinterpret_cast<const char*>(&sum), sizeof sum);
}

void answer(std::istringstream& words) {
  const HostKernels& set = find_set(take<std::string>(words));
  ScanJob job = {};
  job.read_order = take<int>(words) != 0 ? ReadOrder::rows : ReadOrder::memory;
  job.body_is_mapped = false;
  HostScanner scanner(set, take<std::size_t>(words));
  job.key_count = take<std::size_t>(words);
  job.key_bytes = take<std::size_t>(words);
  job.page_count = take<std::uint64_t>(words);
  job.page_size = take<std::size_t>(words);
  const std::size_t tail_pages = take<int>(words) != 0;
  const Walled keys(job.key_count * job.key_bytes);
  const Walled body((job.page_count - tail_pages) * job.page_size);
  const Walled tail(tail_pages * job.page_size);
  for (const Walled* part : {&keys, &body, &tail}) part->read();
  job.keys = keys.data();
  job.body = body.data();
  job.tail = tail_pages != 0 ? tail.data() : nullptr;
  const Walled out(job.key_count * job.page_size);
  // The second pass finds scratch memory that the first has written.
  for (int pass = 0; pass < 2; ++pass) {
    std::memset(out.data(), 0xa5, out.size());
    scanner.answer(job, out.data());
  }
  out.write();
}

void leaves(std::istringstream& words) {
  const auto name = take<std::string>(words);
  const auto first = take<std::uint64_t>(words);
  const auto pages = take<std::size_t>(words), size = take<std::size_t>(words);
  const Walled contents(pages * size), out(pages * kShaBytes);
  contents.read();
  for (const ShaKernel* const* way = compiled_sha_kernels(); *way != nullptr; ++way)
    if (name == (*way)->name && is_sha_supported(**way))
      hash_leaves(**way, first, contents.data(), static_cast<std::ptrdiff_t>(size), pages, size,
                  out.data());
  out.write();
}

// The measurement tells nothing under an emulator, but must run.
void measure_order() {
  const ReadOrderChoice choice = preferred_read_order(*compiled_kernels()[0]);
  std::cout << (choice.measured ? "measured\n" : "known\n");
}

}  // namespace

int main() {
  std::ios::sync_with_stdio(false);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    const auto job = take<std::string>(words);
    if (job == "sets") name_supported(compiled_kernels(), is_supported);
    else if (job == "gen") generate(words);
    else if (job == "expand") expand(words);
    else if (job == "read") read(words);
    else if (job == "answer") answer(words);
    else if (job == "hashes") name_supported(compiled_sha_kernels(), is_sha_supported);
    else if (job == "leaves") leaves(words);
    else if (job == "order") measure_order();
    else fail("no such job: " + job);
  }
  return 0;
}
