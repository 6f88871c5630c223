// Tells valgrind's callgrind what to count: only what runs between begin() and end().
#include <valgrind/callgrind.h>
#include <valgrind/valgrind.h>

extern "C" {

unsigned running_on_valgrind() { return RUNNING_ON_VALGRIND; }

// From here on callgrind watches, at many times the cost; until then Python starts at full speed.
void watch() { CALLGRIND_START_INSTRUMENTATION; }

void begin() { CALLGRIND_ZERO_STATS; }

// Writes all counts since begin() to a file of its own, under a name.
void end(const char* name) { CALLGRIND_DUMP_STATS_AT(name); }
}
