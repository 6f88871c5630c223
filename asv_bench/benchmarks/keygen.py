"""Key generation, the call from Python and the operating system's random bytes included."""

from morphogen import dpf, make_query


class KeyGeneration:
    params = (2**10, 2**16, 2**25)
    param_names = ("pages",)

    def time_gen_pair(self, pages: int) -> None:
        dpf.gen(pages // 3, pages)

    def time_make_query_of_3(self, pages: int) -> None:
        make_query((0, pages // 3, pages - 1), pages)
