"""What a file is, by how it begins, whatever it is called: for saying it where something else was wanted."""

from pathlib import Path

ZIP = b"PK\x03\x04"
# how files begin -> what they are; the first that fits
_BEGINNINGS = [
    (b"version https://git-lfs", "a pointer of Git LFS; fetch the file itself (git lfs pull)"),
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"\x89HDF\r\n", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF file"),
    (b"PAR1", "a Parquet file"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word document"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
]


def kind_of(path: Path) -> str:
    """A few words; empty where the beginning says nothing.

    >>> import tempfile; folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "a").write_bytes(b"<!DOCTYPE html><html>"), (folder / "b").write_bytes(b"")
    >>> kind_of(folder / "a"), kind_of(folder / "b")
    ('a web page; the download failed, fetch the file again', 'an empty file')
    """
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        return "an empty file"
    for beginning, what in _BEGINNINGS:
        if head.startswith(beginning):
            return what
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml", b"<!--")):
        return "a web page; the download failed, fetch the file again"
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    if start.startswith((b"{", b"[")):
        return "JSON text"
    if head.startswith(ZIP):
        return "a zip archive"
    if not set(head) - set(range(32, 127)) - set(b"\t\r\n\f"):
        return "plain text"
    return ""
