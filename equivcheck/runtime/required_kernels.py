"""The kernels of attention by name, and those that a user requires; torch is not needed to read them."""

from collections.abc import Iterable

from equivcheck.errors import UsageError
from equivcheck.numerics.dtypes import DTYPES

__all__ = ["KERNEL_NAMES", "requirement"]

KERNEL_NAMES = ("flash", "cudnn", "efficient", "math")
"""The kernels of `F.scaled_dot_product_attention`, as `--require-backend` names them."""


def requirement(texts: Iterable[str], option: str = "--require-backend") -> dict[str, str]:
    """The required kernel of each dtype.

    Args:
        texts: Each `KERNEL`, for every dtype, or `DTYPE=KERNEL`.
        option: The option that an error names.

    Raises:
        UsageError: A text is neither of the two, or two of them contradict each other.
    """
    required: dict[str, str] = {}
    for text in texts:
        dtype, separator, kernel = text.rpartition("=")
        if kernel not in KERNEL_NAMES or (separator and dtype not in DTYPES):
            raise UsageError(
                f"{option} {text!r}: KERNEL or DTYPE=KERNEL is allowed, a kernel is one of {', '.join(KERNEL_NAMES)}, "
                f"a dtype one of {', '.join(DTYPES)}"
            )
        for name in [dtype] if separator else DTYPES:
            if required.get(name, kernel) != kernel:
                raise UsageError(
                    f"{option}: {required[name]} and {kernel} are both required in {name}: give one of them"
                )
            required[name] = kernel
    return required
