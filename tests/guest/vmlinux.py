#!/usr/bin/python3
"""Takes the kernel out of a bzImage, since qemu starts an uncompressed one fastest: vmlinux.py BZIMAGE VMLINUX.

The header says where the payload is. Source: Linux, Documentation/arch/x86/boot.rst, protocol 2.08.
"""

import lzma
import struct
import sys

SETUP_SECTORS, PAYLOAD = 0x1F1, 0x248
XZ = b"\xfd7zXZ\x00"


def main(source, target):
    with open(source, "rb") as file:
        image = file.read()
    offset, _ = struct.unpack_from("<II", image, PAYLOAD)
    start = (image[SETUP_SECTORS] + 1) * 512 + offset
    if not image.startswith(XZ, start):
        sys.exit(f"{source}: the payload is not xz")
    # The payload ends with its length, which is no part of the stream.
    kernel = lzma.LZMADecompressor().decompress(image[start:])
    if not kernel.startswith(b"\x7fELF"):
        sys.exit(f"{source}: the payload is no ELF file")
    with open(target, "wb") as file:
        file.write(kernel)


main(*sys.argv[1:])
