"""What GPUs cannot do, told without one."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class AsOnGPUs(TorchDispatchMode):
    """Refuses what a CPU multiplies and CUDA has no kernel for: sparse tensors of less than 32 bits."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        sparse = any(isinstance(arg, torch.Tensor) and arg.layout == torch.sparse_coo for arg in args)
        if sparse and "mm" in str(func) and any(a.dtype.itemsize < 4 for a in args if isinstance(a, torch.Tensor)):
            raise NotImplementedError(f"{func} of sparse tensors in half precision is not implemented on GPUs")
        return func(*args, **(kwargs or {}))
