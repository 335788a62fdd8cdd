import scipy.linalg  # noqa: F401  # loads its BLAS
import threadpoolctl

from link.blas import one_blas_thread


def threads() -> set[int]:
    return {library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"}


def test_libraries_are_held_to_one_thread_and_let_go():
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        with one_blas_thread():
            assert threads() == {1}
        assert threads() == {2}
