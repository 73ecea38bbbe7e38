"""What a file is, told from its bytes, and its text in whatever encoding it was written.

People hand over what a program left behind. A workbook, an archive or a checkpoint gets one line that names it and says how
to get at the numbers; nothing is unpacked or unpickled here. Text may be UTF-8, UTF-16 or UTF-32 with a byte-order mark (a
spreadsheet's "Unicode text"), UTF-16 without one, or Windows-1252, and its lines may end as on any system.
"""

import io
import pickletools
import re
import sys
import zipfile
from pathlib import Path

from bench.errors import BenchError, reading
from bench.system.text_files import MARKS

MOST_BYTES = 64 * 2**20  # a matrix of 1000 tasks, printed with every digit, has a third of this
STANDARD_INPUT = "-"
NUMPY = b"\x93NUMPY"

_TO_CSV = "export the sheet as CSV"
_SAVE_ARRAY = "write the matrix alone, with numpy.save or as CSV"
_UNPACK = "unpack it and give the file inside"
_PICTURE = "the numbers of a picture cannot be read; give them as CSV"
_STARTS = (  # first bytes, what such a file is, what to do
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook or other Office file (.xls, .doc)", _TO_CSV),
    (b"\x1f\x8b", "compressed with gzip", _UNPACK),
    (b"BZh", "compressed with bzip2", _UNPACK),
    (b"\xfd7zXZ\x00", "compressed with xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", _SAVE_ARRAY),
    (b"MATLAB 5.0", "a MATLAB file", "write the matrix with writematrix(A, 'matrix.csv')"),
    (b"PAR1", "a Parquet file", "write it as CSV (pandas: read_parquet, to_csv)"),
    (b"ARROW1", "a Feather file", "write it as CSV (pandas: read_feather, to_csv)"),
    (b"FEA1", "a Feather file", "write it as CSV (pandas: read_feather, to_csv)"),
    (b"SQLite format 3\x00", "an SQLite database", "export the table as CSV"),
    (b"%PDF", "a PDF document", "copy the table out of it into a CSV file"),
    (b"\x89PNG", "a PNG picture", _PICTURE),
    (b"\xff\xd8\xff", "a JPEG picture", _PICTURE),
    (b"GIF8", "a GIF picture", _PICTURE),
    (b"\x7fELF", "a program", _SAVE_ARRAY),
    (b"{\\rtf", "an RTF document", "copy the table out of it into a CSV file"),
)
_PICKLED = ("a Python pickle", f"unpickling runs what is in the file, so it is never done: {_SAVE_ARRAY}")
_CHECKPOINT = ("a PyTorch checkpoint (a pickle)", f"unpickling runs what is in the file, so it is never done: {_SAVE_ARRAY}")
_TEXT_PICKLE = re.compile(rb"[(\]}ld]{1,2}p?\d*\n|\(?c[\w.]+\n\w+\n")
_MARKUP = re.compile(r"\s*(<\?xml|<!doctype|<html|<table|<svg|<!--)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def read_bytes(path: Path) -> bytes:
    """All of a file, or of standard input if the path is "-"."""
    with reading(path, errors=(OSError, ValueError)):  # ValueError: a NUL in the name
        if str(path) == STANDARD_INPUT:
            data = sys.stdin.buffer.read(MOST_BYTES + 1)
        elif path.is_dir():
            raise BenchError(f"{path}: is a folder; give the file in it that holds the matrix (for own runs: bench table {path})")
        else:
            with open(path, "rb") as file:
                data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise BenchError(f"{path}: is larger than {MOST_BYTES >> 20} MB; no accuracy matrix is, give the matrix alone")
    return data


def text_of(data: bytes, where: str) -> tuple[str, list[str]]:
    """(the text with plain line ends, notes on how it was read); BenchError, naming what it is, if it is no text."""
    refuse(data, where)
    text, encoding = _decoded(data, where)
    if _CONTROL.search(text):
        raise BenchError(f"{where}: is a binary file of an unknown kind; {_SAVE_ARRAY}")
    if _MARKUP.match(text):
        raise BenchError(f"{where}: is a web page or other XML; copy its table into a CSV file")
    guessed = encoding == "Windows-1252"
    return text.replace("\r\n", "\n").replace("\r", "\n"), [f"text read as {encoding}"] if guessed else []


def refuse(data: bytes, where: str) -> None:
    """An error for what has a name, but no matrix that could be read."""
    found = _recognised(data)
    if found:
        raise BenchError(f"{where}: is {found[0]}; {found[1]}")


def _recognised(data: bytes) -> tuple[str, str] | None:
    if not data.strip():
        return "empty", "a matrix of accuracies is expected"
    for start, name, advice in _STARTS:
        if data.startswith(start):
            return name, advice
    if data.startswith(b"PK\x03\x04") or data.startswith(b"PK\x05\x06"):
        return _zip_file(data)
    if data[257:262] == b"ustar":
        return "a tar archive", _UNPACK
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data):
        return "a safetensors file", _SAVE_ARRAY
    if b"brain.Event:2" in data[:64]:
        return "an event file of TensorBoard", "download the numbers as CSV there"
    if (data[:1] == b"\x80" and data[1:2] <= b"\x05") or (_TEXT_PICKLE.match(data) and _is_pickle(data)):
        return _CHECKPOINT if b"torch" in data[:4096] else _PICKLED
    return None


def _is_pickle(data: bytes) -> bool:
    """Is it a pickle from its first byte to its last? Nothing is built from it."""
    try:
        return [code.name for code, *_ in pickletools.genops(data)][-1] == "STOP"
    except Exception:  # whatever text makes of itself as a pickle
        return False


def _zip_file(data: bytes) -> tuple[str, str]:
    try:
        names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return "a damaged ZIP archive or workbook", "make it again"
    if any(name.startswith("xl/") for name in names):
        return "an Excel workbook (.xlsx)", _TO_CSV
    if any(name.startswith(("word/", "ppt/")) for name in names):
        return "an Office document", "copy the table out of it into a CSV file"
    if "mimetype" in names and "content.xml" in names:
        return "an OpenDocument file, a spreadsheet of LibreOffice for instance (.ods)", _TO_CSV
    if any(name.endswith("data.pkl") for name in names):
        return _CHECKPOINT
    return "a ZIP archive", _UNPACK


def is_npz(data: bytes) -> bool:
    if not data.startswith(b"PK\x03\x04"):
        return False
    try:
        names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def _decoded(data: bytes, where: str) -> tuple[str, str]:
    for mark, encoding in MARKS.items():
        if data.startswith(mark):
            try:
                return data.decode(encoding), encoding
            except UnicodeDecodeError:
                raise BenchError(f"{where}: cannot be read (it begins as {encoding} text does, but is damaged)") from None
    try:
        text = data.decode("utf-8")
        if "\x00" not in text:
            return text, "utf-8"
    except UnicodeDecodeError:
        pass
    for encoding, zeros in (("utf-16-le", data[1::2]), ("utf-16-be", data[::2])):  # ASCII: half the bytes are 0
        if len(data) % 2 == 0 and zeros.count(0) > 0.9 * len(zeros):
            return data.decode(encoding, errors="replace"), encoding
    try:
        return data.decode("cp1252"), "Windows-1252"
    except UnicodeDecodeError:
        raise BenchError(f"{where}: is a binary file of an unknown kind; {_SAVE_ARRAY}") from None
