"""The recommendation: worked out from rounds, and only if there is more than noise."""

from __future__ import annotations

import numpy as np
import pytest

from morphogen.bench.recommend import (
    ALIKE,
    BEATEN,
    FASTER,
    HOLDS,
    NOT_MEASURED,
    SLOWER,
    TOO_FEW,
    CapVerdict,
    choose,
    describe_cap,
    describe_choice,
    judge_cap,
    recommend,
)

ROUNDS = 15
NOISE = np.random.default_rng(0).uniform(0.97, 1.03, size=(8, ROUNDS))


def times(**ms: float) -> dict[str, list[float]]:
    """Rounds with 3% of noise in each time, and a machine half as fast in every third."""
    load = np.where(np.arange(ROUNDS) % 3 == 0, 2.0, 1.0)
    return {
        name.replace("_", "-"): (value * load * NOISE[at]).tolist()
        for at, (name, value) in enumerate(ms.items())
    }


def test_the_fastest_beyond_the_noise_is_chosen():
    choice = choose(8, times(single=18, chunks_2=10, chunks_4=7, chunks_8=6), "chunks-2")
    assert choice.best == "chunks-8"
    assert choice.sure
    verdicts = {found.name: found.verdict for found in choice.comparisons}
    assert verdicts == {"chunks-8": FASTER, "chunks-4": FASTER, "single": SLOWER}
    best = choice.comparisons[0]
    assert best.low is not None
    assert best.high is not None
    assert best.low < 10 / 6 < best.high
    assert best.low <= best.speedup <= best.high
    assert describe_choice(choice) == (
        f"chunks-8: {best.speedup:.2f}x as fast as the default, chunks-2 "
        f"({best.low:.2f} to {best.high:.2f} at 95%)"
    )


def test_a_lead_within_the_noise_leaves_the_default():
    """0.1% faster in the median is nothing if rounds differ by 3%."""
    choice = choose(8, times(single=18, chunks_2=10, chunks_4=9.99), "chunks-2")
    assert choice.best == "chunks-2"
    narrower = choice.against("chunks-4")
    assert narrower is not None
    assert narrower.verdict == ALIKE
    assert describe_choice(choice) == "chunks-2, the default; within the noise of it: chunks-4"


def test_noise_alone_never_wins():
    """The same work against itself, in many runs: no more winners than the confidence allows."""
    rng = np.random.default_rng(1)
    runs = 400
    won = 0
    for _ in range(runs):
        drawn = rng.lognormal(sigma=0.2, size=(6, 12))
        same = {f"chunks-{at}": list(row) for at, row in enumerate(drawn)}
        won += choose(8, same, "chunks-0").best != "chunks-0"
    assert won / runs <= 0.05


def test_load_that_hits_both_alike_hides_nothing():
    """5% faster is seen, though rounds differ by a factor of two."""
    choice = choose(8, times(chunks_2=10, chunks_4=9), "chunks-2")
    assert choice.best == "chunks-4"


def test_the_default_is_best():
    choice = choose(32, times(single=100, chunks_2=60, chunks_32=10), "chunks-32")
    assert choice.best == "chunks-32"
    words = describe_choice(choice)
    assert words.startswith(
        "chunks-32, the default; all others are slower, chunks-2 the least: 0.1"
    )


def test_wrong_answers_are_never_chosen():
    ms = times(chunks_2=10, chunks_4=1, chunks_8=9)
    choice = choose(8, ms, "chunks-2", wrong=["chunks-4"])
    assert choice.best == "chunks-8"
    assert choice.left_out == ("chunks-4",)
    assert choice.against("chunks-4") is None


def test_a_wrong_default_leaves_nothing_to_recommend():
    choice = choose(8, times(chunks_2=10, chunks_4=1), "chunks-2", wrong=["chunks-2"])
    assert choice.best is None
    assert not choice.sure
    assert choice.comparisons == ()
    assert describe_choice(choice) == "none: the answers of the default, chunks-2, were wrong"


def test_too_few_rounds_say_so():
    choice = choose(8, {"chunks-2": [10.0] * 3, "chunks-4": [1.0] * 3}, "chunks-2")
    assert choice.best == "chunks-2"
    assert not choice.sure
    assert choice.comparisons[0].verdict == TOO_FEW
    assert choice.rounds_needed == 6
    assert describe_choice(choice) == (
        "not sure: 3 rounds are too few to tell strategies from the default, chunks-2; it takes 6"
    )
    enough = choose(8, {"chunks-2": [10.0] * 6, "chunks-4": [1.0] * 6}, "chunks-2")
    assert enough.best == "chunks-4"


def test_more_rivals_take_more_rounds():
    few = choose(8, times(chunks_2=10, chunks_4=9), "chunks-2")
    many = choose(8, times(chunks_2=10, **{f"chunks_{n}": 9 for n in range(4, 9)}), "chunks-2")
    assert few.rounds_needed < many.rounds_needed


def test_nothing_else_to_choose():
    choice = choose(1, times(chunks_2=10), "chunks-2")
    assert (choice.best, choice.sure, choice.comparisons) == ("chunks-2", True, ())
    assert describe_choice(choice) == "chunks-2, the default: no other strategy does other work"


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        ({"chunks-4": [1.0]}, "'chunks-2' must be among"),
        ({"chunks-2": [1.0], "chunks-4": [1.0, 2.0]}, "the same rounds, at least one, not"),
        ({"chunks-2": []}, "the same rounds, at least one, not"),
    ],
)
def test_wrong_rounds_are_refused(ms, words):
    with pytest.raises(ValueError, match=words):
        choose(8, ms, "chunks-2")


# The cap


def judge(
    ms: dict[str, list[float]],
    *,
    wider_exist: bool = True,
    on_gpu: bool = True,
    **options: list[str],
) -> CapVerdict:
    widths = {name: 1 if name == "single" else int(name.rpartition("-")[2]) for name in ms}
    default = "chunks-2" if on_gpu else "chunks-32"
    return judge_cap(
        8, widths, ms, default, wider_exist=wider_exist, wider_wanted=on_gpu, **options
    )


def test_the_cap_holds():
    cap = judge(times(single=18, chunks_2=10, chunks_4=12, chunks_8=30))
    assert (cap.verdict, cap.cap, cap.widths) == (HOLDS, 2, (1, 4, 8))
    assert describe_cap(cap) == "2 holds: of the widths 1, 4, 8 none is faster beyond the noise"


def test_the_cap_is_beaten():
    cap = judge(times(single=18, chunks_2=10, chunks_4=7, chunks_8=30))
    assert cap.verdict == BEATEN
    assert describe_cap(cap).startswith("2 is beaten by chunks-4: 1.4")


def test_a_single_query_may_beat_the_cap():
    assert judge(times(single=8, chunks_2=10, chunks_4=12)).verdict == BEATEN


@pytest.mark.parametrize(
    ("ms", "options", "why"),
    [
        ({"single": 18, "chunks_2": 10}, {"wider_exist": False}, "this engine has no wider chunks"),
        ({"single": 18, "chunks_2": 10}, {}, "no wider chunk ran"),
        (
            {"single": 18, "chunks_2": 10, "chunks_4": 5},
            {"wrong": ["chunks-4"]},
            "no wider chunk ran, of right answers",
        ),
        (
            {"single": 18, "chunks_2": 10, "chunks_4": 5},
            {"wrong": ["chunks-2"]},
            "the default's answers were wrong",
        ),
        ({"chunks_32": 10}, {"on_gpu": False}, "no other width ran"),
    ],
)
def test_the_cap_was_not_measured(ms, options, why):
    cap = judge(times(**ms), **options)
    assert cap.verdict == NOT_MEASURED
    assert cap.why == why
    assert describe_cap(cap).startswith(f"not measured whether a width of {cap.cap} is best: ")


def test_too_few_rounds_do_not_judge_the_cap():
    cap = judge({"chunks-2": [1.0] * 2, "chunks-4": [2.0] * 2})
    assert (cap.verdict, cap.why) == (NOT_MEASURED, "2 rounds are too few, it takes 6")


def test_a_cpu_needs_no_wider_chunks_for_its_width():
    """Its width is the widest that there is; it is compared with narrower ones."""
    cap = judge(times(single=100, chunks_16=12, chunks_32=10), wider_exist=False, on_gpu=False)
    assert (cap.verdict, cap.cap, cap.widths) == (HOLDS, 32, (1, 16))
    cap = judge(times(single=100, chunks_16=8, chunks_32=10), wider_exist=False, on_gpu=False)
    assert cap.verdict == BEATEN


def test_throughput_is_of_the_largest_batch_and_latency_of_a_lone_query():
    cap = judge(times(chunks_2=10, chunks_4=12))
    choices = [choose(q, times(chunks_2=10, chunks_4=12), "chunks-2") for q in (4, 1, 16, 8)]
    found = recommend(choices, cap)
    assert found.latency is not None
    assert (found.throughput.q, found.latency.q) == (16, 1)
    assert found.by_batch == tuple(choices)
    assert recommend(choices[2:], cap).latency is None
