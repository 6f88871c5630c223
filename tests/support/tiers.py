"""The reasons that even --full lets a test be skipped for: the machine lacks the hardware."""

UNSUPPORTED = "this machine cannot run the instruction set"
NO_GPU = "gpu: this machine has no GPU that can be used"
