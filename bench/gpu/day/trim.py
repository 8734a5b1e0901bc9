"""Cut a wheel down to one GPU and one Python: `trim.py WHEEL FOLDER --capability 90 --tag cp312`.

A binary for GPUs carries machine code for every compute capability, in containers ("fat binaries") of which the driver
takes the one that fits. The others are overwritten with zeros, which compress to nothing; nothing else moves. Extension
modules of other Pythons are left out. The machine with a GPU can be sent 64 MiB, and CV-CUDA's wheel is twice that.
"""

from __future__ import annotations

import argparse
import re
import struct
import sys
import zipfile
from pathlib import Path

MAGIC = struct.pack("<IHH", 0xBA55ED50, 1, 16)  # of a container: magic, version, size of its header
_MODULE = re.compile(r"\.cpython-(\d+t?)-")


def trimmed(content: bytes, capability: int) -> tuple[bytes, int]:
    """A binary without the device code of other compute capabilities.

    Args:
        content: an ELF file, or anything else, which is left as it is.
        capability: such as 90.

    Returns:
        Bytes of the same length, and how many of them were overwritten.

    Raises:
        ValueError: a container is not built as expected, or holds other capabilities and not this one.
    """
    out, erased, at = bytearray(content), 0, content.find(MAGIC)
    while at >= 0:
        (size,) = struct.unpack_from("<Q", content, at + 8)
        place, end = at + 16, at + 16 + size
        if end > len(content):
            raise ValueError(f"the container at {at} ends at {end}, beyond the file's {len(content)} bytes")
        entries = []
        while place < end:
            kind, _, header, payload = struct.unpack_from("<HHIQ", content, place)
            (arch,) = struct.unpack_from("<I", content, place + 28)
            if kind not in (1, 2) or not 32 <= header <= 4096 or place + header + payload > end:
                raise ValueError(f"the entry at {place} is not built as expected: {kind=}, {header=}, {payload=}")
            entries.append((kind, arch, place + header, payload))
            place += header + payload
        fits = any(kind == 2 and arch == capability for kind, arch, _, _ in entries)
        for kind, arch, start, length in entries:
            # A container without code for it (of a library that other capabilities need) is not run there.
            if fits and (kind, arch) != (2, capability):
                out[start : start + length] = bytes(length)
                erased += length
        at = content.find(MAGIC, end)
    return bytes(out), erased


def trim(wheel: Path, folder: Path, capability: int, tag: str) -> Path:
    """Writes the wheel, cut down, into the folder.

    Args:
        wheel: of any size.
        folder: where the result goes, under the same name.
        capability: of the GPU.
        tag: of Python, such as "cp312".

    Returns:
        The result.
    """
    target = folder / wheel.name
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_LZMA) as out:
        names = []
        for item in source.infolist():
            module = _MODULE.search(item.filename)
            if item.is_dir() or (module and f"cp{module[1]}" != tag) or item.filename.endswith(".dist-info/RECORD"):
                continue
            content = source.read(item)
            if content.startswith(b"\x7fELF"):
                content, _ = trimmed(content, capability)
            out.writestr(item.filename, content)
            names.append(item.filename)
        record = next(item.filename for item in source.infolist() if item.filename.endswith(".dist-info/RECORD"))
        out.writestr(record, "".join(f"{name},,\n" for name in (*names, record)))
    return target


def main(arguments: list[str] | None = None) -> int:
    """Trims one wheel and says what it was and is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--capability", type=int, required=True, help="such as 90")
    parser.add_argument("--tag", required=True, help="of Python, such as cp312")
    options = parser.parse_args(arguments)
    made = trim(options.wheel, options.folder, options.capability, options.tag)
    print(f"{made.name}: {options.wheel.stat().st_size >> 20} MiB, now {made.stat().st_size >> 20}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
