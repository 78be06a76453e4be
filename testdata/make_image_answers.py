"""Makes the pictures that decoding and resizing are held to, and what Pillow makes of them.

    venv="$(sh scripts/venv.sh images testdata/requirements-images.txt)"
    "$venv/bin/python" testdata/make_image_answers.py

writes testdata/transform/image/: small files of every kind that is accepted (and some that are not), `answers/*.png` with
what Pillow makes of them, and `cases.json`, which says what was done: EXIF orientation applied, converted to RGB or L,
resized, cut out of the middle as torchvision's CenterCrop does it. `photo_640x480.jpg` is what the benchmark decodes.
`made_with` has the versions. Everything is drawn from fixed seeds.
"""

import json
import random
import struct
import zlib
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageOps, features
from PIL import __version__ as pillow_version

FOLDER = Path(__file__).resolve().parent / "transform" / "image"
ANSWERS = FOLDER / "answers"
FILTERS = {
    name: Image.Resampling[name.upper()] for name in ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
}
ORIENTATION = 0x0112


# Drawing


def noise(random_source, width, height, mode="RGB"):
    """Returns a picture of independent random pixels."""
    channels = len(mode)
    return Image.frombytes(mode, (width, height), random_source.randbytes(width * height * channels))


def scene(seed, width, height):
    """Returns a picture with what tells filters apart: ramps, thin strokes, hard edges, saturated colours, some noise."""
    source = random.Random(seed)
    ramp = Image.linear_gradient("L").resize((width, height))
    radial = Image.radial_gradient("L").resize((width, height))
    picture = Image.merge("RGB", [ramp, ramp.transpose(Image.Transpose.ROTATE_180), radial])
    draw = ImageDraw.Draw(picture)
    for _ in range(6):
        x, y = source.randrange(width), source.randrange(height)
        size = source.randrange(4, max(5, height // 3))
        color = tuple(source.choice([0, 64, 255]) for _ in range(3))
        source.choice([draw.ellipse, draw.rectangle])([x, y, x + size, y + size // 2], fill=color)
    for index in range(width // 8):
        x = 2 + index * 4
        draw.line([x, height - 12, x + source.randrange(3), height - 4], fill=source.choice([(0, 0, 0), (255, 255, 255)]))
    corner = noise(source, width // 4, height // 4)
    picture.paste(corner, (width - width // 4, 0))
    return picture


def photo(seed, width, height):
    """Returns a picture that compresses about as a photograph does: soft forms at every scale, some edges, grain."""
    source = random.Random(seed)
    picture = Image.new("RGB", (width, height), (118, 122, 116))
    for octave, strength in enumerate([150, 110, 80, 54, 34, 20]):
        cells = 3 * 2**octave
        layer = noise(source, cells + 1, cells * height // width + 1).resize((width, height), Image.Resampling.BICUBIC)
        grey = layer.convert("L").convert("RGB")
        layer = Image.blend(grey, layer, 0.35)
        half = layer.point([value * strength // 255 for value in range(256)] * 3)
        picture = ImageChops.add(picture, half, 1, -strength // 2)
    draw = ImageDraw.Draw(picture)
    for _ in range(24):
        x, y, size = source.randrange(width), source.randrange(height), source.randrange(20, 110)
        color = tuple(source.randrange(30, 220) for _ in range(3))
        draw.line([x, y, x + size, y + source.randrange(-30, 30)], fill=color, width=2)
    grain = noise(source, width, height, "L").point([value * 3 // 255 for value in range(256)])
    return ImageChops.add(picture, Image.merge("RGB", [grain] * 3), 1, -1)


# Files that Pillow cannot write


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, color_type, rows, interlace=0, before=b"", after=b""):
    """Returns a PNG of unfiltered rows of bytes."""
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, interlace)
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", data) + after + chunk(b"IEND", b"")


def png_16(picture):
    """Returns a PNG of 16 bits a channel whose lower halves are not zero."""
    width, height = picture.size
    data = picture.tobytes()
    stride = width * len(picture.getbands())
    rows = [b"".join(bytes([value, 255 - value]) for value in data[y * stride : (y + 1) * stride]) for y in range(height)]
    color_type = {"L": 0, "RGB": 2, "LA": 4, "RGBA": 6}[picture.mode]
    return png(width, height, 16, color_type, rows)


def png_interlaced(picture):
    """Returns an RGB PNG in the seven passes of Adam7."""
    width, height = picture.size
    rows = []
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    for left, top, right, down in passes:
        for y in range(top, height, down):
            row = [picture.getpixel((x, y)) for x in range(left, width, right)]
            if row:
                rows.append(bytes(value for pixel in row for value in pixel))
    return png(width, height, 8, 2, rows, interlace=1)


def png_exif_after_data(picture, orientation):
    width, height = picture.size
    data = picture.tobytes()
    rows = [data[y * width * 3 : (y + 1) * width * 3] for y in range(height)]
    exif = exif_of(orientation).tobytes().removeprefix(b"Exif\0\0")
    return png(width, height, 8, 2, rows, after=chunk(b"eXIf", exif))


def exif_of(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def encoded(picture, format, **options):
    buffer = BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


# What Pillow makes of a file


def half_to_even(length):
    return int(round(length / 2.0))


def answer(path, mode, resize, crop, filter):
    """Does what the model's declaration says, with Pillow; the arithmetic of sizes is torchvision's. Returns the picture and
    what it was resized to.
    """
    with Image.open(path) as opened:
        picture = ImageOps.exif_transpose(opened)
    if picture.mode == "I;16":
        # Pillow cuts grey of 16 bits off at 255; colour of 16 bits it halves to the upper byte, as we do with both.
        picture = Image.frombytes("L", picture.size, picture.tobytes()[1::2])
    picture = picture.convert(mode)
    if resize is None:
        resize = [picture.height, picture.width]
    if isinstance(resize, int):
        width, height = picture.size
        short, long = min(width, height), max(width, height)
        longer = int(resize * long / short)
        size = (resize, longer) if width <= height else (longer, resize)
        picture = picture.resize(size, FILTERS[filter])
    else:
        picture = picture.resize((resize[1], resize[0]), FILTERS[filter])
    if crop is not None:
        top, left = half_to_even(picture.height - crop[0]), half_to_even(picture.width - crop[1])
        picture = picture.crop((left, top, left + crop[1], top + crop[0]))
    return picture, resize


def files():
    """Returns every accepted file by name."""
    picture, small = scene(1, 45, 35), scene(2, 24, 18)
    even = scene(6, 48, 32)
    alpha = Image.radial_gradient("L").resize(picture.size)
    see_through = picture.copy()
    see_through.putalpha(alpha)
    grey_alpha = Image.merge("LA", [picture.convert("L"), alpha])
    palette = picture.quantize(40)
    made = {
        "jpeg_444.jpg": encoded(picture, "JPEG", quality=90, subsampling=0),
        "jpeg_422.jpg": encoded(picture, "JPEG", quality=90, subsampling=1),
        "jpeg_420.jpg": encoded(picture, "JPEG", quality=90, subsampling=2),
        "jpeg_420_even.jpg": encoded(even, "JPEG", quality=75, subsampling=2),
        "jpeg_restart.jpg": encoded(picture, "JPEG", quality=85, restart_marker_rows=1),
        "jpeg_progressive.jpg": encoded(picture, "JPEG", quality=90, progressive=True),
        "jpeg_grey.jpg": encoded(picture.convert("L"), "JPEG", quality=90),
        "jpeg_grey_progressive.jpg": encoded(picture.convert("L"), "JPEG", quality=90, progressive=True),
        "jpeg_rgb.jpg": encoded(picture, "JPEG", quality=90, keep_rgb=True),
        "jpeg_cmyk.jpg": encoded(picture.convert("CMYK"), "JPEG", quality=90),
        "jpeg_tiny.jpg": encoded(scene(3, 16, 16).crop((0, 0, 3, 2)), "JPEG", quality=90, subsampling=2),
        # A width that leaves half a block of 16 pixels empty: what fills it shows in the last column.
        "jpeg_edge.jpg": encoded(scene(40, 22, 60), "JPEG", quality=30, subsampling=1),
        "jpeg_line.jpg": encoded(even.crop((0, 20, 48, 21)), "JPEG", quality=90, subsampling=2),
        "png_rgb.png": encoded(picture, "PNG", optimize=True),
        "png_rgba.png": encoded(see_through, "PNG", optimize=True),
        "png_grey.png": encoded(picture.convert("L"), "PNG", optimize=True),
        "png_grey_alpha.png": encoded(grey_alpha, "PNG", optimize=True),
        "png_grey_key.png": encoded(picture.convert("L"), "PNG", optimize=True, transparency=255),
        "png_palette.png": encoded(palette, "PNG", optimize=True),
        "png_palette_alpha.png": encoded(palette, "PNG", optimize=True, transparency=bytes(range(0, 200, 5))),
        "png_palette_2bit.png": encoded(small.quantize(4), "PNG", bits=2),
        "png_1bit.png": encoded(small.convert("1"), "PNG"),
        "png_16bit_grey.png": png_16(small.convert("L")),
        "png_16bit_rgb.png": png_16(small),
        "png_16bit_rgba.png": png_16(Image.merge("RGBA", [*small.split(), Image.radial_gradient("L").resize(small.size)])),
        "png_interlaced.png": png_interlaced(small),
        "png_animated.png": encoded(small, "PNG", save_all=True, append_images=[ImageOps.invert(small)]),
        "webp_lossy.webp": encoded(picture, "WEBP", quality=80),
        "webp_lossless.webp": encoded(picture, "WEBP", lossless=True),
        "webp_lossy_alpha.webp": encoded(see_through, "WEBP", quality=80),
        "webp_lossless_alpha.webp": encoded(see_through, "WEBP", lossless=True, exact=True),
        "webp_animated.webp": encoded(small, "WEBP", save_all=True, append_images=[ImageOps.invert(small)], lossless=True),
        "photo_640x480.jpg": encoded(photo(5, 640, 480), "JPEG", quality=90, subsampling=2),
    }
    upright = scene(4, 24, 14)
    for orientation in range(1, 9):
        exif = exif_of(orientation)
        made[f"turned_{orientation}.png"] = encoded(upright, "PNG", exif=exif, optimize=True)
    made["turned_6.jpg"] = encoded(upright, "JPEG", exif=exif_of(6), quality=95, subsampling=0)
    made["turned_5_420.jpg"] = encoded(upright, "JPEG", exif=exif_of(5), quality=90, subsampling=2)
    made["turned_8.webp"] = encoded(upright, "WEBP", exif=exif_of(8), lossless=True)
    made["turned_7_after_data.png"] = png_exif_after_data(upright, 7)
    return made


def cases(made):
    """Yields what is done with each file: file, mode, resize, crop, filter."""
    for name in made:
        if not name.startswith("photo"):
            # At its own size: what decoding alone gives.
            yield name, "RGB", None, None, "bilinear"
    for filter in FILTERS:
        # None of these sizes puts the edge of a box exactly on the middle of a pixel: there, rounding decides.
        for resize in [[13, 16], [38, 48], [40, 23]]:
            yield "png_rgb.png", "RGB", resize, None, filter
        yield "jpeg_420.jpg", "RGB", [15, 19], None, filter
        yield "png_rgb.png", "RGB", 24, [22, 19], filter
        yield "png_rgb.png", "L", 17, [16, 16], filter
    for name in ["png_grey.png", "png_rgba.png", "png_grey_alpha.png", "png_palette_alpha.png", "webp_lossless_alpha.webp"]:
        yield name, "RGB", [20, 26], None, "bicubic"
        yield name, "L", [20, 26], None, "bilinear"
    yield "png_rgb.png", "RGB", None, [22, 21], "bilinear"
    yield "turned_6.jpg", "RGB", 12, [11, 11], "bilinear"
    yield "turned_5_420.jpg", "L", 12, [11, 11], "bicubic"
    yield "webp_lossy.webp", "RGB", 24, [24, 24], "lanczos"
    yield "jpeg_cmyk.jpg", "L", 24, [24, 24], "bilinear"
    yield "photo_640x480.jpg", "RGB", 48, [42, 42], "bilinear"
    yield "photo_640x480.jpg", "RGB", None, [36, 36], "bilinear"
    yield "photo_640x480.jpg", "RGB", [32, 32], None, "lanczos"


def main():
    ANSWERS.mkdir(parents=True, exist_ok=True)
    for path in [*FOLDER.glob("*.*"), *ANSWERS.glob("*.png")]:
        path.unlink()
    made = files()
    for name, data in made.items():
        (FOLDER / name).write_bytes(data)
    listed, names = [], {}
    for file, mode, resize, crop, filter in cases(made):
        picture, resize = answer(FOLDER / file, mode, resize, crop, filter)
        # Answers that are the same pixels are stored once.
        data = encoded(picture, "PNG", optimize=True)
        name = names.setdefault(data, f"{len(names):02}.png")
        (ANSWERS / name).write_bytes(data)
        listed.append({"file": file, "mode": mode, "resize": resize, "crop": crop, "filter": filter, "answer": name})
    made_with = {"pillow": pillow_version} | {
        name: features.version(name) for name in ["libjpeg_turbo", "webp", "zlib"]
    }
    lines = ",\n".join("    " + json.dumps(case) for case in listed)
    text = f'{{\n  "made_with": {json.dumps(made_with)},\n  "cases": [\n{lines}\n  ]\n}}\n'
    (FOLDER / "cases.json").write_text(text)
    total = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    print(f"{len(made)} files, {len(listed)} cases, {total // 1000} kB in all")


if __name__ == "__main__":
    main()
