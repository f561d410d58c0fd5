"""Prints how long a training step takes compared with PyTorch: `python tests/torch_twins.py [TASK ...]`.

For the preset "toy" of each task (captioning, speech_to_text, text_to_image; all by default) it trains three
models on the same batches, on the CPU: mmkeras's with XLA and without, and a PyTorch module of the same layers.
It prints the time of a step, the loss of the last step, and two ratios: XLA on / off, and the model as `build`
compiles it / PyTorch.

Not a test. Needs PyTorch (extra `backends`) and an idle machine: PyTorch's threads wait in a busy loop, and
while other processes use the cores, a step of PyTorch takes many times as long.
"""

import os
import sys
import tempfile
import time
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import mmkeras
from mmkeras.captioning.model import PRESETS as CAPTIONING
from mmkeras.nn.layers import DIAGONAL_WIDTH
from mmkeras.nn.spectrogram import mel_matrix
from mmkeras.speech_to_text.model import PRESETS as SPEECH
from mmkeras.text_to_image.model import PRESETS as TEXT_TO_IMAGE
from mmkeras.toy import builders

WARM_UP = 5  # the first steps trace and compile
STEPS, ROUNDS = 20, 7


class Decoder(nn.Module):
    """As mmkeras.nn.attention_decoder, with the dense layers that make the LSTM's first state."""

    def __init__(self, words, config):
        super().__init__()
        units = config.units
        self.embedding = nn.Embedding(words, config.embedding_dim)
        self.word_dropout = nn.Dropout1d(config.word_dropout)
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = nn.LSTM(config.embedding_dim, units, batch_first=True)
        self.state = nn.Linear(units, 2 * units)
        self.query = nn.Linear(units, units)
        self.score = nn.Linear(units, 1, bias=False)
        self.combine = nn.Linear(2 * units, units)
        self.logits = nn.Linear(units, words)

    def forward(self, tokens, memory, pooled, mask=None):
        x = self.dropout(self.word_dropout(self.embedding(tokens)))  # (B, T, E)
        hidden, cell = torch.tanh(self.state(pooled))[None].chunk(2, dim=-1)  # (1, B, U) each
        x, _ = self.lstm(x, (hidden.contiguous(), cell.contiguous()))  # (B, T, U)
        scores = self.score(torch.tanh(self.query(x)[:, :, None] + memory[:, None]))[..., 0]  # (B, T, N)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -torch.inf)
        attention = scores.softmax(dim=-1)  # (B, T, N)
        x = torch.tanh(self.combine(torch.cat([x, attention @ memory], dim=-1)))  # (B, T, U)
        return self.logits(self.dropout(x)), attention  # (B, T, V)


def token_loss(logits, targets, smoothing):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=0, label_smoothing=smoothing)


class Captioning(nn.Module):
    config = CAPTIONING["toy"]

    def __init__(self, words):
        super().__init__()
        units, channels, network = self.config.units, 3, []
        for filters, kernels in ((16, (3,)), (32, (3, 3)), (64, (3, 1)), (128, (1, 1))):  # vgg_small
            if filters > 16:
                network.append(nn.MaxPool2d(2))
            for kernel in kernels:
                convolution = nn.Conv2d(channels, filters, kernel, padding="same", bias=False)
                network += [convolution, nn.BatchNorm2d(filters), nn.ReLU()]
                channels = filters
        self.network = nn.Sequential(*network)
        self.features = nn.Sequential(nn.Linear(channels, units), nn.ReLU(), nn.LayerNorm(units))
        cells = (self.config.image_size // 8) ** 2
        self.positions = nn.Parameter(0.3 * torch.randn(cells, units))
        self.memory = nn.Sequential(nn.Linear(units, units), nn.ReLU(), nn.LayerNorm(units))
        self.decoder = Decoder(words, self.config)

    def forward(self, image, tokens):
        grid = self.network(image / 127.5 - 1)  # (B, C, h, w)
        features = self.features(grid.flatten(2).transpose(1, 2))  # (B, h*w, U)
        memory = self.memory(features + self.positions)  # (B, h*w, U)
        return self.decoder(tokens, memory, features.mean(dim=1))

    def loss(self, outputs, targets):
        logits, attention = outputs
        entropy = -(attention * torch.log(attention + 1e-8)).sum(dim=-1)  # (B, T)
        loss = token_loss(logits, targets, self.config.label_smoothing)
        return loss + self.config.entropy_penalty * entropy.mean()


class SpeechToText(nn.Module):
    config = SPEECH["toy"]

    def __init__(self, words):
        super().__init__()
        config, units = self.config, self.config.units
        self.frame = config.sample_rate_hz * config.frame_ms // 1000  # samples
        self.hop = config.sample_rate_hz * config.hop_ms // 1000
        self.fft = 2 ** (self.frame - 1).bit_length()
        mel = mel_matrix(self.fft // 2 + 1, config.bands, config.sample_rate_hz)
        self.register_buffer("mel", torch.tensor(mel.T))
        self.register_buffer("window", torch.hann_window(self.frame))
        self.subsampling = nn.Conv1d(config.bands, units, config.subsampling, stride=config.subsampling)
        options = {"batch_first": True, "bidirectional": True, "dropout": config.dropout}
        self.lstm = nn.LSTM(units, units, num_layers=config.encoder_layers, **options)
        self.memory = nn.Sequential(nn.Linear(2 * units, units), nn.LayerNorm(units))
        self.decoder = Decoder(words, config)

    def log_mel(self, audio, length):
        """As mmkeras.nn.spectrogram.LogMel: (B, n), (B,) → (B, M, F) and the number of valid frames (B,)."""
        audio = audio * (torch.arange(audio.shape[1]) < length[:, None])
        audio = audio / torch.sqrt(audio.square().sum(dim=1) / length + 1e-10)[:, None]
        audio = F.pad(audio, (0, self.fft))  # (B, n + fft)
        options = {"window": self.window, "center": False, "return_complex": True}
        spectrum = torch.stft(audio, self.fft, self.hop, self.frame, **options)  # (B, fft/2 + 1, F)
        power = spectrum.real.square() + spectrum.imag.square()
        x = torch.log(self.mel @ power + 0.1)  # (B, M, F)
        frames = (length + self.hop - 1) // self.hop
        count = frames[:, None, None]  # (B, 1, 1)
        mask = torch.arange(x.shape[2]) < count  # (B, 1, F)
        x = (x - (x * mask).sum(dim=2, keepdim=True) / count) * mask
        return x / torch.sqrt(x.square().sum(dim=2, keepdim=True) / count + 1e-3), frames

    def spec_augment(self, x):
        for dim, share in ((1, 0.2), (1, 0.2), (2, 0.08), (2, 0.08)):  # two masks of bands, two of frames
            size = x.shape[dim]
            width = share * size * torch.rand(len(x), 1)
            start = (size - width) * torch.rand(len(x), 1)
            index = torch.arange(size)
            x = x * ((index < start) | (index >= start + width)).unsqueeze(3 - dim)
        return x

    def forward(self, audio, length, tokens):
        x, frames = self.log_mel(audio, length)  # (B, M, F)
        if self.training and self.config.spec_augment:
            x = self.spec_augment(x)
        joined = self.config.subsampling
        x = self.subsampling(F.pad(x, (0, joined - 1))).transpose(1, 2)  # (B, S, U)
        steps = (frames + joined - 1) // joined  # (B,)
        packed = pack_padded_sequence(x, steps, batch_first=True, enforce_sorted=False)
        x, _ = pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=x.shape[1]
        )  # (B, S, 2U)
        mask = torch.arange(x.shape[1]) < steps[:, None]  # (B, S)
        memory = self.memory(x) * mask[..., None]  # (B, S, U)
        pooled = memory.sum(dim=1) / steps[:, None]  # (B, U)
        return *self.decoder(tokens, memory, pooled, mask), mask

    def loss(self, outputs, targets):
        logits, attention, mask = outputs
        valid = targets != 0  # (B, T)
        progress, memory_progress = (m.cumsum(1) / m.sum(1, keepdim=True) for m in (valid, mask))
        distance = progress[:, :, None] - memory_progress[:, None]  # (B, T, S)
        far = 1 - torch.exp(-distance.square() / (2 * DIAGONAL_WIDTH**2))
        penalty = ((attention * far).sum(dim=2) * valid).sum() / valid.sum()
        loss = token_loss(logits, targets, self.config.label_smoothing)
        return loss + self.config.diagonal_penalty * penalty


class TextToImage(nn.Module):
    config = TEXT_TO_IMAGE["toy"]

    def __init__(self, words):
        super().__init__()
        channels, side = self.config.channels, 4
        self.embedding = nn.Embedding(words, self.config.embedding_dim)
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.lstm = nn.LSTM(self.config.embedding_dim, self.config.units, batch_first=True)
        grid = [nn.Linear(self.config.units, side * side * channels, bias=False)]
        grid += [nn.Unflatten(1, (channels, side, side)), nn.BatchNorm2d(channels), nn.ReLU()]
        while 2 * side < self.config.image_size:
            side, before, channels = 2 * side, channels, max(channels // 2, 32)
            convolution = nn.ConvTranspose2d(before, channels, 4, stride=2, padding=1, bias=False)
            grid += [convolution, nn.BatchNorm2d(channels), nn.ReLU()]
        self.decoder = nn.Sequential(*grid, nn.ConvTranspose2d(channels, 3, 4, stride=2, padding=1))

    def forward(self, tokens):
        lengths = (tokens != 0).sum(dim=1)
        packed = pack_padded_sequence(self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False)
        _, (hidden, _) = self.lstm(packed)
        return self.decoder(hidden[-1])  # (B, 3, S, S)

    def loss(self, logits, image):
        return F.binary_cross_entropy_with_logits(logits, image)


TWINS = {"captioning": Captioning, "speech_to_text": SpeechToText, "text_to_image": TextToImage}


def to_torch(tensor):
    tensor = torch.tensor(tensor.numpy())
    if tensor.ndim == 4:  # images: PyTorch's channels come first
        return tensor.permute(0, 3, 1, 2).contiguous()
    return tensor.long() if tensor.dtype == torch.int32 else tensor


def keras_run(model, batches):
    """A function that trains for a number of steps and returns the last loss."""

    def run(steps):
        for step in range(steps):
            result = model.train_on_batch(*batches[step % len(batches)])
        return np.ravel(result)[0]  # before the metrics

    return run


def torch_run(twin, batches):
    """The same for PyTorch."""
    batches = [({name: to_torch(x) for name, x in inputs.items()}, to_torch(y)) for inputs, y in batches]
    adam = torch.optim.Adam(twin.parameters(), lr=twin.config.learning_rate)

    def run(steps):
        twin.train()
        for step in range(steps):
            inputs, targets = batches[step % len(batches)]
            adam.zero_grad()
            loss = twin.loss(twin(**inputs), targets)
            loss.backward()
            nn.utils.clip_grad_norm_(twin.parameters(), 5.0)
            adam.step()
            last = loss.item()  # each step, as train_on_batch does
        return last

    return run


@mock.patch.dict(builders.EXAMPLES, train=256, validation=8, test=8, test_unseen=8)
def compare(task, folder):
    package = getattr(mmkeras, task)
    data = package.data("toy", data_dir=folder)
    # Batches of clips differ in length, and each length is traced and compiled.
    batches = list(data.train.take(1 if task == "speech_to_text" else 4))

    models = {xla: package.build("toy", vocabulary=data.vocabulary) for xla in (True, False)}
    as_built = models[True].jit_compile
    for xla, model in models.items():
        model.jit_compile = xla
    twin = TWINS[task](len(data.vocabulary))
    ours = sum(int(np.prod(w.shape)) for w in models[True].trainable_weights)
    # PyTorch's LSTM has a second bias, which is redundant.
    theirs = sum(p.numel() for name, p in twin.named_parameters() if "bias_hh" not in name)
    print(f"{task}: batches of {data.batch_size}, {ours:,} parameters, {theirs:,} in PyTorch", flush=True)
    assert abs(theirs - ours) < 0.01 * ours

    runs = {xla: keras_run(model, batches) for xla, model in models.items()}
    runs["PyTorch"] = torch_run(twin, batches)
    for run in runs.values():
        run(WARM_UP)
    best = dict.fromkeys(runs, float("inf"))
    losses = {}
    for _ in range(ROUNDS):  # in turn, so that other load on the machine affects all of them
        for name, run in runs.items():
            start = time.perf_counter()
            losses[name] = run(STEPS)
            best[name] = min(best[name], (time.perf_counter() - start) / STEPS)
    labels = {True: "mmkeras, XLA on", False: "mmkeras, XLA off", "PyTorch": "PyTorch"}
    for name, label in labels.items():
        print(f"  {label:16} {1e3 * best[name]:6.1f} ms per step, loss {losses[name]:.3f}")
    print(f"  XLA on / off: {best[True] / best[False]:.2f}")
    state = "on" if as_built else "off"
    print(f"  mmkeras as built (XLA {state}) / PyTorch: {best[as_built] / best['PyTorch']:.2f}", flush=True)


if __name__ == "__main__":
    tf.config.set_visible_devices([], "GPU")
    torch.set_num_threads(os.cpu_count())
    keras.utils.set_random_seed(0)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        for task in sys.argv[1:] or TWINS:
            compare(task, folder)
