"""Which sequences of a benchmark have which difficulty: occlusion, low light, thermal crossover ..."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

FOLDERS = ("attributes", "AttriSeqsTxt", "attr_txt")
ORDER, NAMES = "Attributes_order.txt", "SequencesName.txt"
LASHER = "NO PO TO HO MB LI HI AIV LR DEF BC SA CM TC FL OV FM SV ARC".split()


class AttributeFileError(ValueError):
    """A file of attributes that cannot be used; names it and what is expected."""


def read_attributes(root: Path, sequences: Iterable[str]) -> dict[str, list[str]]:
    """Attribute -> its sequences; empty where the data set gives none.

    Two forms, in one of `FOLDERS` of the data set or beside it: LasHeR's `<sequence>.txt`, a line of 0 and 1 in the
    order of `ORDER` (in that folder or beside it; without it, that of LasHeR), and RGBT234's `<attribute>.txt`, a line
    of 0 or 1 for each line of `NAMES`.

    Raises:
        AttributeFileError: a missing file, or one that is not like that.
    """
    places = [above / name for above in (root, root.resolve().parent) for name in FOLDERS]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        return {}
    if (folder / NAMES).is_file():
        flagged = _by_attribute(folder)
    else:
        flagged = _by_sequence(folder, sequences)
    return {name: [each for each in sequences if each in members] for name, members in flagged.items()}


def _by_attribute(folder: Path) -> dict[str, set[str]]:
    names = folder.joinpath(NAMES).read_text(encoding="utf-8-sig").split()
    flagged = {}
    for file in sorted(folder.glob("*.txt")):
        if file.name != NAMES:
            flags = _flags(file)
            if len(flags) > len(names):
                raise AttributeFileError(
                    f"{file} has {len(flags)} flags; expected: at most {len(names)}, as in {NAMES}"
                )
            flagged[file.stem] = {name for name, flag in zip(names, flags) if flag}
    return flagged


def _by_sequence(folder: Path, sequences: Iterable[str]) -> dict[str, set[str]]:
    order_file = next((place / ORDER for place in (folder, folder.parent) if (place / ORDER).is_file()), None)
    order = LASHER if order_file is None else re.split(r"[,\s]+", order_file.read_text(encoding="utf-8-sig").strip())
    flagged: dict[str, set[str]] = {name: set() for name in order}
    for sequence in sequences:
        file = folder / f"{sequence}.txt"
        if not file.is_file():
            raise AttributeFileError(f"{file} is missing; expected: a line of 0 and 1 for each sequence")
        flags = _flags(file)
        if len(flags) != len(order):
            raise AttributeFileError(f"{file} has {len(flags)} flags; expected: {len(order)}, named in {ORDER}")
        for name, flag in zip(order, flags):
            if flag:
                flagged[name].add(sequence)
    return flagged


def _flags(file: Path) -> list[bool]:
    words = re.split(r"[,\s]+", file.read_text(encoding="utf-8-sig").strip().strip(","))
    if not set(words) <= {"0", "1"}:
        wrong = next(word for word in words if word not in ("0", "1"))
        raise AttributeFileError(f"{file} holds {wrong!r}; expected: 0 and 1")
    return [word == "1" for word in words]
