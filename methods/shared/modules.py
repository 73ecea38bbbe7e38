"""A list of modules that knows what it holds."""

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar, cast, overload

import torch

Kind = TypeVar("Kind", bound=torch.nn.Module)


class ModulesOf(torch.nn.ModuleList, Generic[Kind]):
    """torch's ModuleList, whose items are modules of one kind: torch says of them only that they are modules.

    Parameters have the names that they have in a ModuleList.
    """

    def __init__(self, modules: Iterable[Kind] = ()):
        super().__init__(modules)

    def __iter__(self) -> Iterator[Kind]:
        return cast(Iterator[Kind], super().__iter__())  # what went in

    @overload
    def __getitem__(self, idx: slice) -> "ModulesOf[Kind]": ...

    @overload
    def __getitem__(self, idx: int) -> Kind: ...

    def __getitem__(self, idx: int | slice) -> "Kind | ModulesOf[Kind]":
        return cast("Kind | ModulesOf[Kind]", super().__getitem__(idx))  # of a slice torch makes a list of the same class
