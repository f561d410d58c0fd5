"""Damages images, clips, tables, and models; each must give an answer or one clear error.

    python -m tests.fuzz                                    # all kinds; takes minutes
    python -m tests.fuzz --kind mp3 --seed 1234 --count 1   # repeats one file

A clear error is a ValueError or OSError that names the file. Only mmkeras may warn: output of C libraries and
warnings of other packages are failures. Each kind is read in a process with limited memory and time, so that a
crash is counted like any other failure. For Linux.
An Ogg file is not repeated exactly, because its serial number is random.
"""

import argparse
import io
import json
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

# Pillow reads up to 179 million pixels. These take 3 GiB: 4 bytes each before and after a conversion, or 8 in
# NumPy for 16 bits.
MEMORY = 4 * 2**30
SECONDS = 60  # limit for one file; most take milliseconds
SHOWN = 3  # printed failures per kind


def images(format):
    from PIL import Image

    rng = np.random.default_rng(0)
    color, alpha = (Image.fromarray(rng.integers(0, 256, (24, 32, n), np.uint8)) for n in (3, 4))
    deep = Image.fromarray(rng.integers(0, 65536, (24, 32), np.uint16))
    smooth = Image.linear_gradient("L").resize((64, 48))
    palette = color.convert("P", palette=Image.Palette.ADAPTIVE)
    compressions = ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", None)
    kinds = {
        "png": [(color, {}), (alpha, {}), (deep, {}), (palette, {"transparency": 3}), (smooth, {})],
        "jpeg": [(color, {}), (smooth, {"progressive": True}), (color.convert("CMYK"), {})],
        "gif": [(palette, {"transparency": 3}), (palette, {"save_all": True, "append_images": [smooth]})],
        "bmp": [(color, {}), (palette, {}), (smooth.convert("1"), {})],
        "webp": [(color, {}), (alpha, {"lossless": True})],
        "tiff": [(color, {"compression": name}) for name in compressions]
        + [(deep, {"compression": "tiff_lzw"}), (smooth.convert("1"), {"compression": "group4"})]
        + [(smooth.convert("F"), {})],
    }
    for image, options in kinds[format]:
        file = io.BytesIO()
        image.save(file, format, **options)
        yield file.getvalue()


def read_image(path):
    from mmkeras.media import images

    images.check(path)
    assert images.read(path).dtype == np.uint8


def clips(format):
    import soundfile

    mono = 0.3 * np.sin(np.arange(16_000) / 5) + 0.02 * np.random.default_rng(0).standard_normal(16_000)
    subtypes = {
        "wav": ("PCM_16", "FLOAT", "IMA_ADPCM"),
        "flac": ("PCM_16", "PCM_24"),
        "aiff": ("PCM_16", "ALAW"),
    }
    for subtype in subtypes.get(format, (None,)):
        for samples in (mono, np.stack([mono, mono[::-1]], axis=1)):
            file = io.BytesIO()
            soundfile.write(file, samples, 16_000, subtype, format=format)
            yield file.getvalue()


def read_clip(path):
    from mmkeras.media import audio

    audio.check(path)
    assert np.abs(audio.read(path, 8_000)).max() <= 1


def tables(format):
    pairs = [(f"photo_{i}.jpg", f"a caption, number {i}: 中文 é") for i in range(12)]
    files = [{"id": i, "file_name": file} for i, (file, _) in enumerate(pairs)]
    annotations = [{"id": i, "image_id": i, "caption": text} for i, (_, text) in enumerate(pairs)]
    text = {
        "csv": "image,caption,split\n" + "\n".join(f'{file},"{text} ""so""",train' for file, text in pairs),
        "tsv": "image\tcaption\n" + "\n".join("\t".join(pair) for pair in pairs),
        "pipes.csv": "\n".join(f"{file}|{text}|{text}" for file, text in pairs),
        "token.txt": "\n".join(f"{file}#{i}\t{text}" for file, text in pairs for i in range(2)),
        "json": json.dumps({"images": files, "annotations": annotations}, ensure_ascii=False),
    }[format]
    return [text.encode(), text.encode("utf-16")]


def read_table(path):
    from mmkeras.data import tables

    assert tables.read(path)


def models(format):
    from mmkeras import text_to_image
    from mmkeras._utils import saving

    sizes = {"image_size": 16, "units": 8, "embedding_dim": 4, "channels": 8}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"model.{format}")
        saving.save(text_to_image.build("toy", vocabulary=20, **sizes), path, {"note": "a text"})
        return [path.read_bytes()]


def read_model(path):
    import keras

    import mmkeras

    keras.utils.clear_session()
    mmkeras.load(path)


# file extension → functions that make and read files
KINDS = dict.fromkeys(("png", "jpeg", "gif", "bmp", "webp", "tiff"), (images, read_image))
KINDS |= dict.fromkeys(("wav", "flac", "ogg", "mp3", "aiff"), (clips, read_clip))
KINDS |= dict.fromkeys(("csv", "tsv", "pipes.csv", "token.txt", "json"), (tables, read_table))
KINDS |= {"keras": (models, read_model)}


def damage(content, rng):
    """Returns the content of a file with one kind of damage or, in half of the cases, more."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 3])):
        at, length = int(rng.integers(len(data) + 1)), int(rng.integers(1, 100))
        match rng.integers(8):
            case 0 | 1:
                for i in rng.integers(max(len(data), 1), size=rng.integers(1, 6)):
                    data[i : i + 1] = bytes([byte ^ 1 << int(rng.integers(8)) for byte in data[i : i + 1]])
            case 2:
                del data[at:]
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = rng.bytes(length)
            case 5:
                data[at : at + length] = bytes(len(data[at : at + length]))
            case 6:  # the header
                a, b = rng.integers(min(len(data), 64) + 1, size=2)
                data[a : a + 4], data[b : b + 4] = data[b : b + 4], data[a : a + 4]
            case 7:  # a value as in JSON
                values = list(re.finditer(rb'"[^"]*"|\d+', data)) or [re.match(b"", data)]
                start, stop = values[rng.integers(len(values))].span()
                data[start:stop] = [b"null", b"[]", b"{}", b'""', b"-1", b"1e999"][rng.integers(6)]
    return bytes(data)


def outcome(read, path):
    """Returns "answered" or "refused", or a description of the failure."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            read(path)
            result = "answered"
        except (ValueError, OSError) as error:
            result = "refused" if path.name in str(error) else f"no file name in: {error!r}"
        except Exception as error:
            result = repr(error)
    foreign = [str(warning) for warning in caught if warning.filename != __file__]
    return f"warning: {foreign[0]}" if foreign else result


def work(kind, seeds, results):
    """Sends seed, outcome, and peak memory of each seed. Runs in a process of its own."""
    make, read = KINDS[kind]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as terminal:
        path, originals = Path(folder, f"damaged.{kind}"), list(make(kind))
        for original in originals:
            path.write_bytes(original)
            read(path)
        sys.stderr.flush()
        os.dup2(terminal.fileno(), 2)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY,) * 2)
        for seed in seeds:
            rng = np.random.default_rng(seed)
            path.write_bytes(damage(originals[rng.integers(len(originals))], rng))
            signal.alarm(SECONDS)  # ends the process
            result = outcome(read, path)
            signal.alarm(0)
            if output := os.pread(2, 200, 0):
                result = f"on the terminal: {output!r}"
                os.truncate(2, 0)
                os.lseek(2, 0, os.SEEK_SET)
            results.send((seed, result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10))


def fuzz(kind, first, count):
    """Returns a line of the table, and the failures as (seed, description)."""
    counts, failures, megabytes, start, seed = Counter(), [], 0, time.time(), first
    while seed < first + count and len(failures) < 100:
        results, end = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(
            target=work, args=(kind, range(seed, first + count), end)
        )
        process.start()
        end.close()
        while True:
            try:
                current, result, peak = results.recv()
            except EOFError:
                break
            seed, megabytes = current + 1, max(megabytes, peak)
            counts[result] += 1
            if result not in ("answered", "refused"):
                failures.append((current, result))
        process.join()
        if process.exitcode:
            failures.append((seed, f"the process ended with {process.exitcode}"))
            seed += 1
    line = [seed - first, counts["answered"], counts["refused"], len(failures), megabytes, time.time() - start]
    return line, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=30_000, help="number of files; 1 %% are models (slow)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first file of each kind")
    parser.add_argument("--kind", choices=KINDS, help="only this kind")
    arguments = parser.parse_args()
    slow = max(arguments.count // 100, 1)
    counts = {kind: (arguments.count - slow) // (len(KINDS) - 1) for kind in KINDS} | {"keras": slow}
    if arguments.kind:
        counts = {arguments.kind: arguments.count}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda kind: fuzz(kind, arguments.seed, counts[kind]), counts)
        results = dict(zip(counts, results, strict=True))
    print(f"{'':10}{'tried':>8}{'answered':>10}{'refused':>9}{'failures':>10}{'peak MiB':>10}{'seconds':>9}")
    for kind, (line, _) in results.items():
        print(f"{kind:10}{{:8}}{{:10}}{{:9}}{{:10}}{{:10.0f}}{{:9.0f}}".format(*line))
    for kind, (_, failures) in results.items():
        for seed, failure in failures[:SHOWN]:
            print(f"\npython -m tests.fuzz --kind {kind} --seed {seed} --count 1\n  {failure}")
    sys.exit(any(failures for _, failures in results.values()))


if __name__ == "__main__":
    main()
