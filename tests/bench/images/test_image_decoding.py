"""What is right for every kind of image file: the same picture, written in many ways, gives the same pixels."""

import struct

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from bench.errors import BenchError
from bench.images.decoding import decode
from bench.images.files import ImageFiles

RAMP = np.tile(np.arange(0, 256, 17, dtype=np.uint8), (4, 1))  # black to white in 16 steps


def grey(path) -> np.ndarray:
    """(height, width) of a picture whose channels are equal."""
    pixels = decode(path)
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and (pixels == pixels[:, :, :1]).all()
    assert pixels.flags.writeable
    return pixels[:, :, 0]


def save(path, array, mode=None, **options):
    image = Image.fromarray(array) if mode is None else Image.fromarray(array).convert(mode)
    image.save(path, **options)
    return path


SIXTEEN = RAMP.astype(np.uint16) * 257


@pytest.mark.parametrize("name", ["ramp.png", "ramp.tif", "ramp.jp2"])
def test_sixteen_bit_grey_is_what_eight_bit_grey_is(tmp_path, name):
    options = {"irreversible": False} if name.endswith("jp2") else {}
    assert (grey(save(tmp_path / name, SIXTEEN, **options)) == RAMP).all()


def test_sixteen_bit_grey_in_the_other_byte_order(tmp_path):
    path = tmp_path / "big.tif"
    Image.frombytes("I;16B", (16, 4), SIXTEEN.astype(">u2").tobytes()).save(path)
    assert (grey(path) == RAMP).all()


def test_pgm_is_scaled_by_the_white_that_it_states(tmp_path):
    for white in (255, 1000, 65535):
        values = np.round(RAMP / 255 * white).astype(">u2" if white > 255 else np.uint8)
        path = tmp_path / f"{white}.pgm"
        path.write_bytes(f"P5 16 4 {white}\n".encode() + values.tobytes())
        assert np.abs(grey(path).astype(int) - RAMP).max() <= 1


def test_sixteen_bit_grey_with_transparency(tmp_path):
    import zlib

    rows = b"".join(b"\0" + np.stack([row, np.full(16, 65535)], 1).astype(">u2").tobytes() for row in SIXTEEN)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path = tmp_path / "la16.png"
    header = struct.pack(">IIBBBBB", 16, 4, 16, 4, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert (grey(path) == RAMP).all()


def tiff(path, values: np.ndarray, bits: int, sample_format: int, photometric: int = 1) -> None:
    """A TIFF of one strip, byte by byte, as a microscope writes it; sample format 1: whole, 2: signed, 3: floating point."""
    data = values.tobytes()
    entries = [(256, 4, 16), (257, 4, 4), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8), (277, 3, 1),
               (278, 4, 4), (279, 4, len(data)), (339, 3, sample_format)]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *one[:2], 1, one[2]) for one in entries)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + b"\0\0\0\0")


def test_twelve_bits_are_scaled_by_their_own_white(tmp_path):
    values = np.round(RAMP / 255 * 4095).astype(int)
    packed = bytearray()
    for one, other in values.reshape(-1, 2):
        packed += bytes([one >> 4, (one & 15) << 4 | other >> 8, other & 255])
    path = tmp_path / "twelve.tif"
    tiff(path, np.frombuffer(bytes(packed), np.uint8), 12, 1)
    assert np.abs(grey(path).astype(int) - RAMP).max() <= 1


def test_sixteen_bits_of_which_zero_is_white(tmp_path):
    path = tmp_path / "negative.tif"
    tiff(path, 65535 - SIXTEEN, 16, 1, photometric=0)
    assert (grey(path) == RAMP).all()


@pytest.mark.parametrize(
    ("values", "bits", "sample_format", "kind"),
    [
        (RAMP.astype(np.uint32) * 2**24, 32, 1, "32-bit"),
        (RAMP.astype(np.int32), 32, 2, "32-bit"),
        ((RAMP / 255).astype(np.float32), 32, 3, "floating-point"),
        (RAMP.astype(np.int16), 16, 2, "signed"),
    ],
)
def test_values_whose_white_is_not_known_are_refused_by_name(tmp_path, values, bits, sample_format, kind):
    path = tmp_path / "grey.tif"
    tiff(path, values, bits, sample_format)
    with pytest.raises(ValueError, match=f"{kind}.*save it with 8 bits"):
        decode(path)

    def complain(file, why):
        return BenchError(f"{file}: {why}")

    source = ImageFiles(tmp_path, ["grey.tif"], np.zeros(1, int), tmp_path / "cache", complain)
    with pytest.raises(BenchError, match=r"grey.tif: .*save it with 8 bits a channel"):
        source.read(np.array([0]))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 3.0)])
def test_floating_point_values_are_scaled_where_the_file_states_their_range(tmp_path, low, high):
    tags = ImageFileDirectory_v2()
    for tag, value in ((340, low), (341, high)):
        tags.tagtype[tag] = 11
        tags[tag] = value
    path = tmp_path / "float.tif"
    Image.fromarray((low + RAMP / 255 * (high - low)).astype(np.float32)).save(path, tiffinfo=tags)
    assert (grey(path) == RAMP).all()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_eight_bit_modes_show_the_same_picture(tmp_path, mode, suffix):
    if (mode, suffix) == ("P", ".tif"):
        pytest.skip("a palette of grey levels is stored as such by PNG only")
    assert (grey(save(tmp_path / f"ramp{suffix}", RAMP, mode)) == RAMP).all()


def test_black_and_white_and_cmyk_and_a_transparent_palette(tmp_path):
    two = np.where(RAMP > 127, 255, 0).astype(np.uint8)
    assert (grey(save(tmp_path / "two.png", two, "1")) == two).all()
    cmyk = decode(save(tmp_path / "cmyk.tif", RAMP, "CMYK"))
    assert (cmyk[:, :, 0] == RAMP).all()
    printed = decode(save(tmp_path / "cmyk.jpg", np.kron(RAMP, np.ones((8, 8), np.uint8)), "CMYK", quality=100))
    assert np.abs(printed[::8, ::8, 0].astype(int) - RAMP).max() < 8, "Adobe's CMYK is stored inverted"
    see_through = Image.fromarray(RAMP).convert("P")
    see_through.save(tmp_path / "clear.png", transparency=15)
    assert (grey(tmp_path / "clear.png") == RAMP).all(), "transparency is dropped, as torchvision's image folders do"


def test_of_several_frames_the_first_is_read(tmp_path):
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (200, 50)]
    for name in ("frames.gif", "frames.tif", "frames.webp"):
        options = {"lossless": True} if name.endswith("webp") else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert (grey(tmp_path / name) == 200).all()


@pytest.mark.parametrize("suffix", [".jpg", ".jfif", ".jpe", ".png", ".webp"])
def test_pictures_are_turned_as_the_camera_says_where_they_are_peoples_own(tmp_path, suffix):
    picture = Image.new("RGB", (48, 32))
    picture.paste((255, 255, 255), (0, 0, 16, 16))  # a white corner at the top left
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    path = tmp_path / f"photo{suffix}"
    picture.save(path, {".jpg": "JPEG", ".jfif": "JPEG", ".jpe": "JPEG"}.get(suffix), exif=exif)
    lying, upright = decode(path), decode(path, upright=True)
    assert lying.shape == (32, 48, 3) and upright.shape == (48, 32, 3)
    assert lying[4, 4, 0] > 200 and upright[4, 28, 0] > 200 and upright[4, 4, 0] < 60


def test_one_pixel_and_truncated_images(tmp_path):
    assert decode(save(tmp_path / "one.png", np.array([[77]], np.uint8))).tolist() == [[[77, 77, 77]]]
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in ("cut.png", "cut.jpg", "cut.gif", "cut.tif", "cut.webp", "cut.bmp"):
        path = save(tmp_path / name, noise)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match="not a whole image") as error:
            decode(path)
        assert "\n" not in str(error.value)


def test_images_inside_other_files_are_read_by_the_same_rules(tmp_path):
    """Parquet files hold encoded images: those come as bytes."""
    content = save(tmp_path / "ramp.png", SIXTEEN).read_bytes()
    assert (grey(content) == RAMP).all()
    tiff(tmp_path / "grey.tif", RAMP.astype(np.float32), 32, 3)
    with pytest.raises(ValueError, match="floating-point"):
        decode((tmp_path / "grey.tif").read_bytes())
