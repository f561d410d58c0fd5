"""Reading and writing videos: frames, and sound if there is any.

    video = read("clip.gif")                       # Video(frames=(T, H, W, 3) uint8, ...)
    frames, sound = sampled(video, Sampling())     # (16, 32, 32, 3) uint8, (12800,) int16
    write("clip.mp4", frames, 10, sound, 8000)

GIF, WebP and PNG are read by Pillow. They have no sound; a WAV file of the same name beside one is its sound.
All other formats are read by PyAV (extra `video`).
"""

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from mmkeras._utils import checks, terminal
from mmkeras.media import audio, images

PILLOW = (".gif", ".webp", ".png", ".apng")
USUAL_MS = 100  # of a frame without a duration, as browsers show it


@dataclass(frozen=True)
class Video:
    """A video.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB.
        starts: (T,) float. When each frame starts, in seconds.
        seconds: float. When the last frame ends.
        sound: (sample_rate_hz, array), as `mmkeras.media.audio.read` takes it. None without sound.
    """

    frames: np.ndarray
    starts: np.ndarray
    seconds: float
    sound: tuple[int, np.ndarray] | None = None


@dataclass(frozen=True)
class Sampling:
    """How a model samples a video. The defaults are those of the toy videos.

    Attributes:
        frames: int. Number F of frames, evenly spaced.
        image_size: int. Side S of the frames in pixels.
        seconds: float. Duration. Longer videos are cut.
        sample_rate_hz: int. Of the sound.
    """

    frames: int = 16
    image_size: int = 32
    seconds: float = 1.6
    sample_rate_hz: int = 8000

    def __post_init__(self):
        checks.ints(1, frames=self.frames, sample_rate_hz=self.sample_rate_hz)
        checks.ints(8, image_size=self.image_size)  # the network of the frames halves the side three times
        checks.numbers(0.1, seconds=self.seconds)

    @property
    def samples(self) -> int:
        """Number of samples of the sound."""
        return round(self.seconds * self.sample_rate_hz)


def read(
    video: str | os.PathLike | np.ndarray | Video,
    size: int | None = None,
    seconds: float = math.inf,
    frames_per_second: float = 10.0,
) -> Video:
    """Reads a video.

    Of a video that ends in the middle or is damaged there, the frames before are used, and a warning says so. A
    still image is a video of one frame.

    Args:
        video: Path; array (T, H, W, 3), which has no sound; or `Video`, which is returned as it is.
        size: int, optional. Side in pixels that the frames of a file are resized to while it is read. Defaults
            to None: their own size.
        seconds: float. Reading a file stops at the first frame that starts then or later. Defaults to infinity.
        frames_per_second: float. Of an array. Defaults to 10.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it is not a video, no frame can be read, or the sound beside it is damaged.
        ImportError: if the format needs PyAV, which is not installed.
    """
    if isinstance(video, Video):
        return video
    if isinstance(video, np.ndarray):
        checks.numbers(1e-3, frames_per_second=frames_per_second)
        if video.ndim != 4 or not len(video):
            raise ValueError(f"Expected video to have the shape (T, H, W, 3). Received: shape={video.shape}")
        starts = np.arange(len(video)) / frames_per_second
        frames = np.stack([images.read(frame) for frame in video])
        return Video(frames, starts, len(video) / frames_per_second)
    if not isinstance(video, str | os.PathLike):
        raise ValueError(
            f"Expected video to be a path, an array (T, H, W, 3) or a Video. Received: {type(video).__name__}"
        )
    path = Path(video)
    if not path.is_file():
        raise FileNotFoundError(f"Expected video to be a file. Received: {str(path)!r}, which does not exist")
    is_pillow = path.suffix.lower() in PILLOW
    frames, starts, end = [], [], 0.0
    if not is_pillow:
        _av()
    try:
        for start, duration, image in (_pillow_frames if is_pillow else _av_frames)(path):
            frames.append(images.resize(image, size) if size else image)
            starts.append(start)
            end = start + duration
            if start >= seconds:
                break
    except Exception as error:  # Pillow and PyAV raise many kinds
        if not frames:
            raise ValueError(f"Expected video to be undamaged. Received: {str(path)!r}: {error}") from None
        terminal.warn(f"{path} is damaged after {len(frames)} frames, {end:.2g} s, which are used: {error}")
    if not frames:
        raise ValueError(f"Expected video to have frames. Received: {str(path)!r} without any")
    sound = _wav(path.with_suffix(".wav")) if is_pillow else _av_sound(path, seconds)
    return Video(np.stack(frames), np.array(starts), end, sound)


def sampled(video: Video, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """The start of a video, as a model takes it.

    A shorter video keeps its last frame, and is silent after its end. A video without sound is silent.

    Args:
        video: Video.
        sampling: Sampling.

    Returns:
        frames (F, S, S, 3) uint8, and mono sound (samples,) int16.
    """
    times = np.arange(sampling.frames) * sampling.seconds / sampling.frames
    times += 1e-3  # the starts in a file are rounded
    rows = np.maximum(np.searchsorted(video.starts, times, side="right") - 1, 0)
    resized = np.stack([images.resize(video.frames[row], sampling.image_size) for row in rows])
    sound = np.zeros(sampling.samples, np.int16)
    if video.sound is not None:
        heard = audio.to_int16(audio.read(video.sound, sampling.sample_rate_hz))[: len(sound)]
        sound[: len(heard)] = heard
    return resized, sound


def write(
    path: str | os.PathLike,
    frames: np.ndarray,
    frames_per_second: float = 10.0,
    sound: np.ndarray | None = None,
    sample_rate_hz: int = 8000,
) -> None:
    """Writes a video: GIF, or by PyAV MP4 with H.264 and AAC. The sound of a GIF becomes a WAV file of the same
    name beside it.

    Args:
        path: str or path. Its suffix says the format.
        frames: (T, H, W, 3) uint8.
        frames_per_second: float. Defaults to 10.
        sound: (n,) int16 or float in -1..1, optional. Defaults to no sound.
        sample_rate_hz: int. Of the sound. Defaults to 8,000.

    Raises:
        ValueError: if the frames have another shape.
        ImportError: if the format needs PyAV, which is not installed.
    """
    path, frames = Path(path), read(frames, frames_per_second=frames_per_second).frames
    if path.suffix.lower() not in PILLOW:
        return _av_write(path, frames, frames_per_second, sound, sample_rate_hz)
    first, *others = map(Image.fromarray, frames)
    first.save(path, save_all=True, append_images=others, duration=round(1000 / frames_per_second), loop=0)
    if sound is not None:
        import soundfile

        soundfile.write(path.with_suffix(".wav"), sound, sample_rate_hz)


# --- Pillow ---


def _pillow_frames(path) -> Iterator[tuple[float, float, np.ndarray]]:
    """(start, duration) in seconds and the image of each frame."""
    start = 0.0
    with Image.open(path) as image:
        for number in itertools.count():  # not `n_frames`, which fails if a file ends in the middle
            try:
                image.seek(number)
            except EOFError:
                return
            pixels = images.read(image)
            duration = (image.info.get("duration") or USUAL_MS) / 1000
            yield start, duration, pixels
            start += duration


def _wav(path):
    if not path.is_file():
        return None
    rate = audio.check(path).sample_rate_hz
    return rate, audio.read(path, rate)


# --- PyAV ---


def _av():
    try:
        import av
    except ImportError:
        raise ImportError(
            "Videos other than GIF, WebP and PNG are read and written by PyAV, which is not installed: "
            "pip install 'mmkeras[video]'. Or convert them: ffmpeg -i video.mp4 video.gif"
        ) from None
    return av


def _av_frames(path):
    with _av().open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("it has no video stream")
        duration = 1 / float(container.streams.video[0].average_rate or 1000 / USUAL_MS)
        for number, frame in enumerate(container.decode(video=0)):
            start = number * duration if frame.time is None else frame.time
            yield start, duration, frame.to_ndarray(format="rgb24")


def _av_sound(path, seconds):
    av = _av()
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None
        rate, blocks = container.streams.audio[0].rate, []
        to_floats = av.AudioResampler(format="fltp", rate=rate)
        try:
            for frame in container.decode(audio=0):
                blocks += [part.to_ndarray() for part in to_floats.resample(frame)]  # (channels, n)
                if frame.time is not None and frame.time > seconds:
                    break
        except av.FFmpegError as error:
            terminal.warn(f"The sound of {path} is damaged after {len(blocks)} blocks: {error}")
    return (rate, np.concatenate(blocks, axis=1).T) if blocks else None


def _av_write(path, frames, frames_per_second, sound, rate):
    av = _av()
    # the codec's colors are of 2 x 2 pixels
    frames = np.pad(frames, ((0, 0), *((0, side % 2) for side in frames.shape[1:3]), (0, 0)), mode="edge")
    with av.open(str(path), "w") as container:
        picture = container.add_stream("h264", rate=Fraction(frames_per_second).limit_denominator(1000))
        picture.height, picture.width, picture.pix_fmt = *frames.shape[1:3], "yuv420p"
        speaker = None if sound is None else container.add_stream("aac", rate=rate, layout="mono")
        for frame in frames:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        if speaker:
            samples = audio.read((rate, sound), rate)[None]  # (1, n)
            for start in range(0, samples.shape[1], 1024):  # of AAC's blocks
                block = np.ascontiguousarray(samples[:, start : start + 1024])
                block = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
                # without times the file would lack the encoder's delay, and sound would come late
                block.rate, block.pts, block.time_base = rate, start, Fraction(1, rate)
                container.mux(speaker.encode(block))
            container.mux(speaker.encode())
        container.mux(picture.encode())
