"""Reading other people's `torch.save` files without running anything in them.

A pickle is a program: loading one calls whatever it names. Published CKD files name classes of their authors' own
package, so `torch.load(weights_only=True)` refuses them. Here every name but torch's own tensor builders becomes an
inert stand-in that is created, filled and thrown away without any code of the file's choosing being called.
"""

from __future__ import annotations

import collections
import pickle
import types
from pathlib import Path
from typing import Any

import torch

from ckd_tracker_ros.network.checkpoint import CheckpointError


class Inert:
    """Stands in for any class or function that a pickle names: takes everything, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Pickle's list protocol."""

    def extend(self, items: Any) -> None:
        """Pickle's list protocol."""

    def add(self, item: Any) -> None:
        """Pickle's set protocol."""


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    **{
        ("torch", name): getattr(torch, name)
        for name in (
            "FloatStorage", "HalfStorage", "BFloat16Storage", "DoubleStorage", "LongStorage", "IntStorage",
            "ShortStorage", "CharStorage", "ByteStorage", "BoolStorage",
            "float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool",
        )
    },
}  # fmt: skip


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _ALLOWED.get((module, name), Inert)


def _load(file: Any, **kwargs: Any) -> Any:
    kwargs.pop("fix_imports", None)
    return _Unpickler(file, **kwargs).load()


# what torch.load asks of a pickle module
_RESTRICTED = types.SimpleNamespace(__name__="restricted_pickle", Unpickler=_Unpickler, load=_load)


def load_tensors(path: Path | str) -> Any:
    """What a `torch.save` file holds, on the CPU: tensors and plain containers; anything else is an `Inert`.

    Raises:
        CheckpointError: missing, or not a file that torch.save wrote.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint file {path}")
    try:
        return torch.load(path, map_location="cpu", pickle_module=_RESTRICTED, weights_only=False)
    except (
        pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, KeyError, AttributeError, IndexError,
        UnicodeDecodeError, OSError, AssertionError, MemoryError, OverflowError,
    ) as error:  # fmt: skip
        raise CheckpointError(f"{path} is not a checkpoint that torch.save wrote: {error!r}") from error
