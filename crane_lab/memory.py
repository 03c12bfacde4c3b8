"""Out of memory: what does not fit at once is run in parts, on any device."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor

Result = TypeVar("Result")

#: How oneDNN and C++ say that there is no memory, which accelerate does not know.
_NO_MEMORY = ("could not create a primitive", "could not create a memory", "std::bad_alloc")


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that a smaller batch may fit, on any device."""
    return (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or should_reduce_batch_size(error)
        or (isinstance(error, RuntimeError) and str(error).startswith(_NO_MEMORY))
    )


class Memory:
    """Runs batches in parts that fit into memory; what did not fit once is not tried again.

    Attributes
    ----------
    at_once : samples that are run at once; None as long as every batch has fitted.
    """

    def __init__(self, at_once: int | None = None) -> None:
        self.at_once = at_once

    def run(
        self,
        function: Callable[[Tensor], Result],
        batch: Tensor,
        note: Callable[[str], object] = lambda text: None,
    ) -> list[Result]:
        """Return `function` of consecutive parts of a batch (samples, ...), in order.

        One part as long as that fits, then half as many samples, and so on. `note` is told if
        there was more than one, with words for a manifest.

        Raises MemoryError if a single sample does not fit.
        """
        results: list[Result] = []
        start = 0
        while start < len(batch):
            part = batch[start : start + (self.at_once or len(batch))]
            try:
                results.append(function(part))
            except Exception as error:
                if not out_of_memory(error):
                    raise
                reason = str(error).strip().partition("\n")[0]
            else:
                start += len(part)
                continue
            # Only here is the error gone, and with it what its frames kept alive.
            gc.collect()
            clear_device_cache()
            if len(part) == 1:
                raise MemoryError(
                    f"a single sample, {tuple(part.shape)}, does not fit into memory ({reason}); "
                    "use shorter windows, a 16-bit type, or a device with more memory"
                )
            self.at_once = len(part) // 2
            warnings.warn(
                f"out of memory with {len(part)} samples at once; going on with {self.at_once} for "
                f"the rest of the run ({reason})",
                stacklevel=2,
            )
        if len(results) > 1:
            note(f"out of memory: at most {self.at_once} samples at once instead of {len(batch)}")
        return results
