# The C++ of kernels/ that Cython modules use. Only for this repository: an installation does not
# have the headers.
from libc.stddef cimport ptrdiff_t, size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "dpf.h" namespace "morphogen" nogil:
    cdef enum:
        kMaxLogPages
        kLeafBits
        kLeafBytes
        kEntropyBytes
        kPartyOffset
        kLogPagesOffset

    cdef enum class KeyFault(int):
        none
        length
        magic
        party
        log_pages
        reserved
        control_bits

    int log_pages(uint64_t num_pages)
    int key_bytes(int log_num_pages)
    bint seeds_are_equal(const uint8_t* entropy)
    uint32_t eval_at(const uint8_t* key, uint64_t index)
    KeyFault find_key_fault(const uint8_t* key, size_t size)

cdef extern from "dpf_restrict.h" namespace "morphogen" nogil:
    void restrict_key(const uint8_t* key, uint64_t first, int log_count, uint8_t* out)

cdef extern from "page_jobs.h" namespace "morphogen" nogil:
    cdef enum:
        kVectorBytes
        kMaxChunkKeys
        kWideChunkKeys
        kWidestChunkKeys
        kMaxKeyBytes
        kBlockThreads

    cdef cppclass BlockShape:
        unsigned int threads
        unsigned int tile_vectors

    BlockShape block_shape(int keys)

    cdef cppclass ChunkJob:
        const void* pages
        void* accumulators
        unsigned int* finished
        void* answers
        uint64_t first_leaf
        uint64_t pages_per_run
        unsigned int longer_runs
        unsigned int runs
        unsigned int tiles
        unsigned int tile_vectors
        unsigned int vectors
        unsigned int key_bytes
        unsigned int keys

    cdef cppclass ReadJob:
        const void* pages
        uint64_t vectors
        uint64_t* sum
        unsigned int* finished
        uint64_t* answer

    cdef cppclass FillJob:
        uint64_t* pages
        uint64_t words
        uint64_t page_words
        uint64_t page_bytes
        uint64_t seed

cdef extern from "bit_jobs.h" namespace "morphogen" nogil:
    cdef enum:
        kGroupPages
        kGroupBytes
        kLeafGroups
        kBitKernels
        kWidestBitKeys
        kTransposeThreads
        kExpandThreads

    const int kBitKeys[3]

    cdef cppclass BitShape:
        unsigned int threads

    BitShape bit_shape(int keys)
    unsigned int tile_vectors(const BitShape& shape)

    cdef cppclass TransposeJob:
        const void* pages
        void* bit_pages
        uint64_t num_pages
        uint64_t first_group
        uint64_t groups
        unsigned int vectors

    cdef cppclass ExpandJob:
        const void* packed_keys
        void* selection
        uint64_t first_leaf
        uint64_t leaves
        unsigned int key_bytes
        unsigned int keys
        unsigned int key_slots
        unsigned int key_blocks
        unsigned int log_leaves

    cdef cppclass BitJob:
        const void* bit_pages
        const void* selection
        void* accumulators
        unsigned int* finished
        void* answers
        uint64_t groups_per_run
        unsigned int longer_runs
        unsigned int runs
        unsigned int tiles
        unsigned int tile_vectors
        unsigned int vectors
        unsigned int keys

cdef extern from "host_kernels.h" namespace "morphogen" nogil:
    cdef enum class ReadOrder(int):
        memory
        rows

    cdef cppclass ScanJob:
        const uint8_t* keys
        size_t key_bytes
        size_t key_count
        uint64_t first_leaf
        const uint8_t* body
        const uint8_t* tail
        uint64_t page_count
        size_t page_size
        ReadOrder read_order
        bint whole_vectors
        bint body_is_mapped

    cdef enum:
        kGenPairs

    cdef cppclass KeyPair:
        uint64_t index
        const uint8_t* entropy
        uint8_t* keys[2]

    cdef cppclass HostKernels:
        const char* name
        void (*generate)(const KeyPair* pairs, int count, int log_num_pages) noexcept nogil
        void (*expand)(const uint8_t* key, uint64_t first_leaf, uint64_t count,
                       uint8_t* out) noexcept nogil

    const HostKernels* const* compiled_kernels()
    bint is_supported(const HostKernels& kernels)

cdef extern from "patch.h" namespace "morphogen" nogil:
    cdef cppclass PatchPages:
        uint64_t first_leaf
        const int64_t* indices
        const uint8_t* pages
        size_t count
        size_t page_size

    void add_selected(const PatchPages& patch, const HostKernels& kernels, const uint8_t* key,
                      uint8_t* answer)

cdef extern from "read_order.h" namespace "morphogen" nogil:
    cdef cppclass ReadOrderChoice:
        ReadOrder order
        bint measured

    ReadOrderChoice preferred_read_order(const HostKernels& kernels) except +
    ReadOrder measure_read_order(const HostKernels& kernels) except +
    bint takes_whole_vectors()

cdef extern from "host_scanner.h" namespace "morphogen" nogil:
    cdef cppclass HostScanner:
        HostScanner(const HostKernels& kernels, size_t threads) except +
        size_t threads() const
        size_t scratch_bytes() const
        void answer(const ScanJob& job, uint8_t* out) except +
        uint64_t read(const uint8_t* data, size_t bytes) except +

cdef extern from "hash_table.h" namespace "morphogen" nogil:
    uint64_t scaled(uint64_t word, uint64_t range)
    void prefetch(const void* at)

cdef extern from "blake2b.h" namespace "morphogen" nogil:
    cdef cppclass Blake2b:
        Blake2b()
        Blake2b(size_t digest_bytes, const uint8_t* key, size_t key_bytes, const uint8_t* salt,
                const uint8_t* person)
        void hash(const uint8_t* message, size_t bytes, uint8_t* digest) const

cdef extern from "sha256.h" namespace "morphogen" nogil:
    cdef enum:
        kShaBytes

    cdef cppclass ShaKernel:
        const char* name

    const ShaKernel* const* compiled_sha_kernels()
    bint is_sha_supported(const ShaKernel& kernel)
    void sha256(const ShaKernel& kernel, const uint8_t* message, size_t size, uint8_t* digest)

cdef extern from "page_tree.h" namespace "morphogen" nogil:
    void hash_leaves(const ShaKernel& kernel, uint64_t first, const uint8_t* contents,
                     ptrdiff_t stride, size_t pages, size_t content_bytes, uint8_t* leaves)
    void hash_pairs(const ShaKernel& kernel, const uint8_t* nodes, size_t pairs, uint8_t* parents)
    size_t climb(const ShaKernel& kernel, uint8_t* nodes, size_t count, unsigned int levels)
    void hash_path(const ShaKernel& kernel, const uint8_t* page, size_t page_bytes,
                   size_t content_bytes, uint64_t index, uint8_t* node)
    bint lead_to_cap(const ShaKernel& kernel, const uint8_t* pages, size_t page_bytes,
                     size_t content_bytes, const uint64_t* indices, size_t count,
                     const uint8_t* cap)
