"""Why a test may be skipped even where none may: this machine lacks the hardware."""

UNSUPPORTED = "this machine cannot run the instruction set"
NO_GPU = "gpu: this machine has no GPU that can be used"
